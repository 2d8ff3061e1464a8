# SPDX-License-Identifier: Apache-2.0

import functools
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType, Target
from porthole_compute.drivers import VncServer
from porthole_compute.validation import ConsoleValidator, IssuedConsole
from support.cases import naming
from support.compute_fakes import FakeDriver
from support.deadlines import call_within
from support.processes import wait_until

PATIENCE_S = 30
THREADS = 4
TARGET = Target("192.0.2.1", 5900)


def build_uuid(number: int) -> str:
    return f"c0ffee00-0000-4000-8000-{number:012d}"


def make_issued(*numbers: int) -> list[IssuedConsole]:
    return [IssuedConsole(build_uuid(number), TARGET.host, TARGET.port, "novnc") for number in numbers]


class HoldingDriver(FakeDriver):
    """Has no answer about the instances ``held`` until ``released``, and counts what goes on at once."""

    def __init__(self) -> None:
        super().__init__()
        self.held: set[str] = set()
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.under_way: list[str] = []
        self.most = 0

    def get_vnc_server(self, instance_uuid: str, console_type: ConsoleType) -> VncServer:
        with self.lock:
            assert instance_uuid not in self.under_way, "two questions about one instance"
            self.under_way.append(instance_uuid)
            self.most = max(self.most, len(self.under_way))
        try:
            if instance_uuid in self.held:
                assert self.released.wait(PATIENCE_S)
            return super().get_vnc_server(instance_uuid, console_type)
        finally:
            with self.lock:
                self.under_way.remove(instance_uuid)


@pytest.fixture
def driver() -> Iterator[HoldingDriver]:
    driver = HoldingDriver()
    yield driver
    driver.released.set()


def test_a_held_guest_has_its_own_answer_and_costs_no_other(driver: HoldingDriver) -> None:
    driver.held = {build_uuid(0)}
    validator = ConsoleValidator(driver, "node1", THREADS, batch_timeout_s=0.5)
    issued = make_issued(0, *range(1, 100), 0)
    answers = call_within(PATIENCE_S, lambda: validator.validate_all(issued), "the batch")
    assert answers[1:-1] == [TARGET] * 99
    for answer in (answers[0], answers[-1]):
        assert isinstance(answer, errors.HypervisorUnavailable)
        assert answer.host == "node1"
    # The next batch has it, once libvirt lets go.
    driver.released.set()
    wait_until(lambda: not driver.under_way, PATIENCE_S, "the end of the question")
    assert validator.validate_all(make_issued(0)) == [TARGET]


def test_more_held_guests_than_threads_take_a_batchs_time_and_begin_nothing_later(driver: HoldingDriver) -> None:
    driver.held = {build_uuid(number) for number in range(THREADS)}
    validator = ConsoleValidator(driver, "node1", THREADS, batch_timeout_s=0.2)
    begun_at = time.monotonic()
    answers = call_within(PATIENCE_S, lambda: validator.validate_all(make_issued(*range(10))), "the batch")
    assert 0.2 <= time.monotonic() - begun_at < PATIENCE_S / 2
    assert {type(answer) for answer in answers} == {errors.HypervisorUnavailable}
    driver.released.set()
    wait_until(lambda: not driver.under_way, PATIENCE_S, "the end of the questions")
    assert validator.validate_all(make_issued(20)) == [TARGET]
    # Of the first batch, only the questions that had begun were asked.
    assert {uuid for uuid, _ in driver.asked} == {*driver.held, build_uuid(20)}


def test_a_caller_may_have_less_patience_than_a_batch_and_not_more(driver: HoldingDriver) -> None:
    driver.held = {build_uuid(0)}
    for own_s, asked_s in ((PATIENCE_S, 0.1), (0.1, PATIENCE_S), (0.1, -1.0)):
        with naming(own_s, asked_s):
            validator = ConsoleValidator(driver, "node1", THREADS, batch_timeout_s=own_s)
            ask = functools.partial(validator.validate_all, make_issued(0), asked_s)
            answers = call_within(PATIENCE_S / 2, ask, "the batch")
            assert isinstance(answers[0], errors.HypervisorUnavailable)


def test_guests_are_asked_about_side_by_side_within_a_bound(driver: HoldingDriver) -> None:
    driver.held = {build_uuid(number) for number in range(10)}
    validator = ConsoleValidator(driver, "node1", THREADS, batch_timeout_s=PATIENCE_S)
    batches = [
        threading.Thread(target=validator.validate_all, args=(make_issued(*range(first, first + 5)),), daemon=True)
        for first in (0, 5)
    ]
    for batch in batches:
        batch.start()
    wait_until(lambda: driver.most == THREADS, PATIENCE_S, "questions side by side")
    driver.released.set()
    for batch in batches:
        batch.join(PATIENCE_S)
        assert not batch.is_alive()
    assert (driver.most, len(driver.asked)) == (THREADS, 10)


def test_a_fault_about_one_guest_stays_with_it(driver: HoldingDriver, caplog: pytest.LogCaptureFixture) -> None:
    driver.targets[build_uuid(1)] = ZeroDivisionError()  # type: ignore[assignment]
    answers = ConsoleValidator(driver, "node1").validate_all(make_issued(0, 1, 2))
    assert (answers[0], answers[2]) == (TARGET, TARGET)
    assert isinstance(answers[1], errors.HypervisorUnavailable)
    assert [record.exc_info is not None for record in caplog.records if record.levelno >= logging.ERROR] == [True]


def test_values_that_are_malformed_are_not_valid(driver: HoldingDriver) -> None:
    for issued in [
        IssuedConsole("x", "192.0.2.1", 5900, "novnc"),
        IssuedConsole(build_uuid(0), "192.0.2.1", "x", "novnc"),
        IssuedConsole(build_uuid(0), "192.0.2.1", [], "novnc"),  # type: ignore[arg-type]
        IssuedConsole(build_uuid(0), "192.0.2.1", 5900, "rdp"),
    ]:
        with naming(issued):
            [answer] = ConsoleValidator(driver, "node1").validate_all([issued])
            assert isinstance(answer, errors.TokenInvalid)


def test_a_guest_that_migrates_has_its_open_consoles_until_it_has_moved(driver: HoldingDriver) -> None:
    """No console may begin there."""
    driver.target = errors.InstanceNotReady(build_uuid(0), "migrating")
    validator = ConsoleValidator(driver, "node1")
    [issued] = make_issued(0)
    [answer] = validator.validate_all([issued])
    assert isinstance(answer, errors.InstanceNotReady)
    with pytest.raises(errors.TokenInvalid):
        validator.validate(issued)
