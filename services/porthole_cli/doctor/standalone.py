# SPDX-License-Identifier: Apache-2.0
"""The port to ``porthole standalone``: finds those that run on this machine, and asks each for its report.

Why: a standalone has no configuration file and no broker that the doctor could ask, and its ports are for the user to
choose. Each has an abstract UNIX socket (:mod:`porthole_cli.examinee`), and the kernel lists those. The doctor itself
asks the API over HTTP: only that shows that other processes get an answer there. Called by :mod:`command`.
"""

import functools
import http.client
import json
import os
import pwd
import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from porthole_cli.doctor import finding, report
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_cli.doctor.parallel import gather
from porthole_cli.doctor.report import Report
from porthole_common.deadline import get_remaining_s

# The abstract name is this, the process id, and a random part.
SOCKET_PREFIX = "porthole-standalone/"
STEP_TIMEOUT_S = 5.0
# The examination's own budget (porthole_cli.doctor.examination), and a moment for the answer.
REPORT_TIMEOUT_S = 28.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_SOCKETS = Path("/proc/net/unix")
# A listening socket: __SO_ACCEPTCON of linux/net.h.
_LISTENS = 0x10000
# A row of a standalone's socket: address, count of references, protocol, flags, type, state, inode, name. The kernel
# writes "@" for the NUL that begins an abstract name.
_ROW = re.compile(
    r"[0-9a-f]+: [0-9A-F]{8} 0{8} (?P<flags>[0-9A-F]{8}) [0-9A-F]{4} [0-9A-F]{2} +(?P<inode>[0-9]{1,20}) "
    rf"@(?P<name>{SOCKET_PREFIX}[0-9]{{1,10}}-[0-9a-f]{{1,32}})",
    re.ASCII,
)


class Peer(NamedTuple):
    """Who is at the other end: ``struct ucred`` of unix(7)."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Greeting:
    """What a standalone says of itself: its process id, the URL of its API and that of its pages."""

    pid: int
    endpoint: str
    novncproxy_base_url: str

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Return the greeting of a JSON line.

        :raises ValueError: when it is none.
        """
        try:
            value = json.loads(line)
            return cls(int(value["pid"]), report.show(value["endpoint"]), report.show(value["novncproxy_base_url"]))
        except (KeyError, TypeError) as exc:
            raise ValueError("no greeting") from exc


@dataclass(frozen=True)
class Standalone:
    """One that runs. ``name`` is its socket's; ``greeting`` is None when it gave none in time.

    ``refused`` is True when it belongs to another user: it answers that one and root.
    """

    name: str
    peer: Peer
    greeting: Greeting | None = None
    refused: bool = False

    @property
    def pid(self) -> int:
        """Its process id; as it says itself, if the kernel cannot tell (another pid namespace)."""
        return self.peer.pid or (self.greeting.pid if self.greeting else 0)

    @property
    def user(self) -> str:
        """The name of its user, or the number where no name is known."""
        try:
            return pwd.getpwuid(self.peer.uid).pw_name
        except KeyError:
            return str(self.peer.uid)


def read_peer(connection: socket.socket) -> Peer:
    """Return who is at the other end of a UNIX socket; of a listener it is who called listen()."""
    size = struct.calcsize("3i")
    return Peer(*struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))


def parse_names(table: str) -> list[str]:
    """Return the names of the standalones' listening sockets in ``table``, the text of /proc/net/unix. Pure."""
    # A name may hold any byte, also a newline, so a row may be anything that a user of this machine has written.
    rows = filter(None, map(_ROW.fullmatch, table.split("\n")))
    return sorted({row["name"] for row in rows if int(row["flags"], 16) & _LISTENS})


