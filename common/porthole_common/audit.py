# SPDX-License-Identifier: Apache-2.0
"""The events of the history as oslo.messaging notifications, for the systems that collect those of OpenStack.

Why a thread: sending blocks while the broker is away. The events that wait are bounded; each is sent once at
most, since the history itself is the record. Off unless ``[oslo_messaging_notifications] driver`` is set. Called by
consoleauth for each event that is new.
"""

import queue
import threading

from oslo_config import cfg

from porthole_common import errors
from porthole_common.cadf import build_event_type, build_payload
from porthole_common.context import build_daemon_context
from porthole_common.history.event import HistoryEvent
from porthole_common.log import get_logger
from porthole_common.messaging import BROKER_ERRORS, oslo_messaging, oslo_messaging_opts

LOG = get_logger(__name__)
_GROUP = "oslo_messaging_notifications"
_MAX_WAITING = 10_000
_STOP_S = 2.0
_PUBLISHER = "console"


class AuditNotifier:
    """Sends each event as a notification of priority ``info``."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._host = conf.host
        transport = oslo_messaging.get_notification_transport(conf)
        # One retry: the default tries for ever, and the events behind would be lost.
        self._notifier = oslo_messaging.Notifier(transport, f"{_PUBLISHER}.{conf.host}", retry=1)
        self._waiting: queue.Queue[HistoryEvent | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="history-notifier", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def notify(self, event: HistoryEvent) -> None:
        """Have the event sent; returns at once."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            LOG.error("Notification not sent; too many wait", kind=event.kind, session=event.session_id)

    def stop(self) -> None:
        """Send what waits, for a moment."""
        if not self._thread.is_alive():
            return
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                context = build_daemon_context()
                self._notifier.info(context, build_event_type(event), build_payload(event, self._host))
            except BROKER_ERRORS as exc:
                LOG.error("Notification not sent", kind=event.kind, session=event.session_id, error=type(exc).__name__)


def build_notifier(conf: cfg.ConfigOpts) -> AuditNotifier | None:
    """Return the notifier, or None when no driver is set.

    :raises ConfigInvalid: when the transport of the notifications is wrong.
    """
    conf.register_opts(dict(oslo_messaging_opts.list_opts())[_GROUP], group=_GROUP)
    if not conf[_GROUP].driver:
        return None
    try:
        return AuditNotifier(conf)
    except (oslo_messaging.DriverLoadFailure, oslo_messaging.InvalidTransportURL, ValueError, ImportError) as exc:
        # The text of the error may have the URL with its password.
        raise errors.ConfigInvalid(f"[{_GROUP}] transport_url", f"it is not usable ({type(exc).__name__})") from None
