# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from porthole_common.allowance import MAX_TRACKED, Allowance, find_network
from support.api import FakeClock
from support.cases import naming


def test_one_source_is_an_ipv4_address_or_a_network_of_ipv6() -> None:
    same = [("192.0.2.1", "::ffff:192.0.2.1"), ("2001:db8::1", "2001:db8::ffff:1"), ("fe80::1%eth0", "fe80::2")]
    others = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1"), ("", "192.0.2.1"), ("x:", "y:")]
    for pairs, is_same in ((same, True), (others, False)):
        for one, other in pairs:
            with naming(one, other):
                assert (find_network(one) == find_network(other)) is is_same


def test_the_memory_is_bounded() -> None:
    allowance: Allowance[int] = Allowance(FakeClock(), 1, 1.0)
    for number in range(MAX_TRACKED + 10):
        allowance.add(number, 1)
    assert len(allowance._used) == MAX_TRACKED


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=60))
def test_an_allowance_is_never_exceeded(steps: list[tuple[float, bool]]) -> None:
    clock = FakeClock()
    allowance: Allowance[bytes] = Allowance(clock, 3, 5.0)
    made: list[float] = []
    for pause_s, tries in steps:
        clock.now_s += pause_s
        if tries and allowance.wait_s(b"k") == 0:
            allowance.add(b"k", 1)
            made.append(clock.now_s)
        elif (wait_s := allowance.wait_s(b"k")) > 0:
            assert wait_s <= 5.0
    for index, start_s in enumerate(made):
        for later, at_s in enumerate(made[index:]):
            assert later + 1 <= 3 + (at_s - start_s) / 5.0 + 1e-6