def find_standalones() -> list[Standalone]:
    """Return the standalones of this machine's network namespace, whoever runs them."""
    try:
        names = parse_names(_SOCKETS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return []
    met = gather([functools.partial(meet, name) for name in names], STEP_TIMEOUT_S * 2)
    return [each for each in met if isinstance(each, Standalone)]


def meet(name: str, own_uid: int | None = None) -> Standalone | None:
    """Return who listens under ``name``; None when that one has ended. ``own_uid`` is this process's, unless given."""
    own_uid = os.geteuid() if own_uid is None else own_uid
    deadline = time.monotonic() + STEP_TIMEOUT_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(STEP_TIMEOUT_S)
        try:
            connection.connect(f"\0{name}")
        except ConnectionRefusedError:
            return None
        except OSError:
            # Its backlog is full: it takes no connections.
            return Standalone(name, Peer(_read_pid(name), -1, -1))
        peer = read_peer(connection)
        if own_uid not in {0, peer.uid}:
            # It would answer nothing, and its words would not be ours to trust.
            return Standalone(name, peer, refused=True)
        try:
            line = _read_line(connection, deadline)
            return Standalone(name, peer, Greeting.parse(line)) if line else Standalone(name, peer, refused=True)
        except (OSError, ValueError):
            return Standalone(name, peer)


def examine_standalones(standalones: Sequence[Standalone]) -> Report:
    """Ask each of ``standalones`` for its report, all at once, and return one report of all."""
    started = time.monotonic()
    questions = [functools.partial(examine_standalone, each) for each in standalones]
    answers = gather(questions, REPORT_TIMEOUT_S)
    findings: list[Finding] = []
    gaps: list[str] = []
    for standalone, answer in zip(standalones, answers, strict=True):
        found = answer if isinstance(answer, Report) else Report((build_mute(standalone),), ("everything else",), 0.0)
        if len(standalones) == 1:
            findings += found.findings
            gaps += found.not_examined
        else:
            where = f"process {standalone.pid}"
            # Its own findings name the process already.
            findings += [
                each if each.id.startswith("standalone.") else replace(each, host=where) for each in found.findings
            ]
            gaps += [f"{gap} of {where}" for gap in found.not_examined]
    return Report(tuple(findings), tuple(gaps), time.monotonic() - started)


def examine_standalone(standalone: Standalone) -> Report:
    """Return what is wrong with one standalone, and what is in order; never raises for what that one does."""
    if standalone.refused:
        return Report((_build_other_user(standalone),), ("everything else",), 0.0)
    if standalone.greeting is None:
        return Report((build_mute(standalone),), ("everything else",), 0.0)
    greeting = standalone.greeting
    text = f"process {standalone.pid}, with the API at {greeting.endpoint} and the pages at "
    known = [finding.ok(FindingId.STANDALONE_OK, text + greeting.novncproxy_base_url), _examine_api(greeting.endpoint)]
    try:
        inner = report.parse_json(_fetch_report(standalone.name))
    except (OSError, ValueError):
        trouble = build_mute(standalone) if meet(standalone.name) else _build_ended(standalone)
        return Report((*known, trouble), ("everything else",), 0.0)
    return Report((*known, *inner.findings), inner.not_examined, inner.seconds)


def build_mute(standalone: Standalone) -> Finding:
    """Return the finding of a standalone that does not answer."""
    pid = standalone.pid
    problem = f"porthole standalone (process {pid}) does not answer the doctor."
    mend = f"If it was stopped (Ctrl-Z), let it go on: kill -CONT {pid}. Else end it (kill {pid}) and start it again."
    return finding.error(FindingId.STANDALONE_MUTE, "", problem, mend)


def _build_ended(standalone: Standalone) -> Finding:
    problem = f"porthole standalone (process {standalone.pid}) ended during the examination."
    mend = "Read what it has written in its terminal, and start it again: porthole standalone"
    return finding.error(FindingId.STANDALONE_NONE, "", problem, mend)


def build_none(pid: int | None) -> Finding:
    """Return the finding that no standalone runs here, or none as process ``pid``."""
    problem = "No porthole standalone runs on this machine" + (f" as process {pid}." if pid else ".")
    mend = "Start it, in a terminal of its own: porthole standalone"
    return finding.error(FindingId.STANDALONE_NONE, "", problem, mend)


def build_beside(standalones: Sequence[Standalone]) -> Finding:
    """Return the finding that standalones run beside the daemons, which alone were examined."""
    pids = ", ".join(str(each.pid) for each in standalones)
    text = f"one runs beside the daemons (process {pids}); porthole doctor --standalone examines it"
    return finding.ok(FindingId.STANDALONE_OK, text)


def _build_other_user(standalone: Standalone) -> Finding:
    user = standalone.user
    where = f"A porthole standalone of the user {user} runs here (process {standalone.pid})"
    problem = f"{where}. {'Only root' if user == 'root' else f'Only {user} and root'} may ask it."
    mend = f"Run the doctor as that user: sudo -u {user} porthole doctor"
    return finding.warning(FindingId.STANDALONE_OTHER_USER, "", problem, mend)


def _examine_api(endpoint: str) -> Finding:
    """Ask for the version document, which every client asks for first."""
    parts = urlsplit(endpoint)
    try:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=STEP_TIMEOUT_S)
        try:
            connection.request("GET", f"{parts.path}/")
            status = connection.getresponse().status
        finally:
            connection.close()
        problem = "" if status == 200 else f"HTTP {status}"
    except (OSError, http.client.HTTPException) as exc:
        problem = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
    if not problem:
        return finding.ok(FindingId.API_OK, f"{endpoint} answers")
    mend = "Read what porthole standalone has written in its terminal; end it by Ctrl-C and start it again."
    problem = f"The API at {endpoint} gives no version document: {problem}."
    return finding.error(FindingId.API_UNREACHABLE, "", problem, mend)


def _fetch_report(name: str) -> str:
    """Return the JSON of a report.

    :raises OSError: when it does not come in time.
    :raises ValueError: when it is too long.
    """
    deadline = time.monotonic() + REPORT_TIMEOUT_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(STEP_TIMEOUT_S)
        connection.connect(f"\0{name}")
        _read_line(connection, deadline)
        connection.sendall(b"\n")
        content = b""
        while len(content) <= MAX_ANSWER_BYTES:
            connection.settimeout(get_remaining_s(deadline))
            chunk = connection.recv(65536)
            if not chunk:
                return content.decode()
            content += chunk
    raise ValueError("the report does not end")


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    """Return the first line without its end, empty when the other side closes before.

    :raises OSError: when it does not come by ``deadline``, a time of the monotonic clock.
    :raises ValueError: when it does not end.
    """
    line = b""
    while len(line) <= 4096:
        connection.settimeout(get_remaining_s(deadline))
        # One by one: what follows is another reader's.
        byte = connection.recv(1)
        if byte in {b"", b"\n"}:
            return line if byte else b""
        line += byte
    raise ValueError("the line does not end")


def _read_pid(name: str) -> int:
    digits = name.removeprefix(SOCKET_PREFIX).partition("-")[0]
    return int(digits) if digits.isdecimal() else 0
