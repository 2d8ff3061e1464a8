# SPDX-License-Identifier: Apache-2.0
"""An examination, stage by stage: configuration, brokers, daemons, and what the daemons show.

Why in this order: a stage rests on those before it, and what cannot be looked at because of them is named, not guessed.
Every wait has a deadline, and the whole has one more: an operator gets an answer in half a minute, also of a cloud that
is half dead. A fault of the doctor itself is a finding and hides no other. Called by :mod:`command`.
"""

import functools
import threading
import time
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
    doors,
    finding,
    processes,
    standalone_words,
    stores,
    tokens,
    web,
)
from porthole_cli.doctor.bus import CALL_TIMEOUT_S, TOPICS, Bus, build_bus
from porthole_cli.doctor.facts import Daemons, Dialled, Door, Heard, Mute, TokenTrip
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_cli.doctor.parallel import NotDone, gather
from porthole_cli.doctor.report import Report
from porthole_common import errors
from porthole_common.diagnosis import HostDescription, ProxyDescription
from porthole_common.discovery import DaemonProcess
from porthole_common.log import get_logger
from porthole_common.rpc import Broker, list_brokers
from porthole_novncproxy import novnc
from porthole_novncproxy.certificate import read_certificate

LOG = get_logger(__name__)
BUDGET_S = 25.0
BROKER_TIMEOUT_S = 10.0
# One round of RPCs, and a moment for those that waited for a thread.
ROUND_S = CALL_TIMEOUT_S + 1.0
MAX_DOORS = 4
CLOSE_TIMEOUT_S = 3.0


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Ports:
    """How the outside is reached; a test puts others in their place. ``clock`` returns the aware time of this host."""

    clock: Callable[[], datetime] = _now
    make_bus: Callable[[cfg.ConfigOpts], Bus] = build_bus
    examine_broker: Callable[[Broker, Mapping[str, str]], broker.Met] = broker.examine_broker
    knock: Callable[[str, str], Door] = doors.knock


