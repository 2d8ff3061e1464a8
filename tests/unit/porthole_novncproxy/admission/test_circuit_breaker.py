# SPDX-License-Identifier: Apache-2.0
"""A silent host is asked by one client now and then; the others are told at once."""

import pytest

from porthole_common import errors
from porthole_novncproxy.admission.circuit_breaker import Asked, CircuitBreaker, HostCircuitBreaker
from support.cases import naming

PAUSE_S = 2.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> HostCircuitBreaker:
    return HostCircuitBreaker(clock, PAUSE_S)


def ask(breaker: HostCircuitBreaker, host: str, error: Exception | None = None) -> None:
    with breaker.asking(host):
        if error is not None:
            raise error


def silence(breaker: HostCircuitBreaker, host: str) -> None:
    with pytest.raises(errors.RpcUnavailable):
        ask(breaker, host, errors.RpcUnavailable("compute", "validate_console"))


def test_a_host_that_answers_is_asked(breaker: HostCircuitBreaker) -> None:
    ask(breaker, "a")
    ask(breaker, "a")


def test_a_silent_host_is_not_asked_until_the_pause_is_over(breaker: HostCircuitBreaker, clock: Clock) -> None:
    silence(breaker, "a")
    clock.now += PAUSE_S - 0.001
    with pytest.raises(errors.HostUnavailable):
        ask(breaker, "a")
    ask(breaker, "b")
    clock.now += 0.001
    ask(breaker, "a")
    ask(breaker, "a")


def test_one_client_in_each_pause_tries_a_silent_host(breaker: HostCircuitBreaker, clock: Clock) -> None:
    silence(breaker, "a")
    clock.now += PAUSE_S
    with breaker.asking("a"):
        clock.now += PAUSE_S - 0.001
        with pytest.raises(errors.HostUnavailable):
            ask(breaker, "a")
    ask(breaker, "a")


def test_a_question_that_was_lost_does_not_hide_that_a_host_is_back(breaker: HostCircuitBreaker, clock: Clock) -> None:
    silence(breaker, "a")
    clock.now += PAUSE_S
    with breaker.asking("a"):
        clock.now += PAUSE_S
        ask(breaker, "a")
        ask(breaker, "a")


def test_a_host_that_stays_silent_stays_out(breaker: HostCircuitBreaker, clock: Clock) -> None:
    silence(breaker, "a")
    clock.now += PAUSE_S
    silence(breaker, "a")
    with pytest.raises(errors.HostUnavailable):
        ask(breaker, "a")


def test_whatever_a_host_answers_it_is_there() -> None:
    for answer in (errors.TokenInvalid("moved"), errors.HypervisorUnavailable("a")):
        with naming(answer):
            clock = Clock()
            breaker = HostCircuitBreaker(clock, PAUSE_S)
            silence(breaker, "a")
            clock.now += PAUSE_S
            with pytest.raises(type(answer)):
                ask(breaker, "a", answer)
            ask(breaker, "a")


def test_the_client_a_silent_host_refuses_does_not_make_it_answer(breaker: HostCircuitBreaker) -> None:
    silence(breaker, "a")
    for _ in range(2):
        with pytest.raises(errors.HostUnavailable):
            ask(breaker, "a")


def test_a_silence_is_one_line_in_the_log_and_its_end_another(
    breaker: HostCircuitBreaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for _ in range(3):
        silence(breaker, "a")
        for _ in range(5):
            with pytest.raises(errors.HostUnavailable):
                ask(breaker, "a")
        clock.now += PAUSE_S
    ask(breaker, "a")
    ask(breaker, "a")
    assert caplog.messages == ["Silence found compute=a", "Silence ended compute=a refused=15"]


def server(number: int) -> Asked:
    return Asked(str(number), errors.HostUnavailable("h"), "h")


def test_silences_that_nobody_looks_at_again_are_forgotten(clock: Clock) -> None:
    """Of servers that have gone; those that are asked for stay known."""
    breaker = CircuitBreaker(clock, PAUSE_S, errors.RpcUnavailable)
    for number in range(5000):
        clock.now += 1.0
        with pytest.raises(errors.RpcUnavailable), breaker.asking(server(number)):
            raise errors.RpcUnavailable("compute", "validate_console")
    assert len(breaker._silent) <= 1024
    with pytest.raises(errors.HostUnavailable), breaker.asking(server(4999)):
        pass
