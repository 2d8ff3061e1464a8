# SPDX-License-Identifier: Apache-2.0
"""How often a client may fail, or ask: some times at once, and one more time every few seconds; and who is one client.

Why here: the api bounds wrong passwords and new consoles, and the noVNC proxy bounds tokens that are not valid, by one
rule. Pure, and not thread-safe: called by :mod:`porthole_api.login_limits`, :mod:`porthole_api.console_limit` and
:mod:`porthole_novncproxy.admission.token_failures` under their locks. :func:`find_network` is also for the proxy's
connections that are not admitted.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

# It guards the memory; the entry that was not used for the longest time goes.
MAX_TRACKED = 10_000
# A host has at least this many bits of IPv6 for itself (RFC 6177).
_IPV6_PREFIX = 64

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


def find_network(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the network of an IPv6 address."""
    if ":" not in address:
        # IPv4; a UNIX socket has no address.
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
