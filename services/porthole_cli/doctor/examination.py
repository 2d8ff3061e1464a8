# SPDX-License-Identifier: Apache-2.0
"""An examination, stage by stage: configuration, brokers, daemons, and what the daemons show.

Why in this order: a stage rests on the stages before it. If one of those fails, the report names what could not be
examined, and nothing is guessed. Called by :mod:`run`, which gives the whole one deadline.
"""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from oslo_config import cfg

from porthole_cli.doctor import (
    broker,
    config,
    daemons,
    displays,
    finding,
    history,
    live_checks,
    processes,
    standalone_advice,
    stores,
    tokens,
    url_check,
    web,
)
from porthole_cli.doctor.bus import TOPICS, Bus, build_bus
from porthole_cli.doctor.facts import Daemons, DialResult, TokenCheck, UrlCheck
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_cli.doctor.parallel import gather
from porthole_common import errors
from porthole_common.log import get_logger
from porthole_common.rpc import Broker, list_brokers
from porthole_novncproxy import novnc
from porthole_novncproxy.certificate import read_certificate

LOG = get_logger(__name__)
# For the whole examination: an operator gets an answer in half a minute, also from a cloud that is half dead.
BUDGET_S = 25.0
BROKER_TIMEOUT_S = 10.0
MAX_URLS = 4
CLOSE_TIMEOUT_S = 3.0


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Ports:
    """How the outside is reached; a test replaces them. ``clock`` returns the aware time of this host."""

    clock: Callable[[], datetime] = _now
    make_bus: Callable[[cfg.ConfigOpts], Bus] = build_bus
    examine_broker: Callable[[Broker, Mapping[str, str]], broker.BrokerResult] = broker.examine_broker
    check_url: Callable[[str, str], UrlCheck] = url_check.check_url


