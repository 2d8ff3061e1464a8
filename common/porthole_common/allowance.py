# SPDX-License-Identifier: Apache-2.0
"""How often a client may fail or ask: a burst, and then one more each few seconds; and who counts as one client.

Why here: the api bounds wrong passwords and new consoles, and the noVNC proxy bounds tokens that are not valid, by one
rule. Pure, and not thread-safe: called by :mod:`porthole_api.login_limits`, :mod:`porthole_api.console_limit` and
:mod:`porthole_novncproxy.admission.token_failures` under their locks. :func:`find_network` and :func:`find_site` are
also for the connections of proxy and api.

An IPv6 client may have 65 536 networks of its own, a whole site. So a site has an allowance too, beside those of its
networks: wide enough for neighbours who share it.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

# It guards the memory; the entry that was not used for the longest time goes.
MAX_TRACKED = 10_000
# A host has at least this many bits of IPv6 for itself (RFC 6177).
_IPV6_PREFIX = 64
# And a customer at most this many networks (RFC 6177 section 2: a /56 is usual).
_IPV6_SITE_PREFIX = 48
# So many times the allowance of one network. At some hosters, neighbours in one /48 have a /64 each.
SITE_TIMES = 8

Key = TypeVar("Key", bound=Hashable)


class Allowance(Generic[Key]):
    """Checks that each key may make: ``burst`` at once, and one more every ``refill_s``."""

    def __init__(self, clock: Callable[[], float], burst: int, refill_s: float) -> None:
        self._clock = clock
        self._burst = burst
        self._refill_s = refill_s
        # How many checks are used up, and when that was noted.
        self._used: OrderedDict[Key, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: Key) -> float:
        """Return in how many seconds the key may make a check; 0 for now."""
        return max(0.0, (self._count_used(key) - self._burst + 1) * self._refill_s)

    def add(self, key: Key, checks: int) -> None:
        """Note ``checks`` more of the key; -1 pays one back."""
        used = self._count_used(key) + checks
        self._used.pop(key, None)
        if used > 0:
            self._used[key] = used, self._clock()
        if len(self._used) > MAX_TRACKED:
            self._used.popitem(last=False)

    def _count_used(self, key: Key) -> float:
        used, at_s = self._used.get(key, (0.0, 0.0))
        return max(0.0, used - (self._clock() - at_s) / self._refill_s)


class SourceAllowance(Generic[Key]):
    """Checks that each client may make, by its keys: of its network, and of its site if it has one."""

    def __init__(self, clock: Callable[[], float], burst: int, refill_s: float) -> None:
        self._tiers: tuple[Allowance[Key], ...] = (
            Allowance(clock, burst, refill_s),
            Allowance(clock, burst * SITE_TIMES, refill_s / SITE_TIMES),
        )

    def wait_s(self, keys: Sequence[Key]) -> float:
        """Return in how many seconds the client may make a check; 0 for now."""
        return max(tier.wait_s(key) for tier, key in zip(self._tiers, keys, strict=False))

    def add(self, keys: Sequence[Key], checks: int) -> None:
        """Note ``checks`` more of the client; -1 pays one back."""
        for tier, key in zip(self._tiers, keys, strict=False):
            tier.add(key, checks)


def find_sources(address: str) -> tuple[str, ...]:
    """Return the keys of :class:`SourceAllowance`: the network, and the site of an IPv6 address."""
    network, site = find_network(address), find_site(address)
    return (network,) if site == network else (network, site)


def find_network(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 address."""
    return _find(address, _IPV6_PREFIX)


def find_site(address: str) -> str:
    """Return what counts as one in a crowd: an IPv4 address, or the /48 of an IPv6 address."""
    return _find(address, _IPV6_SITE_PREFIX)


def _find(address: str, prefix: int) -> str:
    if ":" not in address:
        # IPv4; a UNIX socket has no address.
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, prefix), strict=False))
