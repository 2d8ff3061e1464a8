# SPDX-License-Identifier: Apache-2.0
"""Revokes the tokens of instances whose consoles are over, and does not forget one while the store is down.

Why: a token that outlives its instance may open the next tenant's screen (CVE-2013-0335), and a session that is
open ends only when somebody says so. The driver's events come in here; consoleauth does the revoking.
Made by :mod:`porthole_compute.main`.
"""

import logging
import threading
from typing import Protocol

from porthole_common import errors
from porthole_common.context import RequestContext, build_daemon_context

LOG = logging.getLogger(__name__)
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
# Instances that may wait for a store that is down. The oldest are dropped beyond that: their tokens expire by
# themselves, and are refused at use all along.
MAX_PENDING = 100_000


class TokenDeleter(Protocol):
    """Who revokes: :class:`porthole_consoleauth.rpcapi.ConsoleAuthAPI`."""

    def delete_tokens_for_instance(self, context: RequestContext, instance_uuid: str) -> int:
        """Revoke every token of the instance and return how many there were.

        :raises Unavailable: when it is not known to have happened.
        """


class Revoker:
    """A thread and the set of instances it still has to revoke."""

    def __init__(
        self,
        deleter: TokenDeleter,
        first_retry_s: float = FIRST_RETRY_S,
        last_retry_s: float = LAST_RETRY_S,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._deleter = deleter
        self._first_retry_s = first_retry_s
        self._last_retry_s = last_retry_s
        self._max_pending = max_pending
        # A dict for its order: whoever fails goes to the end, and holds nobody up.
        self._pending: dict[str, None] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revocation", daemon=True)

    def start(self) -> None:
        """Begin to revoke."""
        self._thread.start()

    def revoke(self, instance_uuid: str) -> None:
        """Have every token of the instance revoked soon; returns at once."""
        with self._lock:
            self._pending[instance_uuid] = None
            if len(self._pending) > self._max_pending:
                dropped = next(iter(self._pending))
                del self._pending[dropped]
                LOG.error("too many revocations wait: the tokens of instance %s are left to expire", dropped)
        self._wanted.set()

    def stop(self, timeout_s: float) -> None:
        """Try once more what is pending, for up to ``timeout_s``, and end."""
        self._stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        with self._lock:
            if self._pending:
                LOG.warning("%d instances keep their tokens until these expire", len(self._pending))

    def revoke_pending(self) -> bool:
        """Revoke what is pending, from the calling thread, until one fails; return whether none did."""
        while (instance_uuid := self._take()) is not None:
            try:
                count = self._deleter.delete_tokens_for_instance(build_daemon_context(), instance_uuid)
            except errors.PortholeError as exc:
                LOG.debug("instance %s: %s", instance_uuid, exc)
                self._put_back(instance_uuid)
                return False
            except Exception:
                LOG.exception("the tokens of instance %s could not be revoked", instance_uuid)
                self._put_back(instance_uuid)
                return False
            LOG.info("instance %s: %d tokens revoked", instance_uuid, count)
        return True

    def _take(self) -> str | None:
        with self._lock:
            instance_uuid = next(iter(self._pending), None)
            if instance_uuid is not None:
                del self._pending[instance_uuid]
            return instance_uuid

    def _put_back(self, instance_uuid: str) -> None:
        with self._lock:
            self._pending[instance_uuid] = None

    def _run(self) -> None:
        retry_s = self._first_retry_s
        while True:
            self._wanted.clear()
            # Asked after the clear: stop() sets this one first.
            stopping = self._stopping.is_set()
            if self.revoke_pending():
                if retry_s != self._first_retry_s:
                    LOG.info("revocations go through again")
                retry_s = self._first_retry_s
                if stopping:
                    return
                self._wanted.wait()
                continue
            if stopping:
                return
            if retry_s == self._first_retry_s:
                LOG.warning("revocations do not go through; trying again until they do")
            self._stopping.wait(retry_s)
            retry_s = min(retry_s * 2, self._last_retry_s)
