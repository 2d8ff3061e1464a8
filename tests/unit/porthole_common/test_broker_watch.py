# SPDX-License-Identifier: Apache-2.0
"""What the log says of a broker in trouble: once, with its address, and again when that is over."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from porthole_common.broker import Broker, Cause, Trouble
from porthole_common.broker_watch import BrokerWatch
from support.processes import wait_until

FIRST = Broker("192.0.2.10", 5672, "porthole", "secret-password", "/", {"ca": "/ca", "cert": None, "key": None})
SECOND = Broker("192.0.2.11", 5672, "porthole", "secret-password", "/", None)
REFUSED = Trouble(Cause.CREDENTIALS, "The password is wrong.", "Correct it.")
RABBIT = logging.getLogger("oslo.messaging._drivers.impl_rabbit")
RETRYING = logging.getLogger("oslo_utils.excutils")
TIMEOUT_S = 10


class Brokers:
    """Stands at the examination: what is wrong with each broker now, and how often anybody looked."""

    def __init__(self) -> None:
        self.troubles: dict[Broker, Trouble] = {}
        self.faults: list[Exception] = []
        self.looks = 0

    def examine(self, broker: Broker) -> Trouble | None:
        self.looks += 1
        if self.faults:
            raise self.faults.pop()
        return self.troubles.get(broker)

    def wait_for_looks(self, count: int) -> None:
        wanted = self.looks + count
        wait_until(lambda: self.looks >= wanted, TIMEOUT_S, f"{count} looks")


@contextmanager
def watching(brokers: Brokers, *watched: Broker, repeat_s: float = 60) -> Iterator[BrokerWatch]:
    watch = BrokerWatch(watched, (OSError,), brokers.examine, look_s=0.01, repeat_s=repeat_s)
    try:
        yield watch
    finally:
        watch.close()


def test_a_broker_in_trouble_is_named_once_and_so_is_its_recovery(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    brokers = Brokers()
    brokers.troubles[FIRST] = REFUSED
    with watching(brokers, FIRST, SECOND) as watch:
        for _ in range(3):
            watch.report(OSError("Connection refused"))
            brokers.wait_for_looks(4)
        (line,) = caplog.messages
        assert line == (
            "Message broker unusable address=192.0.2.10:5672 login=porthole error=credentials"
            ' reason="The password is wrong." mend="Correct it."'
        )
        brokers.troubles.clear()
        wait_until(lambda: len(caplog.messages) == 2, TIMEOUT_S, "the recovery")
        assert caplog.messages[1] == "Message broker usable again address=192.0.2.10:5672"
    assert "secret-password" not in caplog.text


def test_another_trouble_is_said_and_a_lasting_one_repeated(caplog: pytest.LogCaptureFixture) -> None:
    brokers = Brokers()
    brokers.troubles[FIRST] = REFUSED
    with watching(brokers, FIRST) as watch:
        watch.report("x")
        wait_until(lambda: len(caplog.messages) == 1, TIMEOUT_S, "the first")
        brokers.troubles[FIRST] = Trouble(Cause.VHOST, "The virtual host is missing.", "Add it.")
        wait_until(lambda: len(caplog.messages) == 2, TIMEOUT_S, "the other")
    caplog.clear()
    with watching(brokers, FIRST, repeat_s=0.05) as watch:
        watch.report("x")
        wait_until(lambda: len(caplog.messages) == 3, TIMEOUT_S, "its repetition")


def test_a_failure_whose_broker_is_usable_is_said_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    brokers = Brokers()
    with watching(brokers, FIRST, SECOND) as watch:
        watch.report(OSError("queue.declare: inequivalent arg"))
        brokers.wait_for_looks(2)
        watch.report(OSError("and again"))
        brokers.wait_for_looks(2)
        wait_until(lambda: not any(thread.name == "broker-watch" for thread in threading.enumerate()), TIMEOUT_S, "end")
    (line,) = caplog.messages
    assert line == (
        "Connection to a message broker failed address=192.0.2.10:5672,192.0.2.11:5672"
        ' reason="queue.declare: inequivalent arg"'
    )


def test_the_lines_of_oslo_messaging_are_taken_out_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    """And no other line: an error that nobody foresaw keeps its trace."""
    caplog.set_level(logging.INFO)

    def retry(error: Exception) -> Callable[[], None]:
        def log() -> None:
            try:
                raise error
            except (OSError, ValueError):
                RETRYING.exception("Unexpected exception occurred %d time(s)... retrying.", 1)

        return log

    lines: list[Callable[[], None]] = [
        lambda: RABBIT.error("Connection failed: %s (retrying in %s seconds)", "refused", 1.0),
        lambda: RABBIT.error("[%s] AMQP server on %s:%s is unreachable: refused. Trying again", "id", "h", 5672),
        lambda: RABBIT.error("Unable to connect to AMQP server on h:5672 after inf tries: refused"),
        lambda: RABBIT.error("Failed to publish message to topic 'x': refused"),
        lambda: RABBIT.warning("Unexpected error during heartbeat thread processing, retrying..."),
        lambda: RABBIT.error("The broker has blocked the connection: %s", "connection blocked, see broker logs"),
        retry(ConnectionRefusedError(111, "Connection refused")),
    ]
    for log in lines:
        brokers = Brokers()
        brokers.troubles[FIRST] = REFUSED
        with watching(brokers, FIRST):
            log()
            brokers.wait_for_looks(1)
            wait_until(lambda: caplog.messages, TIMEOUT_S, "the line")
        assert [message.split(" address")[0] for message in caplog.messages] == ["Message broker unusable"]
        caplog.clear()
    with watching(Brokers(), FIRST):
        RABBIT.info("Reconnected to AMQP server on h:5672")
        RABBIT.error("Something that nobody foresaw")
        retry(ValueError("a fault"))()
    assert [message.split()[0] for message in caplog.messages] == ["Reconnected", "Something", "Unexpected"]
    caplog.clear()
    RABBIT.error("Connection failed: of a process that watches no broker")
    assert len(caplog.messages) == 1


def test_who_waits_is_woken_by_a_recovery_and_by_the_end() -> None:
    brokers = Brokers()
    brokers.troubles[FIRST] = REFUSED
    with watching(brokers, FIRST) as watch:
        watch.report("x")
        brokers.wait_for_looks(2)
        assert watch.wait_for_recovery(watch.recoveries, 0.01) is False
        before = watch.recoveries
        threading.Timer(0.05, brokers.troubles.clear).start()
        assert watch.wait_for_recovery(before, TIMEOUT_S) is False
        assert watch.recoveries == before + 1
        threading.Timer(0.05, watch.close).start()
        assert watch.wait_for_recovery(before + 1, TIMEOUT_S) is True


def test_a_fault_of_the_examination_is_logged_and_not_its_end(caplog: pytest.LogCaptureFixture) -> None:
    brokers = Brokers()
    brokers.faults.append(ValueError("a fault"))
    brokers.troubles[FIRST] = REFUSED
    with watching(brokers, FIRST) as watch:
        watch.report("x")
        wait_until(lambda: len(caplog.messages) == 2, TIMEOUT_S, "both lines")
    assert [message.split(" address")[0] for message in caplog.messages] == [
        "Message brokers not examined",
        "Message broker unusable",
    ]


def test_a_daemon_probes_unless_its_broker_is_known_to_be_in_trouble() -> None:
    brokers, probes = Brokers(), 0

    def probe() -> None:
        nonlocal probes
        probes += 1
        if probes == 1:
            raise ValueError("a fault, which does not end the probing")
        if probes == 3:
            brokers.troubles[FIRST] = REFUSED
            watch.report("no message is taken")

    watch = BrokerWatch([FIRST], (OSError,), brokers.examine, look_s=0.01, probe=probe, probe_s=0.01)
    try:
        watch.begin_probing()
        watch.begin_probing()
        wait_until(lambda: probes == 3, TIMEOUT_S, "three probes")
        brokers.wait_for_looks(5)
        assert probes == 3
        brokers.troubles.clear()
        wait_until(lambda: probes > 3, TIMEOUT_S, "the next probe")
        assert sum(thread.name == "broker-probe" for thread in threading.enumerate()) == 1
    finally:
        watch.close()
    wait_until(lambda: not any(thread.name == "broker-probe" for thread in threading.enumerate()), TIMEOUT_S, "end")