@dataclass
class Examination:
    """One examination of the daemons that ``conf`` describes.

    :meth:`run` fills in the other attributes; :meth:`close` ends the examination. ``stage`` names the current stage,
    for the report of an examination that fails or takes too long.
    """

    conf: cfg.ConfigOpts
    ports: Ports = field(default_factory=Ports)
    findings: list[Finding] = field(default_factory=list)
    not_examined: list[str] = field(default_factory=list)
    stage: str = "the configuration"
    bus: Bus | None = None
    is_standalone: bool = False

    def run(self, files: Sequence[str]) -> None:
        """Go through the stages; return after the last stage that is possible."""
        trouble = config.load(self.conf, files)
        if trouble is not None:
            self.findings.append(trouble)
            self.not_examined.append("everything else")
            return
        self.run_parsed()

    def run_parsed(self) -> None:
        """Do the same when ``conf`` is parsed already."""
        self.findings += config.examine(self.conf)
        self.stage = "the brokers"
        consumers = self._examine_brokers()
        if not config.list_files(self.conf) and not any((consumers or {}).values()):
            # No daemon of this host uses the defaults, so advice about their broker would mislead.
            self.findings = [config.build_none()]
            self.not_examined = ["everything else"]
            return
        if consumers is None:
            self.not_examined.append("the daemons, and what they report (memcached, libvirt, VNC, TLS, clocks, limits)")
            return
        self.bus = self.ports.make_bus(self.conf)
        self._examine_daemons(self.bus, consumers)

    def run_standalone(self) -> None:
        """Examine the four services of this very process; ``conf`` is their configuration, parsed already."""
        self.bus = self.ports.make_bus(self.conf)
        self._examine_daemons(self.bus, dict.fromkeys(TOPICS, 1))
        self.findings = standalone_advice.adapt(self.findings)

    def close(self) -> None:
        """Leave the bus, or give up after a moment: a consumer of oslo.messaging notices the end only now and then."""
        if self.bus is not None:
            closing = threading.Thread(target=self.bus.close, name="doctor-close", daemon=True)
            closing.start()
            closing.join(CLOSE_TIMEOUT_S)

    def _examine_brokers(self) -> dict[str, int] | None:
        """Examine every broker; return the number of consumers by daemon, None when no broker is usable."""
        try:
            brokers = list_brokers(self.conf)
        except errors.ConfigInvalid as exc:
            mend = (
                "Write it as rabbit://USER:PASSWORD@HOST:5672/VHOST; with the present value the daemons do not start."
            )
            self.findings.append(finding.error(FindingId.CONFIG_INVALID, "", f"{exc}.", mend))
            return None
        queues = {topic: daemon for daemon, topic in TOPICS.items()}
        questions = [functools.partial(self.ports.examine_broker, each, queues) for each in brokers]
        counts: dict[str, int] | None = None
        for asked, result in zip(brokers, gather(questions, BROKER_TIMEOUT_S), strict=True):
            if isinstance(result, broker.BrokerResult):
                self.findings.append(result.finding)
                if result.is_usable:
                    counts = counts or dict(result.consumers)
            else:
                self.findings.append(broker.judge_address(asked, TimeoutError()))
        return counts

    def _examine_daemons(self, bus: Bus, consumers: Mapping[str, int]) -> None:
        self.stage = "the discovery of the daemons"
        found = Daemons(consumers=dict(consumers))
        try:
            found.presences = bus.discover(consumers)
        except errors.RpcUnavailable as exc:
            LOG.info("Discovery failed", reason=str(exc))
        self.stage = "the daemons' descriptions"
        live_checks.describe_daemons(bus, found, self.ports.clock)
        self.stage = "VNC servers, URLs and tokens"
        dialled, token_check, url_checks = self._run_live_checks(bus, found)
        self.stage = "the conclusions"
        now = self.ports.clock()
        judges: list[Callable[[], list[Finding]]] = [
            functools.partial(daemons.judge_daemons, found),
            functools.partial(stores.judge_hypervisors, found),
            functools.partial(history.judge_history, found),
            functools.partial(displays.judge_displays, found, dialled),
            functools.partial(web.judge_web, found, url_checks, now),
            functools.partial(processes.judge_descriptors, found),
            functools.partial(tokens.judge_token, token_check),
        ]
        if not self.is_standalone:
            # A standalone is one process with one clock, and keeps its tokens in memory.
            judges[2:2] = [functools.partial(stores.judge_memcached, found, token_check)]
            judges[-2:-2] = [
                functools.partial(self._judge_here, found),
                functools.partial(processes.judge_clocks, found),
                functools.partial(processes.judge_metrics, found),
            ]
        for judge in judges:
            self.findings += judge()
        self._note_gaps(found)

    def _run_live_checks(self, bus: Bus, found: Daemons) -> tuple[list[DialResult], TokenCheck, list[UrlCheck]]:
        """Have the proxies dial, and at the same time check a token and the URLs."""
        urls = web.list_base_urls(found, self.conf.vnc.novncproxy_base_url)[:MAX_URLS]
        questions: list[Callable[[], Any]] = [
            functools.partial(live_checks.dial_displays, bus, found),
            functools.partial(live_checks.check_urls, bus, found, urls, self.conf.host, self.ports.check_url),
        ]
        dialled, checked = gather(questions, BUDGET_S)
        if isinstance(dialled, BaseException):
            raise dialled
        if isinstance(checked, BaseException):
            raise checked
        results, late_hosts = dialled
        if late_hosts:
            self.not_examined.append(f"VNC servers of {', '.join(late_hosts)}, for want of time")
        token_check, url_checks = checked
        return results, token_check, url_checks

    def _judge_here(self, found: Daemons) -> list[Finding]:
        """Return why a proxy would not start on this host, when no proxy runs anywhere."""
        if any(presence.daemon == "novncproxy" for presence in found.presences):
            return []
        findings = []
        if self.conf.web and not novnc.is_there(self.conf.web):
            findings.append(web.build_novnc_missing(f"{self.conf.host}, if the proxy is to run here", self.conf.web))
        if self.conf.cert and read_certificate(self.conf.cert) is None:
            problem = f"The certificate in [DEFAULT] cert, {self.conf.cert}, cannot be read: the proxy does not start."
            mend = "Put the certificate there in PEM, readable for the user porthole, and start porthole-novncproxy."
            findings.append(finding.error(FindingId.CERTIFICATE_UNREADABLE, self.conf.host, problem, mend))
        return findings

    def _note_gaps(self, found: Daemons) -> None:
        if not found.stores:
            self.not_examined += [*([] if self.is_standalone else ["memcached"]), "a token's life"]
        if not found.computes:
            self.not_examined += ["libvirt", "VNC servers"]
        if not found.proxies:
            self.not_examined += ["whether proxies reach VNC servers", "noVNC"]
        if not (found.proxies and found.stores and live_checks.choose_compute(found)):
            self.not_examined.append("whether the URLs open")
