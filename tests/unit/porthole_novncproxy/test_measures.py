# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import metrics
from porthole_novncproxy.measures import LoopLag, Measures
from porthole_novncproxy.sessions.tally import Tally
from porthole_relay.loop import Loop
from support.certificates import make_certificate
from support.fake_loop import FakeLoop
from support.scrapes import Scrape


def read() -> Scrape:
    return Scrape(metrics.render("novncproxy").decode())


def make_conf() -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf(args=[], default_config_files=[], default_config_dirs=[])
    return conf


@pytest.fixture
def loop() -> Loop:
    return cast(Loop, FakeLoop())


def test_one_call_at_a_time_measures_the_lag(loop: Loop) -> None:
    fake = cast(FakeLoop, loop)
    before = read().get("porthole_loop_lag_seconds_count")
    lag = LoopLag(loop)
    for _ in range(5):
        lag.sample()
    # A loop that is blocked for long gets no heap of calls.
    assert len(fake.soon) == 1
    fake.run_soon()
    assert read().get("porthole_loop_lag_seconds_count") == before + 1
    lag.sample()
    assert len(fake.soon) == 1


def test_certificates_are_those_that_were_read(loop: Loop, tmp_path: Path) -> None:
    conf = make_conf()
    certificate = make_certificate(tmp_path)
    measures = Measures(conf, loop, Tally(loop))
    measures.start()
    try:
        name = "porthole_certificate_expiry_timestamp_seconds"
        assert read().list_values(name, "certificate") == set()
        conf.set_override("cert", str(certificate.cert))
        conf.set_override("vencrypt_client_cert", str(tmp_path / "gone.pem"), group="vnc")
        assert read().list_values(name, "certificate") == set()
        measures.read_certificates()
        assert read().list_values(name, "certificate") == {"doors"}
        ends_at = datetime.fromtimestamp(read().get(name), UTC)
        assert datetime.now(UTC) < ends_at < datetime.now(UTC) + timedelta(days=36500)
    finally:
        measures.stop()


def test_what_has_stopped_is_not_measured(loop: Loop) -> None:
    conf = make_conf()
    measures = Measures(conf, loop, Tally(loop))
    measures.stop()
    samplers = list(metrics.SAMPLERS)
    measures.start()
    assert read().get("porthole_sessions_limit") == conf.novncproxy.max_sessions
    assert read().list_values("porthole_openings_total", "outcome") == {"opened", "refused", "lost"}
    assert len(metrics.SAMPLERS) == len(samplers) + 1
    measures.stop()
    assert read().get("porthole_sessions_limit") == 0
    assert samplers == metrics.SAMPLERS
