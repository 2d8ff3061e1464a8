# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from porthole_common.allowance import (
    MAX_TRACKED,
    SITE_TIMES,
    Allowance,
    SourceAllowance,
    find_network,
    find_site,
    find_sources,
)
from support.api import FakeClock
from support.cases import naming


def test_one_source_is_an_ipv4_address_or_a_network_of_ipv6() -> None:
    same = [("192.0.2.1", "::ffff:192.0.2.1"), ("2001:db8::1", "2001:db8::ffff:1"), ("fe80::1%eth0", "fe80::2")]
    others = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1"), ("", "192.0.2.1"), ("x:", "y:")]
    for pairs, is_same in ((same, True), (others, False)):
        for one, other in pairs:
            with naming(one, other):
                assert (find_network(one) == find_network(other)) is is_same


def test_a_site_is_a_48_of_ipv6() -> None:
    for address in ("192.0.2.1", "::ffff:192.0.2.1", "", "x:"):
        with naming(address):
            assert find_site(address) == find_network(address)
            assert find_sources(address) == (find_network(address),)
    assert find_sources("2001:db8:7:1::1") == ("2001:db8:7:1::/64", "2001:db8:7::/48")
    assert find_site("2001:db8:7:1::1") == find_site("2001:db8:7:ffff::1")
    assert find_site("2001:db8:7:1::1") != find_site("2001:db8:8:1::1")


def test_the_networks_of_a_site_have_a_bound_together() -> None:
    clock = FakeClock()
    allowance: SourceAllowance[str] = SourceAllowance(clock, 3, 8.0)
    made = 0
    for number in range(1000):
        keys = find_sources(f"2001:db8:0:{number:x}::1")
        if allowance.wait_s(keys) == 0:
            allowance.add(keys, 1)
            made += 1
    assert made == 3 * SITE_TIMES
    new, other = find_sources("2001:db8:0:ffff::1"), find_sources("2001:db8:1::1")
    assert allowance.wait_s(new) == 8.0 / SITE_TIMES
    assert allowance.wait_s(other) == 0
    # One network alone has no more than before, and leaves its neighbours most of the site's.
    for _ in range(3):
        allowance.add(other, 1)
    assert allowance.wait_s(other) == 8.0
    assert allowance.wait_s(find_sources("2001:db8:1:1::1")) == 0
    clock.now_s += 8.0 / SITE_TIMES
    assert allowance.wait_s(new) == 0


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
