# SPDX-License-Identifier: Apache-2.0
"""How long a dial may take. The dials themselves are met on real sockets elsewhere."""

import contextlib
import socket
import threading

import pytest

from porthole_common import errors
from porthole_common.deadline import Deadline
from porthole_common.model import ConnectInfo, ConsoleType, Target
from porthole_novncproxy.admission.dialler import PER_SERVER, SHORT_S, DialBounds, Dialler

WHOLE_S = 5.0
THREADS = 32
PAUSE_S = 2.0


def hold(stack, bounds, server, host="h"):
    return stack.enter_context(bounds.dialling(server, host))


def test_few_dials_to_one_server_may_take_the_whole_time_and_the_others_a_short_one():
    bounds = DialBounds(WHOLE_S, THREADS)
    with contextlib.ExitStack() as stack:
        times = [hold(stack, bounds, "a") for _ in range(PER_SERVER + 2)]
        assert times == [WHOLE_S] * PER_SERVER + [SHORT_S] * 2
        assert hold(stack, bounds, "b") == WHOLE_S
    with bounds.dialling("a", "h") as timeout_s:
        assert timeout_s == WHOLE_S


def test_the_silent_servers_of_one_host_hold_a_part_of_the_threads():
    bounds = DialBounds(WHOLE_S, THREADS)
    with contextlib.ExitStack() as stack:
        times = [hold(stack, bounds, f"s{number}") for number in range(THREADS)]
        assert times.count(WHOLE_S) == THREADS // 4
        # A healthy server of that host is still dialled, and answers within the short time.
        assert hold(stack, bounds, "healthy") == SHORT_S
        assert hold(stack, bounds, "elsewhere", "other host") == WHOLE_S


def test_the_silent_servers_of_all_hosts_hold_half_of_the_threads():
    bounds = DialBounds(WHOLE_S, THREADS)
    with contextlib.ExitStack() as stack:
        times = [hold(stack, bounds, f"s{number}", f"h{number}") for number in range(2 * THREADS)]
        assert times.count(WHOLE_S) == THREADS // 2


def test_a_single_thread_still_has_the_whole_time():
    with DialBounds(WHOLE_S, 1).dialling("a", "h") as timeout_s:
        assert timeout_s == WHOLE_S


def test_a_timeout_below_the_short_time_stays():
    bounds = DialBounds(0.1, 1)
    with bounds.dialling("a", "h"), bounds.dialling("a", "h") as timeout_s:
        assert timeout_s == 0.1


def test_bounds_hold_no_key_of_a_dial_that_has_ended():
    bounds = DialBounds(WHOLE_S, 1)
    for number in range(3):
        with bounds.dialling(f"s{number}", "h"), bounds.dialling(f"t{number}", "h"):
            pass
    with contextlib.suppress(OSError), bounds.dialling("a", "h"):
        raise OSError
    assert not bounds._counts


def dial(dialler, target, instance="i-1"):
    info = ConnectInfo(instance, ConsoleType.NOVNC, target.host, target.port, "http://x/", "h")
    return dialler.dial(info, target, None, Deadline(), server_speaks_first=True)


@pytest.fixture
def silent():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Target(*listener.getsockname())


def test_a_silent_server_is_not_dialled_again_before_the_pause_is_over(silent):
    now = [100.0]
    dialler = Dialler(0.05, THREADS, PAUSE_S, lambda: now[0])
    with pytest.raises(errors.VncServerTimeout):
        dial(dialler, silent)
    with pytest.raises(errors.VncServerSilent) as caught:
        dial(dialler, silent)
    assert caught.value.values() == (silent.host, silent.port)
    # Another instance at the same address has a breaker of its own.
    with pytest.raises(errors.VncServerTimeout):
        dial(dialler, silent, "i-2")
    now[0] += PAUSE_S
    with pytest.raises(errors.VncServerTimeout):
        dial(dialler, silent)


def test_a_server_that_refuses_is_not_silent():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = Target(*listener.getsockname())
    dialler = Dialler(1.0, THREADS, PAUSE_S)
    for _ in range(2):
        with pytest.raises(errors.VncServerUnavailable):
            dial(dialler, closed)


def test_a_server_that_answers_is_dialled():
    """Its first byte has arrived."""

    def speak():
        with listener.accept()[0] as sock:
            sock.sendall(b"RFB 003.008\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        speaker = threading.Thread(target=speak, daemon=True)
        speaker.start()
        dial(Dialler(10.0, THREADS, PAUSE_S), Target(*listener.getsockname())).sock.close()
        speaker.join(10)
