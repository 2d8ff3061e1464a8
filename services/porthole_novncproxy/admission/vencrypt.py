# SPDX-License-Identifier: Apache-2.0
"""Securing the connection to a VNC server: RFB's security handshake on a socket, TLS, the check of its certificate.

Why before 101, in the request's thread: a fault of the server's security gets a status and a reason, by the deadline of
the dial. The handshake with the viewer comes later: it may wait until a user has typed a password, so it is a state of
the session (:mod:`porthole_relay.session`) and holds no thread.
Called by :mod:`porthole_novncproxy.admission.dial`; the one place that maps SSLError of the VNC leg.
"""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from oslo_config import cfg

from porthole_common import errors
from porthole_common.deadline import get_remaining_s
from porthole_common.log import get_logger
from porthole_common.model import Target
from porthole_common.rfb.handshake import HandshakeDriver, Peer, StartTls, Write
from porthole_common.rfb.negotiation import VENCRYPT, Offer, Policy, negotiate
from porthole_relay.tls import Setting, check_readable, load_certificate
from porthole_relay.tls_socket import TlsSocket

LOG = get_logger(__name__)
Result = TypeVar("Result")
# Servers without a certificate know no TLS 1.3, and OpenSSL speaks to them on its lowest level alone.
_ANONYMOUS_CIPHERS = "ADH+AESGCM:ADH+AES:AECDH+AES:@SECLEVEL=0"


@dataclass(frozen=True)
class Security:
    """The security that VNC servers must offer, and its TLS: with their certificate checked, and without one."""

    policy: Policy
    verified: ssl.SSLContext
    anonymous: ssl.SSLContext


@dataclass(frozen=True)
class Secured:
    """A VNC server whose security was accepted. ``rest``: bytes that it sent behind the handshake."""

    sock: socket.socket
    offer: Offer
    rest: bytes


def build_security(conf: cfg.ConfigOpts) -> Security | None:
    """Return the security that ``[vnc]`` asks for, or None when the stream is opaque.

    :raises ConfigInvalid: when a file cannot be read or does not fit, or there is no scheme.
    """
    options = conf.vnc
    if not options.auth_schemes:
        raise errors.ConfigInvalid("[vnc] auth_schemes", "it is empty; write none for no security")
    if VENCRYPT not in options.auth_schemes:
        return None
    if not options.vencrypt_ca_certs:
        raise errors.ConfigInvalid("[vnc] vencrypt_ca_certs", "the scheme vencrypt needs it")
    if options.vencrypt_client_key and not options.vencrypt_client_cert:
        raise errors.ConfigInvalid("[vnc] vencrypt_client_key", "it needs [vnc] vencrypt_client_cert")
    verified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # A common name is not an address (RFC 9525 section 2).
    verified.hostname_checks_common_name = False
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE
    anonymous.maximum_version = ssl.TLSVersion.TLSv1_2
    anonymous.set_ciphers(_ANONYMOUS_CIPHERS)
    for context in (verified, anonymous):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # In a renegotiation a read may have to write first, and a write to read, which the relay does not provide for.
        context.options |= ssl.OP_NO_RENEGOTIATION
    _load_authorities(verified, options.vencrypt_ca_certs)
    if options.vencrypt_client_cert:
        load_certificate(
            verified,
            Setting("[vnc] vencrypt_client_cert", options.vencrypt_client_cert),
            Setting("[vnc] vencrypt_client_key", options.vencrypt_client_key),
        )
    return Security(Policy(tuple(options.auth_schemes), options.vencrypt_allow_anonymous), verified, anonymous)


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    option = "[vnc] vencrypt_ca_certs"
    check_readable(Setting(option, path))
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as exc:
        raise errors.ConfigInvalid(option, f"{path}: no PEM certificates") from exc


