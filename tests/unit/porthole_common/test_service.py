# SPDX-License-Identifier: Apache-2.0
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from porthole_common import early_sighup, errors, service
from porthole_common.systemd import SystemdNotifier

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _process_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    dispositions = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, disposition in dispositions.items():
        signal.signal(number, disposition)
    root.handlers[:] = handlers
    root.setLevel(level)


class Recorder:
    """A service that notes what is done to it, and may do something at its start."""

    stop_timeout_s = 1.0

    def __init__(
        self,
        name: str,
        calls: list[str],
        on_start: Callable[[], object] = lambda: None,
        waits_for: Callable[[], str] = lambda: "",
        is_alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self._calls = calls
        self._on_start = on_start
        self.waits_for = waits_for
        self.is_alive = is_alive

    def start(self) -> None:
        self._calls.append(f"start {self.name}")
        self._on_start()

    def reload(self) -> None:
        self._calls.append(f"reload {self.name}")

    def stop(self) -> None:
        self._calls.append(f"stop {self.name}")


class SignalWhenReady(logging.Handler):
    """Sends the process its signals, one after another, once the log says that it is ready."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__()
        self._numbers = list(numbers)

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Daemon ready"):
            for number in self._numbers:
                signal.raise_signal(number)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What systemd is told, by a notifier whose watchdog wants a ping every 10 ms."""
    states: list[str] = []
    environ = {"NOTIFY_SOCKET": "/run/systemd/notify", "WATCHDOG_USEC": "30000"}
    monkeypatch.setattr(service, "SystemdNotifier", lambda: SystemdNotifier(environ, states.append))
    return states


@pytest.fixture
def when_ready() -> Iterator[Callable[..., None]]:
    logger = logging.getLogger("porthole_common.service")
    level = logger.level
    added: list[logging.Handler] = []

    def send(*numbers: int) -> None:
        handler = SignalWhenReady(numbers)
        added.append(handler)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)

    yield send
    logger.setLevel(level)
    for handler in added:
        logger.removeHandler(handler)


def raising(error: Exception) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_services_start_in_order_and_stop_in_reverse(when_ready: Callable[..., None], number: int) -> None:
    calls: list[str] = []
    when_ready(number)
    assert service.run("p", [Recorder("a", calls), Recorder("b", calls)]) == 0
    assert calls == ["start a", "start b", "stop b", "stop a"]


def test_sighup_reloads_every_service(when_ready: Callable[..., None]) -> None:
    calls: list[str] = []
    when_ready(signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)
    assert service.run("p", [Recorder("a", calls), Recorder("b", calls)]) == 0
    assert calls[2:-2] == ["reload a", "reload b", "reload a", "reload b"]


def test_a_bad_option_ends_with_78_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    bad = Recorder("b", calls, raising(errors.ConfigInvalid("[vnc] web", "no such folder")))
    assert service.run("p", [Recorder("a", calls), bad]) == service.EXIT_CONFIG
    assert capsys.readouterr().err == "p: [vnc] web: no such folder\n"
    assert calls == ["start a", "start b", "stop b", "stop a"]


def test_a_service_that_cannot_start_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    assert service.run("p", [Recorder("a", calls, raising(errors.HypervisorUnavailable("h")))]) == service.EXIT_FAILED
    assert capsys.readouterr().err == "p: The hypervisor of host h does not answer.\n"
    assert calls == ["start a", "stop a"]


def test_an_address_in_use_ends_with_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """systemd starts the daemon again, unlike one whose configuration is wrong."""
    in_use = errors.AddressUnavailable("[api] bind_port", "in use")
    assert service.run("p", [Recorder("a", [], raising(in_use))]) == service.EXIT_FAILED
    assert run_main(lambda _: raising(in_use)()) == service.EXIT_FAILED  # type: ignore[arg-type, return-value]
    assert capsys.readouterr().err == "p: [api] bind_port: in use\nporthole-test: [api] bind_port: in use\n"


