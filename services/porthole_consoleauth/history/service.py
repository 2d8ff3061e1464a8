# SPDX-License-Identifier: Apache-2.0
"""The history inside consoleauth: its parts, joined, and the thread that deletes what is old.

Called by :mod:`porthole_consoleauth.main`. Nothing here is waited for when consoleauth starts: a database that is away
costs the history its answers, and no console.
"""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from oslo_config import cfg

from porthole_common import errors
from porthole_common.audit import build_notifier
from porthole_common.history.event import HistoryEvent
from porthole_common.history.reporter import Reporter
from porthole_common.history.spool import build_spool
from porthole_common.log import get_logger
from porthole_common.rpc import Rpc
from porthole_consoleauth.history.database import Database, build_url
from porthole_consoleauth.history.endpoint import HistoryEndpoint
from porthole_consoleauth.history.presence import Presence, build_watch
from porthole_consoleauth.history.store import HistoryStore

LOG = get_logger(__name__)
# Rows that are deleted in one transaction, and the pause behind it: others write meanwhile.
PURGE_BATCH = 500
_PURGE_PAUSE_S = 1.0
_PURGE_INTERVAL_S = 600.0


class HistoryService:
    """Stores what this consoleauth and the proxies report."""

    def __init__(self, conf: cfg.ConfigOpts, rpc: Rpc, process: str) -> None:
        """``process`` is this process's id in discovery.

        :raises ConfigInvalid: when ``[database] connection`` or the transport of the notifications is wrong.
        """
        self._retention = timedelta(days=conf.history.retention_days)
        self._notifier = build_notifier(conf)
        self.store = HistoryStore(Database(build_url(conf)))
        self.endpoint = HistoryEndpoint(self.store, self.record)
        self._reporter = Reporter(build_spool(conf, "consoleauth"), self.record)
        presence = Presence(self.store, conf.host, process, self._announce)
        self._watch = build_watch(rpc, presence, f"{conf.host}-history", conf.history.proxy_timeout)
        self._stopping = threading.Event()
        self._purger = threading.Thread(target=self._purge, name="history-purge", daemon=True)

    def report(self, event: HistoryEvent) -> None:
        """Have an event of this process stored; returns at once."""
        self._reporter.report(event)

    def record(self, events: Sequence[HistoryEvent]) -> None:
        """Store the events that are not stored yet, log each, and tell other systems.

        :raises HistoryUnavailable: when they are not stored.
        """
        self._announce(self.store.record(events))

    def describe(self) -> tuple[str, str, float]:
        """Return the state of the history, why it is not in order, and how full the spool is."""
        return *self.store.describe(), self._reporter.fill

    def start(self) -> None:
        """Begin; returns at once."""
        if self._notifier:
            self._notifier.start()
        self._reporter.start()
        self._watch.start()
        self._purger.start()

    def stop(self) -> None:
        """Stop; what is not stored stays in the spool."""
        self._stopping.set()
        self._watch.stop()
        self._reporter.stop()
        self.store.close()
        if self._notifier:
            self._notifier.stop()

    def _announce(self, events: Sequence[HistoryEvent]) -> None:
        for event in events:
            LOG.info(
                "History event stored",
                kind=event.kind,
                at=event.at,
                session=event.session_id,
                instance=event.instance_uuid,
                console_type=event.console_type,
                issued_to_user=event.user_id,
                issued_to_project=event.project_id,
                client=event.client,
                compute=event.compute_host,
                by=event.by,
                code=event.code,
                reason=event.reason,
            )
            if self._notifier:
                self._notifier.notify(event)

    def _purge(self) -> None:
        while not self._stopping.wait(_PURGE_PAUSE_S if self._purge_batch() else _PURGE_INTERVAL_S):
            continue

    def _purge_batch(self) -> int:
        """Delete a batch of what is old; return how many rows that were."""
        try:
            count = self.store.purge(datetime.now(UTC) - self._retention, PURGE_BATCH)
        except errors.PortholeError as exc:
            LOG.debug("History not purged", reason=exc)
            return 0
        if count:
            LOG.info("History purged", rows=count)
        return count
