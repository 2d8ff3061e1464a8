# SPDX-License-Identifier: Apache-2.0
"""The circuit breakers: a compute host, or a VNC server, that was silent lately is not asked by every client.

Why: a client of a dead compute host holds a thread for ``[rpc] call_timeout``, and a client of a silent VNC server for
``[novncproxy] dial_timeout``; threads are few. A handful of such clients, who try again and again, would hold up the
consoles of every other host. One client every ``pause_s`` seconds asks, until there is an answer; the other clients are
refused at once. A request that was sent before the host came up is lost, and its late failure must not hide that the
host is back: so any answer ends the silence. The log tells of the silence once, and once of its end.
Called by :mod:`porthole_novncproxy.admission.gate` and :mod:`porthole_novncproxy.admission.dialler`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from porthole_common import errors
from porthole_common.log import get_logger

LOG = get_logger(__name__)
# Nobody may ask again for a server that has gone, so that its silence would never end: of more silences than this, the
# ones that nobody has looked at for so long are forgotten.
_MAX_SILENCES = 1024
_FORGET_S = 60.0


@dataclass(frozen=True)
class Asked:
    """Who is asked. ``name`` tells them apart; ``refusal`` is raised while they are silent; the rest is for the log."""

    name: str
    refusal: errors.PortholeError
    compute: str
    instance: str | None = None
    address: str | None = None


@dataclass
class _Silence:
    """``until``: when it is time to ask again. ``refused``: clients that were told so meanwhile."""

    until: float
    refused: int = 0


class CircuitBreaker:
    """Remembers who is silent, by name. Thread-safe; holds a name only as long as it is silent."""

    def __init__(self, clock: Callable[[], float], pause_s: float, silence: type[errors.PortholeError]) -> None:
        """``clock`` returns monotonic seconds. ``silence``: the error that means that nobody answered."""
        self._clock = clock
        self._pause_s = pause_s
        self._silence = silence
        self._silent: dict[str, _Silence] = {}
        self._lock = threading.Lock()

    @contextmanager
    def asking(self, asked: Asked) -> Iterator[None]:
        """Ask something inside: the error of a silence makes ``asked`` silent, anything else ends that.

        :raises PortholeError: the refusal, when it is silent, and it is not the time to try it again.
        """
        self._enter(asked)
        try:
            yield
        except self._silence:
            self._failed(asked)
            raise
        except BaseException:
            self._answered(asked)
            raise
        self._answered(asked)

    def _enter(self, asked: Asked) -> None:
        with self._lock:
            silence = self._silent.get(asked.name)
            if silence is None:
                return
            if self._clock() < silence.until:
                silence.refused += 1
                raise asked.refusal
            # This request probes. Other requests fail until the pause ends.
            silence.until = self._clock() + self._pause_s

    def _failed(self, asked: Asked) -> None:
        until = self._clock() + self._pause_s
        with self._lock:
            if asked.name in self._silent:
                self._silent[asked.name].until = until
                return
            if len(self._silent) >= _MAX_SILENCES:
                kept = until - self._pause_s - _FORGET_S
                self._silent = {each: silence for each, silence in self._silent.items() if silence.until > kept}
            self._silent[asked.name] = _Silence(until)
        LOG.warning("Silence found", compute=asked.compute, instance=asked.instance, address=asked.address)

    def _answered(self, asked: Asked) -> None:
        # Without the lock, which every console would take: nearly always nobody is silent.
        if asked.name not in self._silent:
            return
        with self._lock:
            silence = self._silent.pop(asked.name, None)
        if silence is not None:
            LOG.info(
                "Silence ended",
                compute=asked.compute,
                instance=asked.instance,
                address=asked.address,
                refused=silence.refused,
            )


class HostCircuitBreaker:
    """The circuit breaker of compute hosts."""

    def __init__(self, clock: Callable[[], float], pause_s: float) -> None:
        """``clock`` returns monotonic seconds."""
        self._breaker = CircuitBreaker(clock, pause_s, errors.RpcUnavailable)

    @contextmanager
    def asking(self, host: str) -> Iterator[None]:
        """Ask ``host`` something inside: RpcUnavailable from there makes it silent, anything else ends that.

        :raises HostUnavailable: when it is silent, and it is not the time to try it again.
        """
        with self._breaker.asking(Asked(host, errors.HostUnavailable(host), host)):
            yield
