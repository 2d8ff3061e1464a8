# SPDX-License-Identifier: Apache-2.0
"""The steps of a script, over a stream that is cut anywhere."""

import pytest

from porthole_common.errors import RfbInvalid
from porthole_common.rfb.stream_filter import Drop, Emit, Pass, Script, StreamFilter, Take


def feed(script: Script, *parts: bytes) -> bytes:
    """Return what goes on of ``parts``."""
    under_test = StreamFilter(lambda: script)
    return b"".join(bytes(under_test.feed(memoryview(part))) for part in parts)


def steps() -> Script:
    """Keep some, drop some, replace some; let the rest pass."""
    head = yield Take(3)
    yield Emit(head.upper())
    yield Pass(4)
    yield Pass(0)
    yield Drop(0)
    yield Drop(5)
    yield Emit(b"<")
    yield Emit(b">")
    yield Take(1)
    yield Pass()


def test_each_step_at_every_split() -> None:
    data = b"abcdefghijklmnopq"
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            assert feed(steps(), data[:first], data[first:second], data[second:]) == b"ABCdefg<>nopq"


def test_what_is_emitted_does_not_wait_for_more_bytes() -> None:
    assert feed(steps(), b"abc") == b"ABC"
    assert feed(steps(), b"abcdefghijkl") == b"ABCdefg<>"


def test_it_is_done_once_all_further_bytes_pass() -> None:
    under_test = StreamFilter(steps)
    assert bytes(under_test.feed(memoryview(b"abcdefghijkl"))) == b"ABCdefg<>"
    assert not under_test.is_done
    assert bytes(under_test.feed(memoryview(b"mn"))) == b"n"
    assert under_test.is_done
    assert bytes(under_test.feed(memoryview(b"opq"))) == b"opq"


def test_the_error_of_a_script_is_raised() -> None:
    def refuse() -> Script:
        yield Take(2)
        raise RfbInvalid("The viewer", "it says no")

    assert feed(refuse(), b"a") == b""
    with pytest.raises(RfbInvalid, match="it says no"):
        feed(refuse(), b"a", b"b")


def test_a_script_begins_with_bytes_of_the_stream() -> None:
    def begin_alone() -> Script:
        yield Emit(b"x")

    with pytest.raises(ValueError, match="begins with bytes"):
        StreamFilter(begin_alone).feed(memoryview(b"x"))


def test_the_first_bytes_start_the_script() -> None:
    """A console whose client is silent has no generators."""
    started = []

    def pass_all() -> Script:
        started.append(True)
        yield Pass()

    under_test = StreamFilter(pass_all)
    assert (started, under_test.is_done) == ([], False)
    assert under_test.feed(memoryview(b"abc")) == b"abc"
    assert (started, under_test.is_done) == ([True], True)
