# SPDX-License-Identifier: Apache-2.0
"""One log line for a broker that cannot be used, with address, user, cause and remedy, and one when it works again.

Why: each thread of oslo.messaging tries a connection every few seconds. It writes a line or a traceback each time, and
most of them name neither the broker nor the cause. So these lines are filtered out of the log. Each of them, and each
error of a call or a server, makes :class:`BrokerWatch` examine the brokers step by step (:mod:`porthole_common.broker`)
until all of them are usable.

A RabbitMQ with a memory or disk alarm tells only the connections that send. So a process that serves sends a message
every :data:`PROBE_S` seconds, and an idle daemon learns of the alarm too. Made by :mod:`porthole_common.rpc`, one for
each process.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from porthole_common.broker import BlockedConnections, Broker, Trouble, examine_broker
from porthole_common.log import get_logger

LOG = get_logger(__name__)
# How often a broker in trouble is examined. Its recovery is logged after this time at the latest.
LOOK_S = 3.0
# How often a lasting trouble is logged again: often enough to be on the last page of the log.
REPEAT_S = 300.0
# How often a daemon sends a message of its own, to find out whether its broker takes messages.
PROBE_S = 20.0
# The shortest time between two lines about failures for which the examination finds no cause.
PASSING_REPEAT_S = 30.0
# oslo.log names the loggers of oslo_x "oslo.x". The second one writes the tracebacks of threads that never stop trying.
_LOGGERS = ("oslo.messaging._drivers.impl_rabbit", "oslo_utils.excutils")
# The lines of oslo.messaging and oslo.utils about a connection that cannot be made or was lost.
_LINES = (
    "Connection failed: ",
    "AMQP server on ",
    "Failed to consume message from queue: ",
    "Failed to declare consumer for topic ",
    "Failed to publish message to topic ",
    "Unexpected error during heartbeat thread processing",
    "Unexpected exception occurred ",
    "The broker has blocked the connection: ",
)


@dataclass(frozen=True)
class _Said:
    """The last line about a broker, and the monotonic second at which it was logged."""

    text: str
    at_s: float


class BrokerWatch:
    """Logs the troubles of the brokers of this process. Thread-safe; without brokers it does nothing."""

    def __init__(
        self,
        brokers: Sequence[Broker],
        kinds: tuple[type[BaseException], ...] = (),
        examine: Callable[[Broker], Trouble | None] | None = None,
        look_s: float = LOOK_S,
        repeat_s: float = REPEAT_S,
        probe: Callable[[], None] | None = None,
        probe_s: float = PROBE_S,
    ) -> None:
        """Prepare, and filter oslo.messaging's own lines out of the log until :meth:`close`.

        ``kinds``: the errors of a connection; a line with the trace of another error stays in the log. ``examine``
        returns why a broker cannot be used; a test may replace examine_broker. It is called every ``look_s`` seconds
        while a broker cannot be used. ``probe`` sends a message. It is called every ``probe_s`` seconds after
        :meth:`begin_probing`, while no broker is known to be in trouble.
        """
        self._brokers = brokers
        self._blocked = BlockedConnections()
        self._examine = examine or (lambda broker: examine_broker(broker, {}, self._blocked).trouble)
        self._look_s = look_s
        self._repeat_s = repeat_s
        self._probe = probe
        self._probe_s = probe_s
        self._is_probing = False
        self._changed = threading.Condition()
        self._reason = ""
        self._is_watching = False
        self._is_closed = False
        self._recoveries = 0
        self._said: dict[Broker | None, _Said] = {}
        self._filter = _ConnectionLines(self.report, kinds)
        if brokers:
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(self._filter)

    @property
    def recoveries(self) -> int:
        """How many times a broker in trouble was found to be usable again."""
        with self._changed:
            return self._recoveries

    def count_unusable(self) -> int:
        """Return how many brokers are known to be unusable."""
        return sum(broker is not None for broker in list(self._said))

    def report(self, reason: object) -> None:
        """Report a failed connection, with ``reason`` in words; returns at once."""
        with self._changed:
            if not self._brokers or self._is_closed:
                return
            self._reason = str(reason) or type(reason).__name__
            if not self._is_watching:
                self._is_watching = True
                threading.Thread(target=self._run, name="broker-watch", daemon=True).start()

    def begin_probing(self) -> None:
        """Probe at once, and again until :meth:`close`; a second call changes nothing."""
        with self._changed:
            if not self._brokers or self._probe is None or self._is_probing or self._is_closed:
                return
            self._is_probing = True
        # A thread for the probe alone: a send may wait for as long as the broker is silent.
        threading.Thread(target=self._keep_probing, args=(self._probe,), name="broker-probe", daemon=True).start()

    def wait_for_recovery(self, recoveries: int, timeout_s: float) -> bool:
        """Return at the next recovery after the first ``recoveries``, or after ``timeout_s``; True when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._recoveries > recoveries, timeout_s)
            return self._is_closed

    def close(self) -> None:
        """Stop examining; returns at once, although an examination may be waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._filter)

    def _keep_probing(self, probe: Callable[[], None]) -> None:
        while True:
            with self._changed:
                is_due = not self._is_watching and not self._is_closed
            try:
                if is_due:
                    probe()
            except Exception:
                # This thread must live on: an idle daemon has no other way to notice an alarm.
                if not self._is_closed:
                    LOG.exception("Message brokers not examined")
            with self._changed:
                if self._changed.wait_for(lambda: self._is_closed, self._probe_s):
                    return

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            self._blocked.close()

    def _watch(self) -> None:
        while True:
            with self._changed:
                reason, self._reason = self._reason, ""
            try:
                is_usable = self._look(reason)
            except Exception:
                # This thread must live on: no other one reports a broker in trouble.
                LOG.exception("Message brokers not examined")
                is_usable = False
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed, self._look_s)
                if self._is_closed or (is_usable and not self._reason):
                    self._is_watching = False
                    return

    def _look(self, reason: str) -> bool:
        """Examine each broker and log what is new; return whether all are usable."""
        had_trouble = any(broker is not None for broker in self._said)
        troubles = {broker: self._examine(broker) for broker in self._brokers}
        with self._changed:
            if self._is_closed:
                return True
        for broker, trouble in troubles.items():
            if trouble is not None:
                self._tell(broker, trouble)
            elif self._said.pop(broker, None):
                LOG.info("Message broker usable again", address=broker)
                with self._changed:
                    self._recoveries += 1
                    self._changed.notify_all()
        is_usable = not any(troubles.values())
        if is_usable and not had_trouble and reason and self._is_due(None, "", PASSING_REPEAT_S):
            # A short outage, or a fault that the examination cannot see; in that case the line is repeated.
            addresses = ",".join(map(str, self._brokers))
            LOG.warning("Connection to a message broker failed", address=addresses, reason=reason)
        return is_usable

    def _tell(self, broker: Broker, trouble: Trouble) -> None:
        if self._is_due(broker, trouble.problem, self._repeat_s):
            LOG.error(
                "Message broker unusable",
                address=broker,
                login=broker.user,
                error=trouble.cause,
                reason=trouble.problem,
                mend=trouble.mend,
            )

    def _is_due(self, broker: Broker | None, text: str, repeat_s: float) -> bool:
        """Return True, and note ``text`` as logged, when it is new or was logged long ago."""
        said, now_s = self._said.get(broker), time.monotonic()
        if said is not None and said.text == text and now_s - said.at_s < repeat_s:
            return False
        self._said[broker] = _Said(text, now_s)
        return True


class _ConnectionLines(logging.Filter):
    """Filters the lines of failed connections out of the log, and reports each."""

    def __init__(self, report: Callable[[object], None], kinds: tuple[type[BaseException], ...]) -> None:
        super().__init__()
        self._report = report
        self._kinds = kinds

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for such a line."""
        if record.levelno < logging.WARNING:
            return True
        text = record.getMessage()
        if not any(line in text for line in _LINES):
            return True
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, self._kinds):
            return True
        self._report(error or text)
        return False