@dataclass
class Examination:
    """One examination of what ``conf`` describes; :meth:`run` fills in the rest, :meth:`close` ends it."""

    conf: cfg.ConfigOpts
    ports: Ports = field(default_factory=Ports)
    findings: list[Finding] = field(default_factory=list)
    not_examined: list[str] = field(default_factory=list)
    stage: str = "the configuration"
    bus: Bus | None = None
    is_standalone: bool = False

    def run(self, files: Sequence[str]) -> None:
        """Go through the stages; return after the last one that the ones before left possible."""
        trouble = config.load(self.conf, files)
        if trouble is not None:
            self.findings.append(trouble)
            self.not_examined.append("everything else")
            return
        self.run_parsed()

    def run_parsed(self) -> None:
        """Do the same with ``conf`` parsed already."""
        self.findings += config.examine(self.conf)
        self.stage = "the brokers"
        consumers = self._examine_brokers()
        if not config.list_files(self.conf) and not any((consumers or {}).values()):
            # The defaults describe nobody's daemons, so advice on their broker would lead astray.
            self.findings = [config.build_none()]
            self.not_examined = ["everything else"]
            return
        if consumers is None:
            self.not_examined.append("the daemons, and what they report (memcached, libvirt, VNC, TLS, clocks, limits)")
            return
        self.bus = self.ports.make_bus(self.conf)
        self._examine_daemons(self.bus, consumers)

    def run_standalone(self) -> None:
        """Examine the four services of this very process; ``conf`` is theirs, and was parsed."""
        self.bus = self.ports.make_bus(self.conf)
        self._examine_daemons(self.bus, dict.fromkeys(TOPICS, 1))
        self.findings = standalone_words.adapt(self.findings)

    def close(self) -> None:
        """Leave the bus, or give that up in time: a consumer of oslo.messaging looks up only once in a while."""
        if self.bus is not None:
            closing = threading.Thread(target=self.bus.close, name="doctor-close", daemon=True)
            closing.start()
            closing.join(CLOSE_TIMEOUT_S)

    def _examine_brokers(self) -> dict[str, int] | None:
        """Look at every broker; return the number of consumers by daemon, None when no broker is of use."""
        try:
            brokers = list_brokers(self.conf)
        except errors.ConfigInvalid as exc:
            mend = "Write it as rabbit://USER:PASSWORD@HOST:5672/VHOST; the daemons do not start with what is there."
            self.findings.append(finding.error(FindingId.CONFIG_INVALID, "", f"{exc}.", mend))
            return None
        queues = {topic: daemon for daemon, topic in TOPICS.items()}
        questions = [functools.partial(self.ports.examine_broker, each, queues) for each in brokers]
        counts: dict[str, int] | None = None
        for asked, met in zip(brokers, gather(questions, BROKER_TIMEOUT_S), strict=True):
            if isinstance(met, broker.Met):
                self.findings.append(met.finding)
                if met.is_usable:
                    counts = counts or dict(met.consumers)
            else:
                self.findings.append(broker.judge_address(asked, TimeoutError()))
        return counts

    def _examine_daemons(self, bus: Bus, consumers: Mapping[str, int]) -> None:
        self.stage = "the roll call of the daemons"
        found = Daemons(consumers=dict(consumers))
        try:
            found.presences = bus.call_roll(consumers)
        except errors.RpcUnavailable as exc:
            LOG.info("The roll could not be called", reason=str(exc))
        self.stage = "the daemons' descriptions"
        self._describe(bus, found)
        self.stage = "VNC servers, doors and tokens"
        dialled, (trip, knocked) = self._go_out(bus, found)
        self.stage = "the conclusions"
        now = self.ports.clock()
        judges: list[Callable[[], list[Finding]]] = [
            functools.partial(daemons.judge_daemons, found),
            functools.partial(stores.judge_hypervisors, found),
            functools.partial(displays.judge_displays, found, dialled),
            functools.partial(web.judge_web, found, knocked, now),
            functools.partial(processes.judge_descriptors, found),
            functools.partial(tokens.judge_trip, trip),
        ]
        if not self.is_standalone:
            # A standalone is one process with one clock, and keeps its tokens in memory.
            judges[2:2] = [functools.partial(stores.judge_memcached, found, trip)]
            judges[-2:-2] = [
                functools.partial(self._judge_here, found),
                functools.partial(processes.judge_clocks, found),
            ]
        for judge in judges:
            self.findings += judge()
        self._note_gaps(found)

    def _describe(self, bus: Bus, found: Daemons) -> None:
        """Ask everybody who answered for a description, all at once."""
        kinds: dict[str, list[Any]] = {
            "api": found.apis,
            "compute": found.computes,
            "consoleauth": found.stores,
            "novncproxy": found.proxies,
        }

        def ask(presence: DaemonProcess) -> Heard[Any]:
            asked_at = self.ports.clock()
            description = bus.describe(presence)
            return Heard(presence, description, asked_at, self.ports.clock())

        asked = [presence for presence in found.presences if presence.daemon in kinds]
        for presence, answer in zip(
            asked, gather([functools.partial(ask, each) for each in asked], ROUND_S), strict=True
        ):
            if isinstance(answer, Heard):
                kinds[presence.daemon].append(answer)
            else:
                found.mute.append(Mute(presence, isinstance(answer, errors.RemoteFailure)))

    def _go_out(self, bus: Bus, found: Daemons) -> tuple[list[Dialled], tuple[TokenTrip, list[Door]]]:
        """Have the proxies dial, and meanwhile lead a token through its life and to the doors."""
        questions: list[Callable[[], Any]] = [
            functools.partial(self._dial, bus, found),
            functools.partial(self._travel, bus, found),
        ]
        dialled, travelled = gather(questions, BUDGET_S)
        if isinstance(dialled, BaseException):
            raise dialled
        if isinstance(travelled, BaseException):
            raise travelled
        return dialled, travelled

    def _dial(self, bus: Bus, found: Daemons) -> list[Dialled]:
        # Workers of one host stand in the same place.
        proxies = {proxy.presence.host: proxy for proxy in found.proxies}
        pairs: list[tuple[Heard[ProxyDescription], Heard[HostDescription]]] = []
        pairs += [(proxy, compute) for proxy in proxies.values() for compute in found.computes]

        def ask(proxy: Heard[ProxyDescription], compute: Heard[HostDescription]) -> Dialled:
            targets = displays.choose_targets(compute.description, proxy.description)
            reaches = tuple(bus.dial(proxy.presence, targets)) if targets else ()
            return Dialled(proxy.presence.host, compute.presence.host, reaches)

        answers = gather([functools.partial(ask, *pair) for pair in pairs], ROUND_S * 2)
        left_off = sorted(
            {compute.presence.host for (_, compute), answer in zip(pairs, answers, strict=True) if _is_late(answer)}
        )
        if left_off:
            # A large cloud of which much is broken: the proxies are not to blame.
            self.not_examined.append(f"VNC servers of {', '.join(left_off)}, for want of time")
        for (proxy, _), answer in zip(pairs, answers, strict=True):
            failed = not isinstance(answer, Dialled) and not _is_late(answer)
            if failed and all(each.presence != proxy.presence for each in found.mute):
                found.mute.append(Mute(proxy.presence, is_old=False))
        return [answer for answer in answers if isinstance(answer, Dialled)]

    def _travel(self, bus: Bus, found: Daemons) -> tuple[TokenTrip, list[Door]]:
        if not found.stores:
            return TokenTrip(), []
        urls = web.list_base_urls(found, self.conf.vnc.novncproxy_base_url)[:MAX_DOORS]
        compute_host = _choose_compute(found)
        knocked: list[Door] = []

        def at_the_doors(token: str) -> None:
            if found.proxies and compute_host:
                answers = gather([functools.partial(self.ports.knock, url, token) for url in urls], ROUND_S * 2)
                knocked.extend(answer for answer in answers if isinstance(answer, Door))

        stores_by_host = {store.presence.host: store.presence for store in found.stores}
        trip = tokens.travel(bus, list(stores_by_host.values()), compute_host or self.conf.host, urls[0], at_the_doors)
        return trip, knocked

    def _judge_here(self, found: Daemons) -> list[Finding]:
        """Return why a proxy that is to run on this host would not start, when none runs anywhere."""
        if any(presence.daemon == "novncproxy" for presence in found.presences):
            return []
        findings = []
        if self.conf.web and not novnc.is_there(self.conf.web):
            findings.append(web.build_novnc_missing(f"{self.conf.host}, if the proxy is to run here", self.conf.web))
        if self.conf.cert and read_certificate(self.conf.cert) is None:
            problem = (
                f"There is no certificate to be read in [DEFAULT] cert, {self.conf.cert}: the proxy does not start."
            )
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
        if not (found.proxies and found.stores and _choose_compute(found)):
            self.not_examined.append("whether the URLs open")


