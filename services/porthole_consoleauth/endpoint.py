# SPDX-License-Identifier: Apache-2.0
"""The RPC methods of consoleauth; :mod:`porthole_consoleauth.rpcapi` is the client.

Why: they turn RPC arguments into typed values once, call the store, and log one line for each event: which user may
open which console, and never the token. Called by oslo.messaging's threads.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from porthole_common import errors, metrics
from porthole_common.context import RequestContext
from porthole_common.diagnosis import StoreDescription, Vitals
from porthole_common.history.event import EventKind, HistoryEvent, build_event
from porthole_common.log import get_logger
from porthole_common.model import ConnectInfo, ConsoleMode, ConsoleType, RevocationReason
from porthole_common.notifications import Revocation
from porthole_common.rpc import RpcTarget, expected_exceptions
from porthole_consoleauth.history.switched_off import NoHistory
from porthole_consoleauth.rpcapi import VERSION
from porthole_consoleauth.token_store import StoredConsole, TokenStore, strip_secrets

LOG = get_logger(__name__)
# More than anybody shares an address with; a token without a limit has no number.
MAX_USES = 1000
_NO_HISTORY = NoHistory()
# At 0 from the start, so that an alert sees the first one.
for _type in ConsoleType:
    metrics.TOKENS_AUTHORIZED.labels(_type)
for _reason in RevocationReason:
    metrics.TOKENS_REVOKED.labels(_reason)
for _outcome in ("accepted", "refused"):
    metrics.TOKEN_CHECKS.labels(_outcome)
for _method in ("authorize_console", "check_token", "spend_token", "delete_tokens_for_instance"):
    metrics.STORE_FAILURES.labels(_method)


class Publisher(Protocol):
    """What the endpoint needs of :class:`porthole_common.notifications.RevocationPublisher`."""

    def publish(self, context: RequestContext, revocation: Revocation) -> None:
        """Send it to every proxy; raise RpcUnavailable when there is no broker."""


class History(Protocol):
    """What the endpoint needs of :class:`porthole_consoleauth.history.service.HistoryService`."""

    def report(self, event: HistoryEvent) -> None:
        """Have the event stored; return at once."""

    def describe(self) -> tuple[str, str, float]:
        """Return the last three fields of ``StoreDescription``."""


@contextlib.contextmanager
def _counting_failures(method: str) -> Iterator[None]:
    try:
        yield
    except errors.TokenStoreUnavailable:
        metrics.STORE_FAILURES.labels(method).inc()
        raise


def _now() -> datetime:
    return datetime.now(UTC)


class ConsoleAuthEndpoint:
    """The methods of topic ``consoleauth``; ``ttl_s`` is the life of a token in seconds.

    ``vitals`` returns the vitals of this process.
    """

    target = RpcTarget(version=VERSION)

    def __init__(
        self,
        store: TokenStore,
        publisher: Publisher,
        ttl_s: int,
        vitals: Callable[[], Vitals],
        clock: Callable[[], datetime] = _now,
        uses: int = 0,
        history: History = _NO_HISTORY,
    ) -> None:
        """Prepare; ``uses``: how many sessions a token may open unless its user says so, 0 for any number."""
        self._history = history
        self._store = store
        self._publisher = publisher
        self._ttl_s = ttl_s
        self._uses = uses
        self._vitals = vitals
        self._clock = clock

    @expected_exceptions(errors.PortholeError)
    def authorize_console(
        self,
        context: RequestContext,
        token: str,
        console_type: str,
        host: str,
        port: int,
        internal_access_path: str | None,
        instance_uuid: str,
        access_url: str,
        compute_host: str,
        run: str | None = None,
        owner: dict[str, Any] | None = None,
        mode: str = ConsoleMode.CONTROL,
        uses: int | None = None,
        ttl_s: int | None = None,
    ) -> dict[str, Any]:
        """Store the console under its token; return ``{expires_at: ISO 8601 with offset, uses: int or None}``.

        The token may expire up to a second before ``expires_at``, since memcached counts whole seconds. ``uses``: how
        many sessions it may open, 0 for any number, None for ``[consoleauth] token_uses``. ``ttl_s``: its life, which
        may not be longer than ``[consoleauth] token_ttl``, the default.

        :raises TokenInvalid: when the token is not a canonical UUID.
        :raises RequestInvalid: when another argument does not parse.
        :raises TokenStoreUnavailable: when it is not certain that the store has the token.
        """
        life_s = self._ttl_s if ttl_s is None else _check_count("the life of a URL in seconds", ttl_s, 1, self._ttl_s)
        uses_left = (self._uses if uses is None else _check_count("uses", uses, 0, MAX_USES)) or None
        expires_at = self._clock() + timedelta(seconds=life_s)
        connect_info = _parse(
            {
                "console_type": console_type,
                "host": host,
                "port": port,
                "internal_access_path": internal_access_path,
                "instance_uuid": instance_uuid,
                "access_url": access_url,
                "compute_host": compute_host,
                "run": run,
                "owner": owner,
                "mode": mode,
                "uses": uses_left,
            }
        )
        console = StoredConsole(
            strip_secrets(replace(connect_info, expires_at=expires_at)), context.user_id, context.project_id
        )
        with _counting_failures("authorize_console"):
            self._store.authorize(token, console, life_s)
        metrics.TOKENS_AUTHORIZED.labels(connect_info.console_type).inc()
        LOG.info(
            "Console token authorized",
            instance=instance_uuid,
            console_type=console_type,
            compute=compute_host,
            expires_at=expires_at,
            mode=connect_info.mode,
            uses=uses_left,
        )
        self._history.report(
            build_event(
                EventKind.TOKEN_CREATED,
                instance_uuid=instance_uuid,
                console_type=str(console_type),
                compute_host=compute_host,
                user_id=context.user_id,
                project_id=context.project_id,
                mode=str(connect_info.mode),
                request_id=context.request_id,
            )
        )
        return {"expires_at": expires_at.isoformat(), "uses": uses_left}

    @expected_exceptions(errors.PortholeError)
    def spend_token(self, context: RequestContext, token: str) -> None:
        """Take one of the token's uses, if they are limited.

        :raises TokenInvalid: when it is malformed, unknown, expired, revoked, or has no use left.
        :raises TokenStoreUnavailable: when it is not certain that the use was taken.
        """
        try:
            with _counting_failures("spend_token"):
                self._store.spend(token)
        except errors.TokenInvalid as exc:
            LOG.info("Console token refused", reason=exc.reason)
            raise

    @expected_exceptions(errors.PortholeError)
    def check_token(self, context: RequestContext, token: str) -> dict[str, Any]:
        """Return connect_info without the token, with ``expires_at``, and with the user and project of the token.

        ``remaining_s``: how many seconds the token has left. The store's clock counts them, since another consoleauth's
        clock may have written ``expires_at``.

        :raises TokenInvalid: when it is malformed, unknown, expired or revoked.
        :raises TokenStoreUnavailable: when the store does not answer.
        """
        try:
            with _counting_failures("check_token"):
                console = self._store.check(token)
        except errors.TokenInvalid as exc:
            metrics.TOKEN_CHECKS.labels("refused").inc()
            LOG.info("Console token refused", reason=exc.reason)
            raise
        metrics.TOKEN_CHECKS.labels("accepted").inc()
        info = console.connect_info
        LOG.info(
            "Console token accepted",
            instance=info.instance_uuid,
            console_type=info.console_type,
            compute=info.compute_host,
            issued_to_user=console.user_id,
            issued_to_project=console.project_id,
        )
        answer = replace(
            info, user_id=console.user_id, project_id=console.project_id, remaining_s=self._find_remaining_s(console)
        )
        return answer.to_primitive()

    @expected_exceptions(errors.PortholeError)
    def delete_tokens_for_instance(
        self,
        context: RequestContext,
        instance_uuid: str,
        compute_host: str | None = None,
        reason: str = RevocationReason.ENDED,
    ) -> int:
        """Revoke the tokens of the instance, then publish the revocation to the proxies; return the number of tokens.

        With ``compute_host`` only the tokens for that host are revoked: a host that an instance has left may call late,
        when the instance has consoles on its next host.

        The caller repeats a call that fails. So a revocation that could not be published is an error, although the
        tokens are revoked: their sessions may still run, and the repeated call publishes again. When the store does
        not answer, the revocation is published all the same, so that no session stays open.

        :raises RequestInvalid: when ``instance_uuid`` is not a canonical UUID.
        :raises TokenStoreUnavailable: when the store did not confirm it.
        :raises RpcUnavailable: when the tokens are revoked, but no broker took the revocation.
        """
        revocation = Revocation.from_primitive(instance_uuid, compute_host, reason)
        try:
            with _counting_failures("delete_tokens_for_instance"):
                count = self._store.revoke_instance(instance_uuid, compute_host)
        except errors.TokenStoreUnavailable:
            self._publish(context, revocation)
            raise
        metrics.TOKENS_REVOKED.labels(revocation.reason).inc(count)
        LOG.info(
            "Console tokens revoked",
            instance=instance_uuid,
            tokens=count,
            compute=compute_host,
            reason=revocation.reason,
        )
        self._publish(context, revocation)
        return count

    @expected_exceptions(errors.PortholeError)
    def describe_store(self, context: RequestContext) -> dict[str, Any]:
        """Return what ``StoreDescription.to_primitive`` writes: this process, and which servers of its store answer."""
        servers = self._store.probe()
        rooms = self._store.measure([name for name, refusal in servers.items() if not refusal])
        return StoreDescription(self._vitals(), servers, self._ttl_s, rooms, *self._history.describe()).to_primitive()

    def _find_remaining_s(self, console: StoredConsole) -> float | None:
        """Return the store's word, or what this host's clock says; no token lives longer than a new one."""
        if console.remaining_s is not None:
            return console.remaining_s
        if console.connect_info.expires_at is None:
            return None
        return min(max(0.0, (console.connect_info.expires_at - self._clock()).total_seconds()), self._ttl_s)

    def _publish(self, context: RequestContext, revocation: Revocation) -> None:
        try:
            self._publisher.publish(context, revocation)
        except errors.RpcUnavailable:
            LOG.error("Revocation not published; its open consoles stay open", instance=revocation.instance_uuid)
            raise


def _check_count(name: str, value: object, least: int, most: int) -> int:
    """Return ``value`` if it is a number within the bounds.

    :raises RequestInvalid: when it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise errors.RequestInvalid(f"{name} is not a number from {least} to {most}")
    return value


def _parse(value: dict[str, Any]) -> ConnectInfo:
    try:
        return ConnectInfo.from_primitive(value)
    except (ValueError, TypeError) as exc:
        raise errors.RequestInvalid(f"connect_info does not parse: {exc}") from None
