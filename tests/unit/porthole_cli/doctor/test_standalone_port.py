# SPDX-License-Identifier: Apache-2.0
"""Finding a ``porthole standalone``: what the kernel lists, and which addresses the doctor connects to."""

import os
import socket
import uuid
from collections.abc import Iterator

import pytest

from porthole_cli.doctor import standalone_port as port
from porthole_cli.doctor.standalone_port import SOCKET_PREFIX
from support.nova_api import NovaApi
from support.standalone_socket import greet, listening

TABLE = """\
Num       RefCount Protocol Flags    Type St Inode Path
00000000a: 00000002 00000000 00010000 0001 01 100 @porthole-standalone/12-aa
00000000b: 00000003 00000000 00000000 0001 03 101 @porthole-standalone/11-bb
00000000c: 00000002 00000000 00010000 0001 01 102 /run/porthole-standalone/13-bb
00000000d: 00000002 00000000 00010000 0001 01 103 @porthole-standalone/7-cc
00000000e: 00000003 00000000 00000000 0001 03 104
00000000f: 00000002 00000000 00010000 0001 01 105 @other with spaces
"""


@pytest.fixture
def api() -> Iterator[NovaApi]:
    with NovaApi() as running:
        yield running


def test_the_kernels_table() -> None:
    assert port.parse_names(TABLE) == ["porthole-standalone/12-aa", "porthole-standalone/7-cc"]
    assert port.parse_names("") == []


def test_a_forged_row_is_skipped() -> None:
    """Every user of the machine can put anything behind a newline in the name of a socket."""
    good = TABLE.splitlines()[1]
    for row in (
        "A B C nexto E F G @porthole-standalone/1-aa",
        good.replace("00010000", "0001000g"),
        good.replace("12-aa", "12"),
        good.replace("12-aa", f"{'1' * 5000}-aa"),
        good.replace("12-aa", "12-aa\x1b[2J"),
        good.replace("12-aa", "12-aa b"),
        good.replace("12-aa", "\u0661-aa"),
        good.replace("12-aa", "../12-aa"),
        "",
        "@",
    ):
        assert port.parse_names(f"{TABLE}{row}\n") == port.parse_names(TABLE), row


def test_a_socket_with_a_newline_in_its_name_hides_no_standalone(api: NovaApi) -> None:
    with socket.socket(socket.AF_UNIX) as hostile, listening(greet(api.url, b"")) as name:
        hostile.bind(f"\0x{uuid.uuid4().hex}\nA B C nexto E F G @{SOCKET_PREFIX}1")
        hostile.listen()
        assert name in [each.name for each in port.find_standalones()]


def test_one_that_listens_is_found_and_one_that_has_ended_is_not(api: NovaApi) -> None:
    with listening(greet(api.url, b"")) as name:
        one = next(each for each in port.find_standalones() if each.name == name)
        assert (one.peer.uid, one.pid, one.refused) == (os.geteuid(), os.getpid(), False)
        assert one.greeting is not None
        assert one.greeting.endpoint == api.url
    assert all(each.name != name for each in port.find_standalones())
    assert port.read_standalone(name) is None


def test_the_doctor_connects_to_loopback_alone() -> None:
    for url, expected in (
        ("http://127.0.0.1:8774/v2.1", ("127.0.0.1", 8774)),
        ("http://127.1.2.3:1/v2.1", ("127.1.2.3", 1)),
        ("http://[::1]:65535/v2.1", ("::1", 65535)),
        ("http://localhost:8774/v2.1", ("localhost", 8774)),
    ):
        assert port.parse_endpoint(url) == expected
    for url in (
        "http://10.0.0.1:8774/v2.1",
        "http://[2001:db8::1]:8774/v2.1",
        "http://example.org:8774/v2.1",
        "http://127.0.0.1:99999/v2.1",
        "http://127.0.0.1:0/v2.1",
        "http://127.0.0.1:8774/v2.1/../admin?x",
        "http://127.0.0.1:8774/",
        "http://127.0.0.1/v2.1",
        "http://u@127.0.0.1:8774/v2.1",
        "http://127.0.0.1:8774/v2.1\n",
        "https://127.0.0.1:8774/v2.1",
        "http://[::1/",
        "http://0.0.0.0:8774/v2.1",
        "http://127.0.0.1.2:8774/v2.1",
        "",
    ):
        with pytest.raises(ValueError, match=r"."):
            port.parse_endpoint(url)
