# SPDX-License-Identifier: Apache-2.0
"""The far end of a socket pair, which a test holds in place of a client."""

import socket


def heard(sock: socket.socket, may_reset: bool = False) -> tuple[bytes, bool]:
    """Return the bytes that have come to a far end that does not block, and whether its stream has ended.

    :raises ConnectionResetError: when it ended with a reset, which may take an answer along, unless it ``may_reset``.
    """
    data = b""
    while True:
        try:
            chunk = sock.recv(65536)
        except BlockingIOError:
            return data, False
        except ConnectionResetError:
            if not may_reset:
                raise
            return data, True
        if not chunk:
            return data, True
        data += chunk
