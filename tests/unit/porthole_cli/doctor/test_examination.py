# SPDX-License-Identifier: Apache-2.0
"""The stages, on a healthy cloud that is broken in one place: what is found, what is not looked at, and how long."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from porthole_cli.doctor import finding
from porthole_cli.doctor.broker import BrokerResult
from porthole_cli.doctor.examination import Examination, Ports
from porthole_cli.doctor.facts import Daemons, UrlCheck
from porthole_cli.doctor.finding import FindingId
from porthole_cli.doctor.report import Report
from porthole_cli.doctor.run import examine
from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.rpc import Broker
from support.clouds import FakeBus, ids, make_daemons
from support.descriptions import NOW, make_host, make_store, make_vitals


@pytest.fixture
def conf_path(tmp_path: Path) -> Path:
    path = tmp_path / "porthole.conf"
    path.write_text("[DEFAULT]\ntransport_url = rabbit://porthole:secret@192.0.2.10:5672/\n", encoding="utf-8")
    path.chmod(0o640)
    return path


class Cloud:
    """What an examination of ``found`` meets; the answers of its ports may be changed before :meth:`examine`."""

    def __init__(self, conf_path: Path, found: Daemons | None = None) -> None:
        self.bus = FakeBus(found or make_daemons())
        self.conf_path = conf_path
        self.broker: Callable[[Broker], BrokerResult] = lambda _: BrokerResult(
            finding.ok(FindingId.BROKER_OK, "fine"), dict(self.bus.found.consumers)
        )
        self.checked_urls: list[tuple[str, str]] = []

    def check_url(self, url: str, token: str) -> UrlCheck:
        assert any(token in store for store in self.bus.stores.values()), (
            "the token is not valid while the URL is checked"
        )
        self.checked_urls.append((url, token))
        return UrlCheck(url, page_status=200, upgrade_status=401)

    def examine(self, budget_s: float = 20) -> Report:
        with self.make_examination() as examination:
            return examine(examination, [str(self.conf_path)], budget_s)

    def examine_defaults(self) -> Examination:
        """Examine as on a host without any configuration file."""
        with self.make_examination() as examination:
            porthole_conf.parse(cfg.CONF, "test", [], default_config_files=[], default_config_dirs=[])
            examination.run_parsed()
            return examination

    @contextmanager
    def make_examination(self) -> Iterator[Examination]:
        # As the command has it: the process's own, not parsed yet.
        cfg.CONF.reset()
        ports = Ports(
            clock=lambda: NOW,
            make_bus=lambda _conf: self.bus,
            examine_broker=lambda broker, _queues: self.broker(broker),
            check_url=self.check_url,
        )
        examination = Examination(cfg.CONF, ports)
        try:
            yield examination
        finally:
            examination.close()
            cfg.CONF.reset()


@pytest.fixture
def cloud(conf_path: Path) -> Cloud:
    return Cloud(conf_path)


def test_all_is_well(cloud: Cloud) -> None:
    report = cloud.examine()
    assert report.exit_status == 0
    assert ids(report.findings) == [
        "config.ok",
        "broker.ok",
        "daemons.ok",
        "libvirt.ok",
        "memcached.ok",
        "vnc.ok",
        "url.ok",
        "novnc.ok",
        "clock.ok",
        "descriptors.ok",
        "token.ok",
    ]
    assert report.not_examined == ()
    assert [url for url, _ in cloud.checked_urls] == ["http://192.0.2.10:6080/console.html"]
    assert cloud.bus.calls[-1] == "close"
    assert not any(cloud.bus.stores.values())


def test_without_a_configuration_nothing_is_asked(cloud: Cloud) -> None:
    cloud.conf_path.unlink()
    report = cloud.examine()
    assert ids(report.findings) == ["config.unreadable"]
    assert report.not_examined == ("everything else",)
    assert cloud.bus.calls == []


def test_without_any_file_and_without_daemons_only_that_is_said(cloud: Cloud) -> None:
    good = cloud.broker
    refusal = BrokerResult(finding.error(FindingId.BROKER_ADDRESS, "x", "x", "Start RabbitMQ"))
    for broker, consumers in ((lambda _: refusal, {}), (good, dict.fromkeys(cloud.bus.found.consumers, 0))):
        cloud.broker = broker
        cloud.bus.found.consumers = consumers
        examined = cloud.examine_defaults()
        assert [(each.id, each.severity) for each in examined.findings] == [("config.missing", "error")]
        assert "porthole standalone" in examined.findings[0].mend
        assert examined.not_examined == ["everything else"]
    assert cloud.bus.calls == []


def test_without_any_file_daemons_that_run_on_the_defaults_are_examined(cloud: Cloud) -> None:
    examined = cloud.examine_defaults()
    assert [each.severity for each in examined.findings if each.id is FindingId.CONFIG_MISSING] == ["warning"]
    assert "token.ok" in ids(examined.findings)


@pytest.mark.parametrize("url", ["fake://", "amqp1://192.0.2.10", "rabbit://:secret@:x"])
def test_a_transport_that_is_not_rabbitmqs(cloud: Cloud, url: str) -> None:
    cloud.conf_path.write_text(f"[DEFAULT]\ntransport_url = {url}\n", encoding="utf-8")
    report = cloud.examine()
    assert ids(report.findings) == ["config.ok", "config.invalid"]
    assert "secret" not in repr(report)


def test_without_a_broker_nobody_is_asked(cloud: Cloud) -> None:
    cloud.broker = lambda _: BrokerResult(finding.error(FindingId.BROKER_VHOST, "x", "x", "x"))
    report = cloud.examine()
    assert ids(report.findings) == ["config.ok", "broker.vhost"]
    assert len(report.not_examined) == 1
    assert cloud.bus.calls == []


def test_one_broker_of_two_is_enough_to_go_on(cloud: Cloud) -> None:
    url = "rabbit://a:b@192.0.2.10:5672,a:b@192.0.2.20:5672/"
    cloud.conf_path.write_text(f"[DEFAULT]\ntransport_url = {url}\n", encoding="utf-8")
    good = cloud.broker

    def broker(asked: Broker) -> BrokerResult:
        return (
            BrokerResult(finding.error(FindingId.BROKER_ADDRESS, "x", "x", "x")) if "20" in asked.host else good(asked)
        )

    cloud.broker = broker
    assert ids(cloud.examine().findings)[1:4] == ["broker.ok", "broker.address", "daemons.ok"]


def test_a_daemon_that_does_not_answer_is_named_and_the_rest_is_seen(cloud: Cloud) -> None:
    cloud.bus.failing = {"describe consoleauth"}
    report = cloud.examine()
    assert [each for each in ids(report.findings) if not each.endswith(".ok")] == ["daemons.mute"]
    assert report.not_examined == ("memcached", "a token's life", "whether the URLs open")
    assert "vnc.ok" in ids(report.findings)


def test_an_old_daemon_is_told_from_a_silent_one(cloud: Cloud) -> None:
    cloud.bus.failing = {"describe novncproxy"}
    cloud.bus.error = errors.RemoteFailure("porthole.revocations", "describe_proxy")
    mute = next(each for each in cloud.examine().findings if each.id is FindingId.DAEMONS_MUTE)
    assert "version" in mute.problem


def test_a_roll_call_that_no_broker_takes(cloud: Cloud) -> None:
    cloud.bus.failing = {"discover"}
    cloud.bus.found.consumers = {}
    expected = {"api.none", "compute.none", "consoleauth.none", "novncproxy.none"}
    assert expected <= set(ids(cloud.examine().findings))


def test_a_proxy_that_does_not_dial_is_named(cloud: Cloud) -> None:
    cloud.bus.failing = {"dial"}
    assert "daemons.mute" in ids(cloud.examine().findings)


def test_a_screen_that_the_proxy_does_not_reach(cloud: Cloud) -> None:
    cloud.bus.refusing = {cloud.bus.found.computes[0].description.displays[0].target}
    assert "vnc.unreachable" in ids(cloud.examine().findings)


def test_a_compute_without_its_hypervisor_is_not_sent_a_token(conf_path: Path) -> None:
    down = make_host("compute1", refusal="It is down.")
    cloud = Cloud(conf_path, make_daemons(computes=[down, make_host("compute2")]))
    cloud.examine()
    assert cloud.bus.authorized[0].compute_host == "compute2"
    alone = Cloud(conf_path, make_daemons(computes=[down]))
    assert "whether the URLs open" in alone.examine().not_examined
    assert alone.checked_urls == []


def test_two_stores_that_are_not_one(conf_path: Path) -> None:
    cloud = Cloud(conf_path, make_daemons(stores=[make_store("a"), make_store("b")]))
    cloud.bus.stores["b-1"] = {}
    assert "memcached.not_shared" in ids(cloud.examine().findings)


def test_a_clock(conf_path: Path) -> None:
    vitals = make_vitals("a", now=NOW.replace(year=2027))
    assert "clock.skew" in ids(Cloud(conf_path, make_daemons(stores=[make_store(vitals=vitals)])).examine().findings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("web = /nowhere", "novnc.missing"), ("cert = /nowhere/cert.pem", "certificate.unreadable")],
)
def test_why_a_proxy_would_not_start_here(conf_path: Path, text: str, expected: str) -> None:
    with conf_path.open("a", encoding="utf-8") as file:
        file.write(f"host = node1\nweb =\n{text}\n" if "web" not in text else f"{text}\n")
    report = Cloud(conf_path, make_daemons(proxies=())).examine()
    assert expected in ids(report.findings)
    assert "novncproxy.none" in ids(report.findings)
    # Where one runs it speaks for itself.
    assert expected not in ids(Cloud(conf_path).examine().findings)


@pytest.mark.parametrize("stuck", ["discover", "authorize"])
def test_what_hangs_costs_the_budget_and_no_more(cloud: Cloud, stuck: str) -> None:
    cloud.bus.stuck = {stuck}
    started = time.monotonic()
    report = cloud.examine(budget_s=0.5)
    assert time.monotonic() - started < 10
    assert ids(report.findings)[:2] == ["config.ok", "broker.ok"]
    assert ids(report.findings)[-1] == "doctor.deadline"
    assert report.exit_status == 2


def test_a_fault_of_the_doctor_is_a_finding_and_hides_no_other(cloud: Cloud) -> None:
    def discover(expected: Mapping[str, int]) -> Any:
        raise KeyError("secret")

    cloud.bus.discover = discover  # type: ignore[method-assign]
    report = cloud.examine()
    assert ids(report.findings) == ["config.ok", "broker.ok", "doctor.failed"]
    assert "KeyError" in report.findings[-1].problem
    assert "secret" not in repr(report)
