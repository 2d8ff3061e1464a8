# SPDX-License-Identifier: Apache-2.0
"""The access decision: whether a client gets its console, and from which VNC server."""
