# SPDX-License-Identifier: Apache-2.0
"""The port to ``porthole standalone``: finds those that run on this machine, and asks each for its report.

Why: a standalone has no configuration file and no broker that the doctor could ask, and its ports are for the user to
choose. Each has an abstract UNIX socket (:mod:`porthole_cli.examinee`), and the kernel lists those. The doctor itself
asks the API over HTTP: only that shows that other processes get an answer there. Called by :mod:`command`.
"""

import functools
import ipaddress
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

from porthole_cli.doctor import finding, report
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_cli.doctor.parallel import gather
from porthole_cli.doctor.report import Report
from porthole_cli.invocation import find_command
from porthole_common.deadline import get_remaining_s

# The abstract name is this, the process id, and a random part.
SOCKET_PREFIX = "porthole-standalone/"
STEP_TIMEOUT_S = 5.0
# The examination's own budget (porthole_cli.doctor.examination), and a moment for the answer.
REPORT_TIMEOUT_S = 28.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_URL_CHARS = 400
# PID_MAX_LIMIT of linux/threads.h.
_MAX_PID = 4 * 1024 * 1024
# As porthole_cli.wiring writes it. The doctor connects to loopback alone, whatever the other side asks for.
_ENDPOINT = re.compile(r"http://(?P<host>localhost|[0-9.]{7,15}|\[[0-9a-f:.]{2,45}\]):(?P<port>[0-9]{1,5})/v2\.1")
_SOCKETS = Path("/proc/net/unix")
# A listening socket: __SO_ACCEPTCON of linux/net.h.
_LISTENS = 0x10000
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r?$)")
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
            pid, endpoint, pages = value["pid"], value["endpoint"], value["novncproxy_base_url"]
        except (KeyError, TypeError, RecursionError) as exc:
            raise ValueError("no greeting") from exc
        if not (isinstance(pid, int) and 0 < pid <= _MAX_PID and isinstance(endpoint, str) and isinstance(pages, str)):
            raise ValueError("no greeting")
        parse_endpoint(endpoint)
        return cls(pid, endpoint, report.show(pages, MAX_URL_CHARS))


@dataclass(frozen=True)
class Standalone:
    """One that runs. ``name`` is its socket's; ``greeting`` is None when it gave none in time.

    ``refused`` is True when it belongs to another user: it answers that one and root. Root asks it only when the
    command line names its process; ``foreign`` is then True. ``invalid`` is True when its first line was no
    greeting.
    """

    name: str
    peer: Peer
    greeting: Greeting | None = None
    refused: bool = False
    foreign: bool = False
    invalid: bool = False

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


def parse_endpoint(url: str) -> tuple[str, int]:
    """Return host and port of the URL of a standalone's API. Pure.

    :raises ValueError: when it has another form, or is not on loopback.
    """
    found = _ENDPOINT.fullmatch(url)
    if found is None:
        raise ValueError("no URL of a standalone's API")
    host, port = found["host"].strip("[]"), int(found["port"])
    if not 0 < port < 65536 or (host != "localhost" and not ipaddress.ip_address(host).is_loopback):
        raise ValueError("no URL on loopback")
    return host, port


