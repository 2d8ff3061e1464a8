# SPDX-License-Identifier: Apache-2.0
"""Letting a client in: the rules of :mod:`~porthole_novncproxy.admission.access`, three RPC calls, limits, the dial.

Why in one place: a browser and a native viewer get the same checks in the same order, and nothing is dialled before the
last check has passed (S1, S4). Once the connection stands, the compute is asked again: between its answer and the dial
the guest may have gone, and another one taken the port. All of it happens before the client is answered 101 or 200.
Called by :mod:`porthole_novncproxy.front.handler` and :mod:`porthole_novncproxy.front.connect`.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from porthole_common import errors, metrics
from porthole_common.context import RequestContext, get_current
from porthole_common.deadline import Deadline
from porthole_common.log import get_logger
from porthole_common.model import ConnectInfo, Target, TokenReason
from porthole_common.open_session import clean_user_agent
from porthole_common.rfb.negotiation import Offer
from porthole_novncproxy.admission import access
from porthole_novncproxy.admission.circuit_breaker import HostCircuitBreaker
from porthole_novncproxy.admission.descriptors import check_left
from porthole_novncproxy.admission.dialler import Dialler
from porthole_novncproxy.admission.host_questions import HostQuestions
from porthole_novncproxy.admission.limits import Limits, SessionCounter
from porthole_novncproxy.admission.token_failures import TokenFailures
from porthole_novncproxy.admission.vencrypt import Security
from porthole_novncproxy.doors import Door

LOG = get_logger(__name__)
# The circuit breakers log a silence and its end: a line for each client in between would say nothing new.
_TOLD_ONCE = (errors.HostUnavailable, errors.VncServerSilent)
_CHECK, _VALIDATE, _DIAL = map(metrics.OPENING_STAGE_SECONDS.labels, ("check", "validate", "dial"))


class TokenChecker(Protocol):
    """The part of :class:`porthole_consoleauth.rpcapi.ConsoleAuthAPI` that is used here."""

    def check_token(self, context: RequestContext, token: str, *, deadline: Deadline) -> ConnectInfo: ...  # noqa: D102

    def spend_token(self, context: RequestContext, token: str, *, deadline: Deadline) -> None: ...  # noqa: D102


# Context, error, status, door, and the client's address.
RefusalObserver = Callable[[RequestContext, errors.PortholeError, HTTPStatus, Door, str], None]


@dataclass
class Admission:
    """A client that may come in: the connection to its VNC server, and what to release when the console ends.

    ``source`` is the client's address. ``admitted_at``: when the token was checked, on the monotonic clock; a later
    revocation ends the console. ``request_id`` stands in each log line of the console. ``offer``: the security to offer
    to the viewer; None where viewer and VNC server settle it between themselves. ``user_agent``: the client's program.
    ``ended_by``: the user who has ended the console, if somebody has.
    """

    connect_info: ConnectInfo
    sock: socket.socket
    first_bytes: bytes
    source: str
    admitted_at: float
    request_id: str
    release: Callable[[], None]
    offer: Offer | None = None
    user_agent: str | None = None
    ended_by: str | None = None

    def close(self) -> None:
        """Hang up on the VNC server, and uncount the console."""
        self.sock.close()
        self.release()


class Gate:
    """Decides on console requests. Thread-safe; one per process."""

    def __init__(
        self,
        *,
        consoleauth: TokenChecker,
        questions: HostQuestions,
        counter: SessionCounter,
        circuit_breaker: HostCircuitBreaker,
        origins: access.OriginPolicy,
        token_failures: TokenFailures,
        dialler: Dialler,
        security: Security | None = None,
        on_refused: RefusalObserver | None = None,
    ) -> None:
        """``on_refused`` is told of each refusal that is logged; it returns at once."""
        self._on_refused = on_refused
        self._consoleauth = consoleauth
        self._questions = questions
        self._counter = counter
        self._circuit_breaker = circuit_breaker
        self._origins = origins
        self._token_failures = token_failures
        self._dialler = dialler
        self._security = security

    def set_policy(self, limits: Limits, origins: access.OriginPolicy, security: Security | None) -> None:
        """Decide by other limits, origins and certificates from the next request on; open consoles stay open."""
        self._counter.limits = limits
        self._origins = origins
        self._security = security

    def find_source(self, source: str, forwarded_for: Sequence[str]) -> str:
        """Return the address of the client itself (:func:`porthole_novncproxy.admission.access.find_source`)."""
        return access.find_source(source, forwarded_for, self._origins.trusted_proxies)

    def is_trusted_proxy(self, address: str) -> bool:
        """Whether many clients come from ``address``, a peer's: it is one of ``[console] trusted_proxies``."""
        return address in self._origins.trusted_proxies

    def log_refusal(self, exc: errors.PortholeError, door: Door, source: str) -> HTTPStatus:
        """Log a refusal, tell the observer, and return its status; see :func:`log_refusal`."""
        status = log_refusal(exc, door, source)
        if self._on_refused is not None:
            self._on_refused(get_current(), exc, status, door, source)
        return status

    def admit(self, request: access.ConsoleRequest, deadline: Deadline, is_trial: bool = False) -> Admission:
        """Return the open VNC server for ``request``. Each step that may block sets its own limit in ``deadline``.

        ``is_trial``: no console is opened with it, so that it takes none of the token's uses.

        :raises TokenInvalid: when the token is missing, unknown, spent or for another door, or when its instance has
            moved.
        :raises TokensRefused: when too many tokens of the source were not valid.
        :raises OriginRefused: when the page belongs to another site.
        :raises RequestInvalid: when the Host is missing or malformed.
        :raises LimitReached: when too many consoles are open.
        :raises Unavailable: when a daemon, the store or the VNC server does not answer, or its security is wrong.
        :raises ProtocolError: when the VNC server breaks its protocol.
        """
        admitted_at = time.monotonic()
        context = get_current()
        origins = self._origins
        access.check_origin(request, origins.allowed_origins)
        source = access.find_source(request.source, request.forwarded_for, origins.trusted_proxies)
        token, info = self._check_token(context, request, source, deadline)
        if info.console_type not in request.door.console_types:
            raise errors.TokenInvalid(TokenReason.CONSOLE_TYPE)
        # The log lines that follow, the compute's too, name the instance and its user.
        context.resource_uuid = info.instance_uuid
        context.user_id, context.project_id = info.user_id, info.project_id
        access.check_origin_scheme(request, info.access_url, origins.trusted_proxies)
        release = self._counter.reserve(source, token, info.instance_uuid, info.user_id)
        try:
            target = self._validate(context, info, deadline)
            with _DIAL.time():
                server = self._dialler.dial(
                    info,
                    target,
                    self._security if request.door.server_speaks_rfb else None,
                    deadline,
                    server_speaks_first=request.door.server_speaks_first,
                )
            with contextlib.ExitStack() as dialled:
                dialled.callback(server.sock.close)
                check_left(server.sock.fileno())
                self._confirm(context, info, target, deadline)
                if info.uses is not None and not is_trial:
                    # Last, so that a VNC server that does not answer costs no use.
                    self._consoleauth.spend_token(context, token, deadline=deadline)
                dialled.pop_all()
        except BaseException:
            release()
            raise
        return Admission(
            connect_info=info,
            sock=server.sock,
            first_bytes=server.first_bytes,
            source=source,
            admitted_at=admitted_at,
            request_id=context.request_id,
            release=release,
            offer=server.offer,
            user_agent=clean_user_agent(request.user_agent),
        )

    def check_source(self, source: str, token: str | None) -> None:
        """Refuse a client whose tokens were not valid too often, before a thread is taken; ``source``: its address.

        :raises TokensRefused: when it must wait.
        """
        self._token_failures.check(source, token)

    def _check_token(
        self, context: RequestContext, request: access.ConsoleRequest, source: str, deadline: Deadline
    ) -> tuple[str, ConnectInfo]:
        """Return the token, and what consoleauth knows of it."""
        # Once more: while the request waited for its thread, others of the same source have failed.
        self._token_failures.check(source, request.token)
        try:
            token = access.check_token_syntax(request.token)
            LOG.info("Console requested", console_type=request.door.type_names, client=source)
            with _CHECK.time():
                info = self._consoleauth.check_token(context, token, deadline=deadline)
        except errors.TokenInvalid:
            # A request without a token costs nothing, and a health check may look so.
            if request.token:
                self._token_failures.note_failure(source, request.token)
            raise
        self._token_failures.note_valid(token)
        return token, info

    def _confirm(self, context: RequestContext, info: ConnectInfo, target: Target, deadline: Deadline) -> None:
        """Ask once more, now that the connection stands: between the first question and the dial, guests may change.

        :raises TokenInvalid: when the connection may lead to another guest.
        """
        if self._validate(context, info, deadline) != target:
            raise errors.TokenInvalid(TokenReason.INSTANCE_GONE)

    def _validate(self, context: RequestContext, info: ConnectInfo, deadline: Deadline) -> Target:
        """Ask the hypervisor's host again, at the moment of use, where the VNC server is (S1, S2)."""
        try:
            with _VALIDATE.time(), self._circuit_breaker.asking(info.compute_host):
                return self._questions.ask(context, info, deadline)
        except (errors.NotFound, errors.Conflict) as exc:
            raise errors.TokenInvalid(TokenReason.INSTANCE_GONE) from exc


def log_refusal(exc: errors.PortholeError, door: Door, source: str) -> HTTPStatus:
    """Log and count a refusal, and return its status.

    A refusal that an operator can prevent is a warning, unless it repeats one.

    The text of an error holds nothing that the client sent.
    """
    status, _reason = access.refusal_for(exc)
    count_refusal(exc, status, door)
    is_ours = status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    level = logging.DEBUG if isinstance(exc, _TOLD_ONCE) else logging.WARNING if is_ours else logging.INFO
    LOG.log(
        level,
        "Console refused",
        instance=get_current().resource_uuid,
        console_type=door.type_names,
        client=source,
        status=status,
        error=type(exc).__name__,
        reason=exc,
    )
    return status


def count_refusal(exc: errors.PortholeError, status: HTTPStatus, door: Door) -> None:
    """Count a refusal that :func:`log_refusal` does not see."""
    metrics.OPENINGS.labels(door.name, "refused").inc()
    metrics.REFUSALS.labels(door.name, access.name_refusal(exc), str(int(status))).inc()
