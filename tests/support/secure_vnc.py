# SPDX-License-Identifier: Apache-2.0
"""VNC servers that speak VeNCrypt, well-behaved and hostile, run in threads of the test.

Why not QEMU alone: a test says here at which byte a server falls silent, hangs up, lies or dribbles.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_novncproxy.admission.vencrypt import Security, build_security
from support.certificates import Certificate
from support.rfb_talks import OK, X509_NONE, types, vencrypt
from support.vnc_servers import GREETING, VncServer, send_in_segments

# What is said before TLS, in turns: each but the last waits for so many bytes of the viewer.
_TURNS = ((GREETING, 12), (types(19), 1), (b"\0\2", 2), (vencrypt(X509_NONE)[2:-1], 4), (b"\1", 0))
PLAIN_TURNS = len(_TURNS)
Serve = Callable[[ssl.SSLSocket], None]


def build_context(certificate: Certificate) -> ssl.SSLContext:
    """Return a server's TLS context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    return context


def security_of(*schemes: str, **options: object) -> Security | None:
    """Return what the proxy makes of ``[vnc] auth_schemes`` and the options ``vencrypt_<name>``."""
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf([], project="porthole", default_config_files=[])
    conf.set_override("auth_schemes", list(schemes), group="vnc")
    for name, value in options.items():
        conf.set_override(f"vencrypt_{name}", str(value) if isinstance(value, Path) else value, group="vnc")
    return build_security(conf)


class VencryptVnc(VncServer):
    """Encrypts, says that all is well, and returns whatever it gets.

    ``behave``, if given, is called with the TLS socket instead, before a byte is said inside. ``dribbles``: a byte in a
    segment, and inside TLS in a record.
    """

    def __init__(self, context: ssl.SSLContext, behave: Serve | None = None, dribbles: bool = False) -> None:
        self._context = context
        self._behave = behave or self.echo
        self._dribbles = dribbles
        # How TLS came to stand, or did not.
        self.tls_versions: list[str | None] = []
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Go through VeNCrypt as its server, and on to ``behave``."""
        sock.settimeout(20)
        talk_plainly(sock, PLAIN_TURNS, self._dribbles)
        with self._under_tls(sock) as tls:
            self._behave(tls)

    def echo(self, sock: ssl.SSLSocket) -> None:
        """Say OK, and echo to the end."""
        self._say(sock, OK)
        while data := sock.recv(65536):
            self._say(sock, data)

    def _say(self, sock: ssl.SSLSocket, data: bytes) -> None:
        if not self._dribbles:
            sock.sendall(data)
            return
        for number in range(len(data)):
            sock.sendall(data[number : number + 1])

    @contextlib.contextmanager
    def _under_tls(self, sock: socket.socket) -> Iterator[ssl.SSLSocket]:
        with self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as tls:
            with self._lock:
                self._open.add(tls)
            try:
                tls.do_handshake()
                self.tls_versions.append(tls.version())
                yield tls
            finally:
                with self._lock:
                    self._open.discard(tls)


class PlainVnc(VncServer):
    """Says ``words`` whatever it hears, and waits for the peer's end; with ``ends`` it goes at once."""

    def __init__(self, words: bytes, ends: bool = False) -> None:
        self._words = words
        self._ends = ends
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Speak."""
        sock.sendall(self._words)
        while not self._ends and sock.recv(65536):
            continue


class UnfinishedVnc(VncServer):
    """Keeps to VeNCrypt for so many ``turns`` before TLS, and then falls silent, or ends, or says ``words``."""

    def __init__(self, turns: int, words: bytes = b"", ends: bool = False) -> None:
        self._turns = turns
        self._words = words
        self._ends = ends
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Begin well."""
        sock.settimeout(20)
        talk_plainly(sock, self._turns)
        if self._words:
            sock.sendall(self._words)
        while not self._ends and sock.recv(65536):
            continue


def talk_plainly(sock: socket.socket, turns: int, dribbles: bool = False) -> None:
    """Say the first ``turns`` of VeNCrypt with X509None, and hear the answers, but to the last."""
    for number, (words, answer_bytes) in enumerate(_TURNS[:turns]):
        segments = [words[at : at + 1] for at in range(len(words))] if dribbles else [words]
        send_in_segments(sock, segments)
        wanted = answer_bytes if number < turns - 1 else 0
        while wanted:
            data = sock.recv(wanted)
            if not data:
                raise ConnectionError("the viewer ended the connection")
            wanted -= len(data)