def _is_late(answer: object) -> bool:
    return isinstance(answer, NotDone)


def _choose_compute(found: Daemons) -> str:
    """Return the host that the proxies ask for the instance of a token, "" when none could answer them."""
    return next((each.presence.host for each in found.computes if not each.description.refusal), "")


def examine_files(files: Sequence[str]) -> tuple[Report, Callable[[], None]]:
    """Examine what ``files`` describe, or without any what the daemons would read; return within half a minute.

    The report, and what is to be called once it was shown: it takes leave of the broker.
    """
    # oslo.messaging registers its tracing options on no other than the global one.
    examination = Examination(cfg.CONF)
    return examine(examination, files), examination.close


def build_standalone(conf: cfg.ConfigOpts, bus: Bus) -> Examination:
    """Return the examination of a ``porthole standalone`` by itself: ``bus`` is within its process."""
    return Examination(conf, Ports(make_bus=lambda _conf: bus), is_standalone=True)


def examine_standalone(examination: Examination, budget_s: float = BUDGET_S) -> Report:
    """Run an examination of :func:`build_standalone`'s, as :func:`examine` does."""
    return _examine(examination, examination.run_standalone, budget_s)


def examine(examination: Examination, files: Sequence[str], budget_s: float = BUDGET_S) -> Report:
    """Run ``examination`` on ``files`` for ``budget_s`` at most, and return what it has found until then."""
    return _examine(examination, functools.partial(examination.run, files), budget_s)


def _examine(examination: Examination, work: Callable[[], None], budget_s: float) -> Report:
    started = time.monotonic()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except Exception as exc:
            LOG.exception("The examination broke off")
            failure.append(exc)

    thread = threading.Thread(target=run, name="examination", daemon=True)
    thread.start()
    thread.join(budget_s)
    # Copies: a thread that is late must not change what is printed.
    findings, gaps = list(examination.findings), list(examination.not_examined)
    if thread.is_alive():
        problem = f"The examination was given up after {budget_s:g} s, in the middle of {examination.stage}."
        mend = "Mend what else is found and run it again; with porthole --debug doctor it says what it waits for."
        findings.append(finding.error(FindingId.DOCTOR_DEADLINE, "", problem, mend))
        gaps.append("what comes after that")
    elif failure:
        problem = f"The doctor itself failed, in the middle of {examination.stage}: {type(failure[0]).__name__}."
        mend = "Run porthole --debug doctor and report what it prints; what is found here holds all the same."
        findings.append(finding.error(FindingId.DOCTOR_FAILED, "", problem, mend))
        gaps.append("what comes after that")
    return Report(tuple(findings), tuple(gaps), time.monotonic() - started)
