# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker of compute hosts: hosts that were silent lately are not asked by every client.

Why: a client of a dead compute host holds a thread for ``[rpc] call_timeout``, and threads are few. A handful of such
clients, who try again and again, would hold up the consoles of every other host. One client every ``pause_s`` seconds
asks a silent host, until the host answers; the other clients are refused at once. A request that was sent before the
host came up is lost, and its late failure must not hide that the host is back: so any answer ends the silence.
Called by :mod:`porthole_novncproxy.admission.gate`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from porthole_common import errors


class HostCircuitBreaker:
    """Remembers which hosts are silent. Thread-safe; holds a host only as long as it is silent."""

    def __init__(self, clock: Callable[[], float], pause_s: float) -> None:
        """``clock`` returns monotonic seconds."""
        self._clock = clock
        self._pause_s = pause_s
        self._silent: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def asking(self, host: str) -> Iterator[None]:
        """Ask ``host`` something inside: RpcUnavailable from there makes it silent, anything else ends that.

        :raises HostUnavailable: when it is silent, and it is not the time to try it again.
        """
        self._enter(host)
        try:
            yield
        except errors.RpcUnavailable:
            with self._lock:
                self._silent[host] = self._clock() + self._pause_s
            raise
        except BaseException:
            self._answered(host)
            raise
        self._answered(host)

    def _enter(self, host: str) -> None:
        with self._lock:
            if host not in self._silent:
                return
            if self._clock() < self._silent[host]:
                raise errors.HostUnavailable(host)
            # This request probes the host. Other requests fail until the pause ends.
            self._silent[host] = self._clock() + self._pause_s

    def _answered(self, host: str) -> None:
        with self._lock:
            self._silent.pop(host, None)
