# SPDX-License-Identifier: Apache-2.0
"""An X client that paints an X server's whole screen and hears the keys pressed on it.

Why: something has to change on the screen of an Xvnc, and to notice a key. The client speaks the X11 protocol itself,
a dozen bytes of it, so that no X application has to be installed.
"""

import queue
import socket
import struct
import threading
from types import TracebackType
from typing import Self

KEY_TIMEOUT_S = 30
SYNC_TIMEOUT_S = 30
REPLY, KEY_PRESS = 1, 2
# Masks of ChangeWindowAttributes, and of the events a window's client wants.
BACKGROUND_PIXEL, EVENT_MASK = 0x2, 0x800
KEY_PRESS_MASK = 0x1


class Screen:
    """The root window of ``display`` (":5"), of 24-bit colour (X Window System Protocol, version 11, appendix B)."""

    def __init__(self, display: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(f"/tmp/.X11-unix/X{display.removeprefix(':')}")
        # Byte order l, version 11.0, no authorization.
        self._socket.sendall(struct.pack("<BxHHHHxx", 0x6C, 11, 0, 0, 0))
        status, _minor, words = struct.unpack("<BxxxHH", self._read(8))
        assert status == 1, "the X server refuses its client"
        setup = self._read(words * 4)
        vendor_length, formats = struct.unpack_from("<HxxxB", setup, 16)
        (self._root,) = struct.unpack_from("<I", setup, 32 + (vendor_length + 3) // 4 * 4 + formats * 8)
        self._change(EVENT_MASK, KEY_PRESS_MASK)
        self._keys: queue.Queue[int] = queue.Queue()
        self._replies: queue.Queue[bytes] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, name="x11-screen")
        self._listener.start()

    def paint(self, red: int, green: int, blue: int, area: tuple[int, int, int, int] = (0, 0, 0, 0)) -> None:
        """Fill ``area`` (x, y, width, height; without sizes, all from there on) with one colour."""
        self._change(BACKGROUND_PIXEL, red << 16 | green << 8 | blue)
        # ClearArea.
        self._socket.sendall(struct.pack("<BxHIhhHH", 61, 4, self._root, *area))

    def sync(self) -> None:
        """Return once the X server has done all it was asked for."""
        # GetInputFocus, for no reason but that it is answered.
        self._socket.sendall(struct.pack("<BxH", 43, 1))
        self._replies.get(timeout=SYNC_TIMEOUT_S)

    def next_key(self) -> int:
        """Return the keycode of the next key that is pressed, as it comes."""
        return self._keys.get(timeout=KEY_TIMEOUT_S)

    def close(self) -> None:
        """Leave the X server."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._listener.join(SYNC_TIMEOUT_S)
        self._socket.close()

    def _change(self, mask: int, value: int) -> None:
        # ChangeWindowAttributes.
        self._socket.sendall(struct.pack("<BxHIII", 2, 4, self._root, mask, value))

    def _listen(self) -> None:
        while len(event := self._socket.recv(32, socket.MSG_WAITALL)) == 32:
            if event[0] & 0x7F == KEY_PRESS:
                self._keys.put(event[1])
            elif event[0] == REPLY:
                self._replies.put(event)

    def _read(self, size: int) -> bytes:
        data = self._socket.recv(size, socket.MSG_WAITALL)
        assert len(data) == size, "the X server has closed the connection"
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