def test_a_sighup_before_the_start_reloads_afterwards(when_ready: Callable[..., None]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    early_sighup.install()
    signal.raise_signal(signal.SIGHUP)
    calls: list[str] = []
    when_ready(signal.SIGTERM)
    service.run("p", [Recorder("a", calls)])
    assert calls == ["start a", "reload a", "stop a"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_waits(number: int) -> None:
    calls: list[str] = []
    waiting = Recorder("b", calls, lambda: signal.raise_signal(number))
    assert service.run("p", [Recorder("a", calls), waiting, Recorder("c", calls)]) == 0
    assert calls == ["start a", "start b", "stop b", "stop a"]


def test_sighup_during_a_start_reloads_afterwards(when_ready: Callable[..., None]) -> None:
    calls: list[str] = []
    when_ready(signal.SIGTERM)
    service.run("p", [Recorder("a", calls, lambda: signal.raise_signal(signal.SIGHUP))])
    assert calls == ["start a", "reload a", "stop a"]


def run_main(build: Callable[[cfg.ConfigOpts], Sequence[service.Service]], *argv: str) -> int:
    return service.main("porthole-test", build, list(argv), cfg.ConfigOpts(), default_config_files=[])


def test_main_hands_the_parsed_configuration_to_build(when_ready: Callable[..., None]) -> None:
    seen: list[Any] = []
    calls: list[str] = []

    def build(conf: cfg.ConfigOpts) -> Sequence[service.Service]:
        seen.append(conf.consoleauth.token_ttl)
        return [Recorder("a", calls)]

    when_ready(signal.SIGTERM)
    assert run_main(build) == 0
    assert (seen, calls) == ([600], ["start a", "stop a"])


def test_main_refuses_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(lambda _: [], "--config-file", "/nonexistent/porthole.conf") == service.EXIT_CONFIG
    assert "/nonexistent/porthole.conf" in capsys.readouterr().err


def test_main_refuses_what_build_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    def build(conf: cfg.ConfigOpts) -> Sequence[service.Service]:
        raise errors.ConfigInvalid("[memcache] servers", "empty")

    assert run_main(build) == service.EXIT_CONFIG
    assert "porthole-test: [memcache] servers: empty\n" in capsys.readouterr().err


def test_a_thread_that_does_not_end_holds_the_process_only_so_long() -> None:
    """It is the whole process that ends, so the test has one; without the limit it would wait for the thread."""
    script = """
import sys, threading, time
from oslo_config import cfg
from porthole_common import service
service.EXIT_TIMEOUT_S = 0.2

def stay():
    time.sleep(60)

def serve(conf):
    threading.Thread(target=stay).start()
    return 0

sys.argv[1:] = []
sys.exit(service.launch("p", serve, None, cfg.ConfigOpts(), default_config_files=[], default_config_dirs=[]))
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert "in stay" in ended.stderr


def in_turn(*answers: Any, last: Callable[[], object] = lambda: None) -> Callable[[], Any]:
    """Return a function that gives ``answers`` one after the other, and calls ``last`` with the last of them."""
    left = list(answers)

    def answer() -> Any:
        if len(left) == 1:
            last()
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def end() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_readiness_waits_for_every_service(told: list[str], when_ready: Callable[..., None]) -> None:
    when_ready(signal.SIGTERM)
    slow = Recorder("a", [], waits_for=in_turn("the broker", "the broker", ""))
    other = Recorder("b", [], waits_for=in_turn("libvirt", ""))
    assert service.run("p", [slow, other]) == 0
    # The second and third time nothing is said again, so soon after the first.
    assert told == [
        "STATUS=waits for the broker, libvirt\nEXTEND_TIMEOUT_USEC=30000000",
        "READY=1\nSTATUS=serving",
        "STOPPING=1\nSTATUS=ending\nEXTEND_TIMEOUT_USEC=2000000",
    ]


def test_a_service_that_waits_can_be_told_to_reload_and_to_end(told: list[str]) -> None:
    calls: list[str] = []
    signals = iter([signal.SIGHUP, signal.SIGTERM])

    def waits_for() -> str:
        signal.raise_signal(next(signals))
        return "the broker"

    assert service.run("p", [Recorder("a", calls, waits_for=waits_for)]) == 0
    assert calls == ["start a", "reload a", "stop a"]
    assert not any("READY" in state for state in told)


def test_signs_of_life_go_on(told: list[str]) -> None:
    service.run("p", [Recorder("a", [], is_alive=in_turn(True, True, True, last=end))])
    assert told[1:4] == ["WATCHDOG=1"] * 3


def test_no_sign_of_life_while_one_service_is_stuck(told: list[str], caplog: pytest.LogCaptureFixture) -> None:
    alive = Recorder("a", [], is_alive=in_turn(True, True, True, True, last=end))
    stuck = Recorder("b", [], is_alive=in_turn(False, False, True, False))
    service.run("p", [alive, stuck])
    assert told[1:-1] == ["WATCHDOG=1"]
    assert "program=b\n" in caplog.text


def test_a_reload_is_told(told: list[str], when_ready: Callable[..., None]) -> None:
    when_ready(signal.SIGHUP, signal.SIGTERM)
    service.run("p", [Recorder("a", [])])
    assert [state.split("\n")[0] for state in told] == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_old_and_unknown_options_are_in_the_log_that_the_same_file_sets_up(tmp_path: Path) -> None:
    """oslo.config names an old option once in a process, while it reads the file, so before there is a log."""
    path, log_file = tmp_path / "porthole.conf", tmp_path / "porthole.log"
    path.write_text(f"[DEFAULT]\nlog_file = {log_file}\n[api]\nrpc_timeout = 4\nbind_prot = 1\n", encoding="utf-8")
    program = (
        "from oslo_config import cfg; from porthole_common import service;"
        f"service.launch('p', lambda conf: print(conf.rpc.call_timeout) or 0, ['--config-file={path}'], cfg.CONF)"
    )
    argv = [sys.executable, "-W", "ignore", "-c", program]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert (ended.stdout, ended.stderr) == ("4\n", "")
    old, unknown = log_file.read_text(encoding="utf-8").splitlines()
    assert 'Deprecated: Option "rpc_timeout" from group "api" is deprecated.' in old
    assert f'Unknown option ignored option="[api] bind_prot" file={path} line=5 nearest="[api] bind_port"' in unknown
