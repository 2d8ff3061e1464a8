# SPDX-License-Identifier: Apache-2.0
"""The port to ``porthole standalone``: finds those that run on this machine, and reads what they send.

Why: a standalone has no configuration file and no broker that the doctor could ask, and its user chooses its ports.
Each standalone listens on an abstract UNIX socket (:mod:`porthole_cli.doctor_socket`), and the kernel lists those
sockets. Every user of the machine can bind such a name and send anything, so each answer is parsed strictly and has one
deadline. Called by :mod:`standalone`.
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
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from porthole_cli.doctor import report
from porthole_cli.doctor.parallel import gather
from porthole_common.deadline import get_remaining_s

# The abstract name is this prefix, the process id, and a random part.
SOCKET_PREFIX = "porthole-standalone/"
STEP_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_URL_CHARS = 400
MAX_LINE_BYTES = 4096
# PID_MAX_LIMIT of linux/threads.h.
_MAX_PID = 4 * 1024 * 1024
# The form that porthole_cli.wiring writes. The doctor connects to loopback alone, whatever address a greeting names.
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


class PeerCredentials(NamedTuple):
    """The process at the other end of a UNIX socket: ``struct ucred`` of unix(7)."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Greeting:
    """The first line of a standalone: its process id, the URL of its API and the URL of its pages."""

    pid: int
    endpoint: str
    novncproxy_base_url: str

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Return the greeting of a JSON line.

        :raises ValueError: when the line is not a greeting.
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
    """One standalone that runs. ``name`` is the name of its socket; ``greeting`` is None if none arrived in time.

    ``refused`` is True when another user owns the process: it answers only that user and root. Root asks such a process
    only when the command line names it; ``foreign`` is then True. ``invalid`` is True when the first line was not a
    greeting.
    """

    name: str
    peer: PeerCredentials
    greeting: Greeting | None = None
    refused: bool = False
    foreign: bool = False
    invalid: bool = False

    @property
    def pid(self) -> int:
        """Its process id; the one in its greeting if the kernel cannot tell (another pid namespace)."""
        return self.peer.pid or (self.greeting.pid if self.greeting else 0)

    @property
    def user(self) -> str:
        """The name of its user, or the number if the user has no name here."""
        try:
            return pwd.getpwuid(self.peer.uid).pw_name
        except KeyError:
            return str(self.peer.uid)


def read_peer(connection: socket.socket) -> PeerCredentials:
    """Return the process at the other end of a UNIX socket; for a listener, the process that called listen()."""
    size_bytes = struct.calcsize("3i")
    ucred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size_bytes)
    return PeerCredentials(*struct.unpack("3i", ucred))


def parse_names(table: str) -> list[str]:
    """Return the names of the standalones' listening sockets in ``table``, the text of /proc/net/unix. Pure."""
    # A name may hold any byte, also a newline, so any user of this machine can forge a row.
    rows = filter(None, map(_ROW.fullmatch, table.split("\n")))
    return sorted({row["name"] for row in rows if int(row["flags"], 16) & _LISTENS})


def parse_endpoint(url: str) -> tuple[str, int]:
    """Return host and port of the URL of a standalone's API. Pure.

    :raises ValueError: when the URL has another form, or is not on loopback.
    """
    found = _ENDPOINT.fullmatch(url)
    if found is None:
        raise ValueError("no URL of a standalone's API")
    host, port = found["host"].strip("[]"), int(found["port"])
    if not 0 < port < 65536 or (host != "localhost" and not ipaddress.ip_address(host).is_loopback):
        raise ValueError("no URL on loopback")
    return host, port


def find_standalones(named_pid: int = 0) -> list[Standalone]:
    """Return all standalones of this machine's network namespace; ``named_pid`` as in :func:`read_standalone`."""
    try:
        names = parse_names(_SOCKETS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return []
    questions = [functools.partial(read_standalone, name, named_pid=named_pid) for name in names]
    return [each for each in gather(questions, STEP_TIMEOUT_S * 2) if isinstance(each, Standalone)]


def read_standalone(name: str, own_uid: int | None = None, named_pid: int = 0) -> Standalone | None:
    """Return the standalone that listens under ``name``; None when that process has ended.

    ``own_uid`` is the user of this process, unless given. Every user can bind such a name and send any text. Another
    user's text is therefore read, also by root, only from the process ``named_pid``.
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
            # The backlog of the socket is full, so the process accepts no connections.
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


def fetch_report(standalone: Standalone, deadline: float) -> str:
    """Return the JSON of a report; ``deadline`` is a time of the monotonic clock.

    :raises OSError: when the report does not arrive by ``deadline``, or another process has taken the name.
    :raises ValueError: when the report is too long, or is not text.
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


def fetch_status(host: str, port: int) -> int:
    """Return the HTTP status of the API's version document.

    Why not http.client: its timeout is for each read, so a server that sends one byte at a time holds it for ever.

    :raises OSError: when no answer arrives in time.
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


def is_listening(standalone: Standalone) -> bool:
    """Return True when the same process still has its socket."""
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
    """Return the first line without its end; empty when the other side closes before the line ends.

    :raises OSError: when the line does not arrive by ``deadline``, a time of the monotonic clock.
    :raises ValueError: when the line is too long.
    """
    line = b""
    while len(line) <= MAX_LINE_BYTES:
        connection.settimeout(get_remaining_s(deadline))
        # One byte at a time: the bytes after the line belong to another reader.
        byte = connection.recv(1)
        if byte in {b"", b"\n"}:
            return line if byte else b""
        line += byte
    raise ValueError("the line does not end")


def _find_holder(name: str) -> PeerCredentials:
    """Return the process that the socket's ``name`` gives, if that process holds the socket; else process 0, user -1.

    The name alone proves nothing: it may give another user's process, and the doctor would advise to end that process.
    """
    pid = int(name.removeprefix(SOCKET_PREFIX).partition("-")[0])
    rows = filter(None, map(_ROW.fullmatch, _SOCKETS.read_text(encoding="utf-8", errors="replace").split("\n")))
    links = {f"socket:[{row['inode']}]" for row in rows if row["name"] == name}
    try:
        process = Path(f"/proc/{pid}")
        uid = re.search(r"^Uid:\t\d+\t(\d+)", (process / "status").read_text(encoding="utf-8", errors="replace"), re.M)
        if uid and any(os.readlink(each) in links for each in (process / "fd").iterdir()):
            return PeerCredentials(pid, int(uid[1]), -1)
    except OSError:
        # Another user's process, or one that has ended.
        pass
    return PeerCredentials(0, -1, -1)
