# SPDX-License-Identifier: Apache-2.0
"""What one process of the proxy is measured by at a scrape: consoles, bytes, limits, certificates, the loop's lag.

Why apart from the parts that do the work: they stay as quick as they are, and know no scrape. What happens once, such
as a refusal, is counted where it happens. Called by :mod:`porthole_novncproxy.daemon`.
"""

import time

from oslo_config import cfg

from porthole_common import metrics
from porthole_novncproxy.certificate import read_certificate
from porthole_novncproxy.doors import DOORS
from porthole_novncproxy.sessions.tally import Tally
from porthole_relay.loop import Loop


class LoopLag:
    """Samples how long a call waits for its turn; one call at a time, however long the loop is blocked."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._asked_at_s: float | None = None

    def sample(self) -> None:
        """Begin to measure, unless a call still waits; returns at once."""
        if self._asked_at_s is None:
            self._asked_at_s = time.monotonic()
            self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        if self._asked_at_s is not None:
            metrics.LOOP_LAG_SECONDS.observe(time.monotonic() - self._asked_at_s)
            self._asked_at_s = None


class Measures:
    """The sources of the proxy's metrics, from :meth:`start` to :meth:`stop`."""

    def __init__(self, conf: cfg.ConfigOpts, loop: Loop, tally: Tally) -> None:
        self._conf = conf
        self._tally = tally
        self._lag = LoopLag(loop)
        self._expiries: dict[str, float] = {}
        self._sources = (
            (metrics.SESSIONS, self._read_sessions),
            (metrics.RELAYED_BYTES, self._read_bytes),
            (metrics.SESSIONS_LIMIT, lambda: [((), conf.novncproxy.max_sessions)]),
            (metrics.CERTIFICATE_EXPIRY, lambda: [((name,), at) for name, at in self._expiries.items()]),
        )

    def start(self) -> None:
        """Measure from now on. Alerts see the first one of these events, since its counter is 0 before."""
        for door in DOORS:
            for outcome in ("opened", "refused", "lost"):
                metrics.OPENINGS.labels(door.name, outcome)
        for metric, source in self._sources:
            metric.add_source(source)
        metrics.SAMPLERS.append(self._lag.sample)
        self.read_certificates()

    def read_certificates(self) -> None:
        """Read the certificates as the proxy does, at its start and at SIGHUP."""
        paths = {"doors": self._conf.cert, "vnc_client": self._conf.vnc.vencrypt_client_cert}
        read = {name: read_certificate(path) for name, path in paths.items()}
        self._expiries = {name: dates.not_after.timestamp() for name, dates in read.items() if dates is not None}

    def stop(self) -> None:
        """Measure no more. Harmless when not started."""
        for metric, source in self._sources:
            metric.remove_source(source)
        if self._lag.sample in metrics.SAMPLERS:
            metrics.SAMPLERS.remove(self._lag.sample)

    def _read_sessions(self) -> metrics.Samples:
        return self._tally.read().sessions.items()

    def _read_bytes(self) -> metrics.Samples:
        return self._tally.read().relayed_bytes.items()
