# SPDX-License-Identifier: Apache-2.0
"""porthole-api: Nova's REST API for console access."""
