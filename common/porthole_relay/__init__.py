# SPDX-License-Identifier: Apache-2.0
"""The relay as a library: sockets in, bytes across, an outcome out. It makes no RPC call and no access decision."""
