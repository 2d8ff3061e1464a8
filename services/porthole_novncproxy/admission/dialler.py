# SPDX-License-Identifier: Apache-2.0
"""Dials that share the request threads fairly: a silent VNC server must not hold up the consoles of the others.

Why: a dial holds a thread until the VNC server answers, and one user may have any number of clients at a server that is
silent. Two keys, for two questions. What fails is one guest's VNC server, so the circuit breaker goes by instance and
address: a silent guest closes no other guest of its host. What runs out is threads, and a tenant may have any number of
guests, so dials that may take the whole of ``[novncproxy] dial_timeout`` are bounded by server, by compute host and in
all. Beyond a bound a dial is not refused, but gets a short time: a server in order needs a few milliseconds, so that a
crowd at a healthy server is let in.
Called by :mod:`porthole_novncproxy.admission.gate`.
"""

import collections
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from porthole_common import errors
from porthole_common.deadline import Deadline
from porthole_common.model import ConnectInfo, Target
from porthole_novncproxy.admission.circuit_breaker import Asked, CircuitBreaker
from porthole_novncproxy.admission.dial import DialledServer, dial
from porthole_novncproxy.admission.vencrypt import Security

# Dials to one VNC server that may take the whole time.
PER_SERVER = 4
# What part of the threads such dials to one compute host, and to all of them, may hold.
_HOST_SHARE = 4
_TOTAL_SHARE = 2
# The time of a dial beyond these bounds: a hundred times what a server in order needs, TLS included.
SHORT_S = 0.5


class DialBounds:
    """How long a dial may take, by the number of dials that may already take the whole time. Thread-safe."""

    def __init__(self, timeout_s: float, threads: int) -> None:
        """``timeout_s``: the whole time. ``threads``: as many dials may be under way at once."""
        self._timeout_s = timeout_s
        self._per_host = max(1, threads // _HOST_SHARE)
        self._total = max(1, threads // _TOTAL_SHARE)
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._lock = threading.Lock()

    @contextmanager
    def dialling(self, server: str, compute_host: str) -> Iterator[float]:
        """Dial inside; the value is how many seconds the dial may take."""
        bounds = {
            ("server", server): PER_SERVER,
            ("host", compute_host): self._per_host,
            ("all", ""): self._total,
        }
        with self._lock:
            has_place = all(self._counts[key] < bound for key, bound in bounds.items())
            if has_place:
                self._counts.update(bounds.keys())
            else:
                self._forget_zeros(bounds)
        if not has_place:
            yield min(self._timeout_s, SHORT_S)
            return
        try:
            yield self._timeout_s
        finally:
            with self._lock:
                self._counts.subtract(bounds.keys())
                self._forget_zeros(bounds)

    def _forget_zeros(self, keys: collections.abc.Iterable[tuple[str, str]]) -> None:
        for key in keys:
            if self._counts[key] <= 0:
                del self._counts[key]


class Dialler:
    """Dials VNC servers for consoles; one per process. Thread-safe."""

    def __init__(
        self, timeout_s: float, threads: int, pause_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``timeout_s``: of one dial. ``threads``: as many requests dial at once. ``pause_s``: see the breaker."""
        self._bounds = DialBounds(timeout_s, threads)
        self._breaker = CircuitBreaker(clock, pause_s, errors.VncServerTimeout)

    def dial(
        self,
        info: ConnectInfo,
        target: Target,
        security: Security | None,
        deadline: Deadline,
        *,
        server_speaks_first: bool,
    ) -> DialledServer:
        """Return a connection to the VNC server of ``info`` at ``target``, as :func:`.dial.dial` does.

        :raises VncServerSilent: at once, when the server was silent lately.
        :raises PortholeError: what :func:`.dial.dial` raises.
        """
        # The instance too: several instances may have one address, and an internal_access_path each.
        server = f"{info.instance_uuid} {target}"
        refusal = errors.VncServerSilent(target.host, target.port)
        asked = Asked(server, refusal, info.compute_host, info.instance_uuid, str(target))
        with (
            self._breaker.asking(asked),
            self._bounds.dialling(server, info.compute_host) as timeout_s,
        ):
            return dial(
                target,
                info.internal_access_path,
                timeout_s,
                security,
                deadline,
                server_speaks_first=server_speaks_first,
            )
