# SPDX-License-Identifier: Apache-2.0
from porthole_relay.frames import CloseCode
from porthole_relay.liveness import EndSession, Liveness, LivenessPolicy, SendPing
from support.cases import naming

T0 = 1000.0


def code_of(due):
    return due.code if isinstance(due, EndSession) else due


def test_with_everything_off_nothing_is_ever_due():
    clock = Liveness(LivenessPolicy(), T0, None)
    assert clock.due_in_s(T0) is None
    assert clock.check(T0 + 1e9) is None


def test_pings_are_due_one_interval_apart_as_long_as_they_are_answered():
    """So that no middlebox takes the console for dead (O8)."""
    clock = Liveness(LivenessPolicy(ping_interval_s=30), T0, None)
    for round_number in range(1, 5):
        now = T0 + 30 * round_number
        assert clock.due_in_s(now - 10) == 10
        assert clock.check(now - 0.1) is None
        assert clock.check(now) == SendPing()
        clock.heard(now + 1)


def test_a_client_that_answers_no_ping_is_given_up_after_one_more_interval():
    clock = Liveness(LivenessPolicy(ping_interval_s=30), T0, None)
    assert clock.check(T0 + 30) == SendPing()
    assert clock.check(T0 + 59) is None
    assert code_of(clock.check(T0 + 60)) is CloseCode.INTERNAL_ERROR


def test_only_rfb_bytes_put_off_the_idle_limit():
    """Those of both directions (O8)."""
    for sign in ("heard", "moved"):
        with naming(sign):
            clock = Liveness(LivenessPolicy(idle_timeout_s=60), T0, None)
            getattr(clock, sign)(T0 + 50)
            due = clock.check(T0 + 60)
            assert (due is None) if sign == "moved" else (code_of(due) is CloseCode.IDLE)


def test_the_idle_limit_counts_from_the_last_byte():
    clock = Liveness(LivenessPolicy(idle_timeout_s=60), T0, None)
    clock.moved(T0 + 50)
    assert clock.due_in_s(T0 + 50) == 60
    assert code_of(clock.check(T0 + 110)) is CloseCode.IDLE


def test_a_session_ends_at_the_first_of_its_limits_whatever_it_does():
    for limit_s, expires_at, ends_at in (
        (100, None, T0 + 100),
        (0, T0 + 70, T0 + 70),
        (100, T0 + 70, T0 + 70),
        (50, T0 + 70, T0 + 50),
        (0, T0 - 5, T0),
    ):
        with naming(limit_s, expires_at, ends_at):
            clock = Liveness(LivenessPolicy(max_session_time_s=limit_s), T0, expires_at)
            assert clock.due_in_s(T0) == ends_at - T0
            clock.heard(ends_at)
            clock.moved(ends_at)
            if ends_at > T0:
                assert clock.check(ends_at - 0.1) is None
            assert code_of(clock.check(ends_at)) is CloseCode.SESSION_LIMIT


def test_what_is_due_first_is_waited_for():
    clock = Liveness(LivenessPolicy(ping_interval_s=30, idle_timeout_s=20, max_session_time_s=10), T0, None)
    assert clock.due_in_s(T0) == 10
    assert clock.due_in_s(T0 + 15) == 0