def find_standalones(named_pid: int = 0) -> list[Standalone]:
    """Return all standalones of this machine's network namespace; ``named_pid`` is that of :func:`meet`."""
    try:
        names = parse_names(_SOCKETS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return []
    met = gather([functools.partial(meet, name, named_pid=named_pid) for name in names], STEP_TIMEOUT_S * 2)
    return [each for each in met if isinstance(each, Standalone)]


def meet(name: str, own_uid: int | None = None, named_pid: int = 0) -> Standalone | None:
    """Return who listens under ``name``; None when that one has ended. ``own_uid`` is this process's, unless given.

    Every user can bind such a name and send any words. Another user's words are therefore read, also by root, only from
    the process ``named_pid``.
    """
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
            holder = _find_holder(name)
            return Standalone(name, holder, refused=holder.uid != own_uid)
        peer = read_peer(connection)
        foreign = peer.uid != own_uid
        if foreign and (not named_pid or peer.pid != named_pid):
            return Standalone(name, peer, refused=True)
        try:
            line = _read_line(connection, deadline)
            return Standalone(name, peer, Greeting.parse(line) if line else None, foreign=foreign)
        except OSError:
            return Standalone(name, peer, foreign=foreign)
        except ValueError:
            return Standalone(name, peer, foreign=foreign, invalid=True)


def examine_standalones(standalones: Sequence[Standalone]) -> Report:
    """Ask each of ``standalones`` for its report, all at once, and return one report of all."""
    started = time.monotonic()
    questions = [functools.partial(examine_standalone, each) for each in standalones]
    # Each keeps its own deadline; this one is for a fault of that.
    answers = gather(questions, REPORT_TIMEOUT_S + 1.0)
    findings: list[Finding] = []
    gaps: list[str] = []
    for standalone, answer in zip(standalones, answers, strict=True):
        found = answer if isinstance(answer, Report) else Report((build_mute(standalone),), ("everything else",), 0.0)
        if len(standalones) == 1 or standalone.foreign:
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
    deadline = time.monotonic() + REPORT_TIMEOUT_S
    if standalone.refused:
        return Report((_build_other_user(standalone),), ("everything else",), 0.0)
    if standalone.invalid:
        return Report((_build_invalid(standalone),), ("everything else",), 0.0)
    if standalone.greeting is None:
        return Report((build_mute(standalone),), ("everything else",), 0.0)
    greeting = standalone.greeting
    owner = f" of the user {standalone.user}" if standalone.foreign else ""
    text = f"process {standalone.pid}{owner}, with the API at {greeting.endpoint} and the pages at "
    known = [finding.ok(FindingId.STANDALONE_OK, text + greeting.novncproxy_base_url), _examine_api(greeting.endpoint)]
    try:
        inner = report.parse_json(_fetch_report(standalone, deadline))
    except (OSError, ValueError) as exc:
        build = _build_invalid if isinstance(exc, ValueError) else build_mute
        trouble = build(standalone) if _listens(standalone) else _build_ended(standalone)
        return Report((*known, trouble), ("everything else",), 0.0)
    if standalone.foreign:
        inner = _attribute(inner, f"said by process {standalone.pid} of the user {standalone.user}")
    return Report((*known, *inner.findings), inner.not_examined, inner.seconds)


def _attribute(inner: Report, source: str) -> Report:
    """Return the same report with its ``source`` in each finding, since its advice is another user's."""
    findings = tuple(replace(each, host=source) for each in inner.findings)
    return Report(findings, tuple(f"{gap} ({source})" for gap in inner.not_examined), inner.seconds)


def build_mute(standalone: Standalone) -> Finding:
    """Return the finding of a standalone that does not answer."""
    pid = standalone.pid
    problem = f"porthole standalone (process {pid}) does not answer the doctor."
    mend = f"If it was stopped (Ctrl-Z), let it go on: kill -CONT {pid}. Else end it (kill {pid}) and start it again."
    return finding.error(FindingId.STANDALONE_MUTE, "", problem, mend)


def _build_invalid(standalone: Standalone) -> Finding:
    """Return the finding of one whose words are not those of a standalone."""
    pid = standalone.pid
    problem = f"Process {pid} of the user {standalone.user} speaks, but not as a standalone."
    mend = (
        f"See what it is: ps -o user,lstart,args -p {pid}. If it is a porthole standalone, it may be of another "
        "version than this command: end it by Ctrl-C and start it again."
    )
    return finding.error(FindingId.STANDALONE_INVALID, "", problem, mend)


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
    if standalone.peer.uid < 0:
        problem = f"An unknown process holds the socket {standalone.name}, and takes no connections."
        return finding.warning(FindingId.STANDALONE_OTHER_USER, "", problem, "As root, find the process: ss -xlp")
    user = standalone.user
    where = f"A porthole standalone of the user {user} runs here (process {standalone.pid})"
    problem = f"{where}. {'Only root' if user == 'root' else f'Only {user} and root'} may ask it."
    mend = f"Run the doctor as that user: sudo -u {user} {find_command(everywhere=True)} doctor"
    if standalone.peer.pid:
        mend += f" (or as root: {find_command(everywhere=True)} doctor --standalone {standalone.pid})"
    return finding.warning(FindingId.STANDALONE_OTHER_USER, "", problem, mend)


def _examine_api(endpoint: str) -> Finding:
    """Ask for the version document, which every client asks for first."""
    host, port = parse_endpoint(endpoint)
    try:
        status = _fetch_status(host, port)
        problem = "" if status == 200 else f"HTTP {status}"
    except (OSError, ValueError) as exc:
        problem = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
    if not problem:
        return finding.ok(FindingId.API_OK, f"{endpoint} answers")
    mend = "Read what porthole standalone has written in its terminal; end it by Ctrl-C and start it again."
    problem = f"The API at {endpoint} gives no version document: {problem}."
    return finding.error(FindingId.API_UNREACHABLE, "", problem, mend)


def _fetch_status(host: str, port: int) -> int:
    """Return the HTTP status of the version document.

    Why not http.client: its timeout is for each read, so a server that sends a byte now and then holds it for ever.

    :raises OSError: when no answer comes in time.
    :raises ValueError: when the answer is not HTTP.
    """
    deadline = time.monotonic() + STEP_TIMEOUT_S
    with socket.create_connection((host, port), STEP_TIMEOUT_S) as connection:
        name = f"[{host}]" if ":" in host else host
        connection.sendall(f"GET /v2.1/ HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode())
        found = _STATUS_LINE.match(_read_line(connection, deadline))
    if found is None:
        raise ValueError("the answer is not HTTP")
    return int(found[1])


def _fetch_report(standalone: Standalone, deadline: float) -> str:
    """Return the JSON of a report.

    :raises OSError: when it does not come by ``deadline``, or another process has taken the name.
    :raises ValueError: when it is too long, or no text.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(STEP_TIMEOUT_S)
        connection.connect(f"\0{standalone.name}")
        if read_peer(connection) != standalone.peer:
            raise ConnectionResetError("another process has the name")
        _read_line(connection, deadline)
        connection.sendall(b"\n")
        content = bytearray()
        while len(content) <= MAX_ANSWER_BYTES:
            connection.settimeout(get_remaining_s(deadline))
            chunk = connection.recv(65536)
            if not chunk:
                break
            content += chunk
    if not content:
        raise ConnectionResetError("no report")
    if len(content) > MAX_ANSWER_BYTES:
        raise ValueError("the report does not end")
    return content.decode()


def _listens(standalone: Standalone) -> bool:
    """Say whether the same process still has its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(STEP_TIMEOUT_S)
        try:
            connection.connect(f"\0{standalone.name}")
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return read_peer(connection) == standalone.peer


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


def _find_holder(name: str) -> Peer:
    """Return the process that its socket's ``name`` gives, if that one holds the socket; else process 0, user -1.

    The name alone proves nothing: it may give a process of somebody else, and the doctor would advise to end that one.
    """
    pid = int(name.removeprefix(SOCKET_PREFIX).partition("-")[0])
    rows = filter(None, map(_ROW.fullmatch, _SOCKETS.read_text(encoding="utf-8", errors="replace").split("\n")))
    links = {f"socket:[{row['inode']}]" for row in rows if row["name"] == name}
    try:
        process = Path(f"/proc/{pid}")
        uid = re.search(r"^Uid:\t\d+\t(\d+)", (process / "status").read_text(encoding="utf-8", errors="replace"), re.M)
        if uid and any(os.readlink(each) in links for each in (process / "fd").iterdir()):
            return Peer(pid, int(uid[1]), -1)
    except OSError:
        # Another user's process, or one that has ended.
        pass
    return Peer(0, -1, -1)
