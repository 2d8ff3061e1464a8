# SPDX-License-Identifier: Apache-2.0
"""Which failures to listen an edit alone mends, and which may be over at the next try."""

import errno
import os
import socket

from porthole_common.errors import AddressUnavailable, ConfigInvalid
from porthole_common.listening import map_bind_error
from support.cases import naming


def test_what_may_be_over_at_the_next_try() -> None:
    for number in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENOBUFS):
        with naming(number):
            error = map_bind_error("[api] bind_port", "127.0.0.1:1", OSError(number, os.strerror(number)))
            assert isinstance(error, AddressUnavailable)
            assert str(error) == f"[api] bind_port: 127.0.0.1:1: {os.strerror(number)}"
    for code in (socket.EAI_AGAIN, socket.EAI_NONAME):
        with naming(code):
            assert isinstance(map_bind_error("o", "a", socket.gaierror(code, "words")), AddressUnavailable)
    assert str(map_bind_error("o", "a", OSError("no number"))) == "o: a: no number"


def test_what_an_edit_alone_mends() -> None:
    for number in (errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EINVAL):
        with naming(number):
            error = map_bind_error("[api] bind_port", "127.0.0.1:1", OSError(number, os.strerror(number)))
            assert isinstance(error, ConfigInvalid)
