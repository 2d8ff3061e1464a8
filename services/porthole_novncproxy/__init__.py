# SPDX-License-Identifier: Apache-2.0
"""porthole-novncproxy: admits browsers and native viewers to VNC servers, and relays."""
