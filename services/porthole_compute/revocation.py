# SPDX-License-Identifier: Apache-2.0
"""Revokes the tokens of instances that have stopped or moved, and keeps each revocation while the store is down.

Why: a token that outlives its instance may open the next tenant's screen (CVE-2013-0335), and an open session ends only
by a revocation. The driver's events arrive here, and consoleauth revokes the tokens. Made by
:mod:`porthole_compute.main`.
"""

import threading
import time
from typing import Protocol

from porthole_common import errors, metrics
from porthole_common.context import RequestContext, build_daemon_context
from porthole_common.log import get_logger
from porthole_common.model import RevocationReason

LOG = get_logger(__name__)
FIRST_RETRY_S = 0.5
# The last revocation is done this long after the store is back: about the time after which a user asks again.
LAST_RETRY_S = 5.0
# How many revocations may wait for a store that is down. Beyond that the oldest are dropped: their tokens are refused
# at use, and expire.
MAX_PENDING = 100_000


class TokenDeleter(Protocol):
    """The client of consoleauth: :class:`porthole_consoleauth.rpcapi.ConsoleAuthAPI`."""

    def delete_tokens_for_instance(
        self, context: RequestContext, instance_uuid: str, compute_host: str | None, reason: RevocationReason
    ) -> int:
        """Revoke the instance's tokens for ``compute_host``; return their number.

        :raises Unavailable: when it is not certain that they are revoked.
        """


class Revoker:
    """A thread, and the revocations that are to be done: the new ones, and those that failed.

    A new one never waits for those that failed: only one memcached of several may be down.
    """

    def __init__(
        self,
        host: str,
        deleter: TokenDeleter,
        first_retry_s: float = FIRST_RETRY_S,
        last_retry_s: float = LAST_RETRY_S,
        max_pending: int = MAX_PENDING,
    ) -> None:
        """Prepare; ``host`` is the compute host whose consoles are over."""
        self._host = host
        self._deleter = deleter
        self._first_retry_s = first_retry_s
        self._last_retry_s = last_retry_s
        self._max_pending = max_pending
        # Dictionaries keep the order: a revocation that fails again goes to the end, and delays no other.
        self._new: dict[str, RevocationReason] = {}
        self._failed: dict[str, RevocationReason] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revocation", daemon=True)

    def start(self) -> None:
        """Begin to revoke."""
        metrics.REVOCATIONS_PENDING.add_source(self._read_pending)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def revoke(self, instance_uuid: str, reason: RevocationReason) -> None:
        """Have the instance's tokens for this host revoked soon; returns at once."""
        with self._lock:
            self._failed.pop(instance_uuid, None)
            self._new[instance_uuid] = reason
            if len(self._new) + len(self._failed) > self._max_pending:
                waiting = self._failed or self._new
                dropped = next(iter(waiting))
                del waiting[dropped]
                LOG.error("Revocation dropped, since too many wait; the tokens will expire", instance=dropped)
        self._wanted.set()

    def stop(self, timeout_s: float) -> None:
        """Try the pending revocations once more, for up to ``timeout_s``, and end."""
        metrics.REVOCATIONS_PENDING.remove_source(self._read_pending)
        self._stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        with self._lock:
            if left := len(self._new) + len(self._failed):
                LOG.warning("Revocations abandoned at the end; the tokens will expire", instances=left)

    def revoke_pending(self, retry: bool = True) -> bool:
        """Do the new revocations in the calling thread, and with ``retry`` those that failed, until one fails again.

        Return whether none is left.
        """
        with self._lock:
            again = list(self._failed) if retry else []
        while (waiting := self._take(self._new)) is not None:
            self._revoke_one(*waiting)
        for instance_uuid in again:
            with self._lock:
                reason = self._failed.pop(instance_uuid, None)
            if reason is not None and not self._revoke_one(instance_uuid, reason):
                break
        return not self._failed

    def _read_pending(self) -> metrics.Samples:
        return [((), len(self._new) + len(self._failed))]

    def _revoke_one(self, instance_uuid: str, reason: RevocationReason) -> bool:
        context = build_daemon_context()
        try:
            count = self._deleter.delete_tokens_for_instance(context, instance_uuid, self._host, reason)
        except errors.PortholeError as exc:
            LOG.debug("Revocation not done; trying again", context=context, instance=instance_uuid, reason=exc)
        except Exception:
            LOG.exception("Revocation failed", context=context, instance=instance_uuid)
        else:
            LOG.info("Revocation done", context=context, instance=instance_uuid, tokens=count, reason=reason)
            return True
        with self._lock:
            # An instance that has ended again meanwhile is among the new ones already.
            if instance_uuid not in self._new:
                self._failed[instance_uuid] = reason
        return False

    def _take(self, waiting: dict[str, RevocationReason]) -> tuple[str, RevocationReason] | None:
        with self._lock:
            instance_uuid = next(iter(waiting), None)
            return None if instance_uuid is None else (instance_uuid, waiting.pop(instance_uuid))

    def _run(self) -> None:
        retry_s, retry_at_s = self._first_retry_s, 0.0
        while True:
            self._wanted.clear()
            # Read after the clear, since stop() sets this event first.
            stopping = self._stopping.is_set()
            is_due = stopping or time.monotonic() >= retry_at_s
            if self.revoke_pending(retry=is_due):
                if retry_s != self._first_retry_s:
                    LOG.info("Revocations working again")
                retry_s = self._first_retry_s
            elif is_due:
                if retry_s == self._first_retry_s:
                    LOG.warning("Revocations failing; trying again")
                retry_at_s = time.monotonic() + retry_s
                retry_s = min(retry_s * 2, self._last_retry_s)
            if stopping:
                return
            self._wanted.wait(max(0.0, retry_at_s - time.monotonic()) if self._failed else None)