def secure(sock: socket.socket, first_bytes: bytes, target: Target, security: Security, due_at: float) -> Secured:
    """Go through the security handshake with the VNC server on ``sock``, by ``due_at`` (monotonic seconds).

    ``sock`` is the result's from here on, or closed. ``first_bytes``: what was read from it already.

    :raises RfbInvalid: when the server breaks the protocol.
    :raises VncSecurityUnsuitable: when it offers nothing that is allowed, or is not who it should be.
    :raises OSError: when the connection breaks, or the deadline passes (TimeoutError).
    """
    server = str(target)
    line = _Line(sock, target.host, security, due_at)
    try:
        return _run_handshake(line, server, first_bytes, security.policy)
    except ssl.SSLCertVerificationError as exc:
        line.sock.close()
        reason = f"its certificate is not accepted ({exc.verify_message.rstrip('.')})"
        raise errors.VncSecurityUnsuitable(server, reason) from exc
    except TimeoutError:
        line.sock.close()
        raise
    except OSError as exc:
        line.sock.close()
        if not isinstance(exc, ssl.SSLError) and not line.is_tls:
            raise
        # The alert with the cause may be lost, and in TLS 1.3 it arrives after the handshake.
        reason = getattr(exc, "reason", None) or "it ended the connection"
        raise errors.VncSecurityUnsuitable(
            server, f"TLS failed ({reason}); the server may require a client certificate that it knows"
        ) from exc
    except BaseException:
        line.sock.close()
        raise


def _run_handshake(line: "_Line", server: str, first_bytes: bytes, policy: Policy) -> Secured:
    driver = HandshakeDriver(negotiate(server, policy))
    steps = driver.start() + driver.feed(Peer.SERVER, first_bytes)
    while True:
        for step in steps:
            if isinstance(step, Write):
                line.write(step.data)
            elif isinstance(step, StartTls):
                line.start_tls(step.anonymous)
        if driver.result is not None:
            _log(server, line.sock)
            return Secured(line.sock, driver.result, driver.take_rest(Peer.SERVER))
        # Not a byte more than the handshake needs: the rest belongs to the relay, and before TLS to OpenSSL.
        steps = driver.feed(Peer.SERVER, line.read(driver.missing_bytes(Peer.SERVER)))


def _log(server: str, sock: socket.socket) -> None:
    if isinstance(sock, TlsSocket):
        LOG.info("VNC server secured", server=server, tls=sock.version(), certificate=bool(sock.get_certificate()))
    else:
        LOG.warning("VNC server taken without TLS", server=server, option="[vnc] auth_schemes")


def name_to_check(host: str) -> str:
    """Return the name that the certificate must have: the host that was dialled (S15), not one that DNS gave for it.

    Without the interface of a link-local address, and without the dot behind a full name: certificates have neither.
    """
    return host.partition("%")[0].removesuffix(".")


class _Line:
    """The socket, on which TLS may begin, and one deadline for all that is done with it."""

    def __init__(self, sock: socket.socket, host: str, security: Security, due_at: float) -> None:
        self.sock = sock
        self._host = host
        self._security = security
        self._due_at = due_at

    @property
    def is_tls(self) -> bool:
        return isinstance(self.sock, TlsSocket)

    def read(self, size: int) -> bytes:
        """Return 1 to ``size`` bytes.

        :raises OSError: when there are none.
        """
        data = self._repeat(lambda: self.sock.recv(size))
        if not data:
            raise ConnectionError("the VNC server ended the connection")
        return data

    def write(self, data: bytes) -> None:
        self._set_timeout()
        self.sock.sendall(data)

    def start_tls(self, anonymous: bool) -> None:
        context = self._security.anonymous if anonymous else self._security.verified
        name = name_to_check(self._host)
        wrapped = TlsSocket(self.sock, context, server_hostname=name)
        self.sock = wrapped
        self._repeat(wrapped.do_handshake)

    def _repeat(self, call: Callable[[], Result]) -> Result:
        """Return what ``call`` returns in the end: over TLS it returns after each piece of a record."""
        while True:
            self._set_timeout()
            try:
                return call()
            except ssl.SSLWantReadError:
                continue

    def _set_timeout(self) -> None:
        self.sock.settimeout(get_remaining_s(self._due_at))
