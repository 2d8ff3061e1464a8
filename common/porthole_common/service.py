# SPDX-License-Identifier: Apache-2.0
"""The life of a process: configuration, logging, signals, readiness, signs of life, an orderly end.

Why: the four daemons differ only in their services. Each ``main.py`` builds its :class:`Service` and hands it to
:func:`main`; ``porthole standalone`` hands over all four. Daemons use threads, not eventlet. A second SIGTERM or SIGINT
ends the process at once.

The main thread handles the signals. It also pings systemd's watchdog, after it has asked each service whether it is
alive. So the pings stop when the main thread, the process or the loop of a service is stuck.
"""

import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Protocol

from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import config_faults, early_sighup, errors, log, metrics_server
from porthole_common.log import get_logger
from porthole_common.signals import Signals
from porthole_common.systemd import SystemdNotifier
from porthole_common.unknown_options import warn_of_unknown_options

LOG = get_logger(__name__)
# sysexits.h EX_CONFIG: a unit file can tell a wrong configuration from a crash.
EXIT_CONFIG = 78
EXIT_FAILED = 1
# How long the interpreter may take to end after all services have stopped: a library's thread may hang.
EXIT_TIMEOUT_S = 10.0
# How long stop() may take where nothing is drained: a broker that does not answer delays the end of its connections.
STOP_TIMEOUT_S = 30.0
# Seconds between two looks at a service that is not ready.
_READINESS_POLL_S = 0.1
# The logger that names each deprecated option of a file.
_CONFIG_LOGGER = "oslo_config.cfg"


class _StartInterrupted(BaseException):
    """A signal to end came while a service was starting, which may wait for a broker that is away."""


class Service(Protocol):
    """One daemon inside a process. All methods are called from the main thread, one at a time.

    A class that inherits from this one defines only the methods in which it differs: ready at once, alive, nothing to
    reread, nothing to release.
    """

    name: str
    # How long stop() may take, in seconds: the value for systemd.
    stop_timeout_s: float = STOP_TIMEOUT_S

    def start(self) -> None:
        """Begin to serve.

        :raises ConfigInvalid: when the service cannot start with the value of an option.
        :raises AddressUnavailable: when it cannot listen yet; systemd starts the daemon again.
        """
        return

    def waits_for(self) -> str:
        """Return what the started service still waits for; "" once it is ready."""
        return ""

    def is_alive(self) -> bool:
        """Whether the service's threads have made progress since the last call; returns at once.

        An outage elsewhere does not count: a restart would not mend it.
        """
        return True

    def reload(self) -> None:
        """Reread what can change while running (SIGHUP). A bad value is logged, and the old one stays."""
        return

    def stop(self) -> None:
        """Stop serving and release everything; also called after a ``start`` that failed half way."""
        return


def main(
    program: str,
    build: Callable[[cfg.ConfigOpts], Sequence[Service]],
    argv: Sequence[str] | None,
    conf: cfg.ConfigOpts,
    **parse_overrides: Any,
) -> int:
    """Run the services that ``build`` makes from the configuration until a signal; return the exit status.

    For the other parameters and the exit status see :func:`launch`.
    """

    def serve(parsed: cfg.ConfigOpts) -> int:
        services = build(parsed)
        # Behind the build, since a standalone has options of its own.
        daemon = program.removeprefix("porthole")[1:]
        return run(program, [*metrics_server.build_servers(parsed, daemon), *services])

    return launch(program, serve, argv, conf, **parse_overrides)


def launch(
    program: str,
    serve: Callable[[cfg.ConfigOpts], int],
    argv: Sequence[str] | None,
    conf: cfg.ConfigOpts,
    **parse_overrides: Any,
) -> int:
    """Parse the configuration, set up logging, and return what ``serve`` returns.

    ``parse_overrides`` are oslo.config's (``default_config_files``, ...), for a program that reads other files.

    The status is 0 after a signal, and 78 for a configuration that only an edit mends (one line on stderr names the
    option). It is 1 when a service failed to start, such as at an address that is in use. Without ``argv`` the process
    must end within EXIT_TIMEOUT_S after this call; otherwise stderr shows each thread's stack, and the status is 1.
    """
    # The watchdog ends a stuck process by SIGABRT; then stderr shows the stack of each thread.
    faulthandler.enable(file=2)
    try:
        return _launch(program, serve, argv, conf, **parse_overrides)
    finally:
        if argv is None:
            faulthandler.dump_traceback_later(EXIT_TIMEOUT_S, exit=True)


def _launch(
    program: str,
    serve: Callable[[cfg.ConfigOpts], int],
    argv: Sequence[str] | None,
    conf: cfg.ConfigOpts,
    **parse_overrides: Any,
) -> int:
    early_sighup.take()
    try:
        with log.held_back(_CONFIG_LOGGER) as deprecations:
            porthole_conf.parse(conf, program, argv, **parse_overrides)
        log.setup(conf, program)
        log.release(deprecations)
        warn_of_unknown_options(conf)
    except (cfg.Error, errors.ConfigInvalid, OSError) as exc:
        refused: Exception = exc
    else:
        try:
            return serve(conf)
        except (cfg.Error, errors.ConfigInvalid) as exc:
            refused = exc
        except errors.PortholeError as exc:
            return _fail(program, exc)
    return _refuse(program, refused)


def run(program: str, services: Sequence[Service]) -> int:
    """Start ``services`` in order, wait for SIGTERM or SIGINT, stop them in reverse; return the exit status."""
    events = Signals()
    notifier = SystemdNotifier()
    starting = True

    def handle_signal(number: int, _frame: FrameType | None) -> None:
        if starting and number != signal.SIGHUP:
            raise _StartInterrupted
        events.put(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handle_signal)
    if early_sighup.take():
        events.put(signal.SIGHUP)
    started: list[Service] = []
    status = 0
    try:
        for service in services:
            started.append(service)
            service.start()
        starting = False
        if _await_readiness(program, services, events, notifier):
            _serve(program, services, events, notifier)
    except _StartInterrupted:
        LOG.info("Daemon stopped before it was ready", program=program)
    except (cfg.Error, errors.ConfigInvalid) as exc:
        status = _refuse(program, exc)
    except errors.PortholeError as exc:
        status = _fail(program, exc)
    LOG.info("Daemon stopping", program=program, status=status)
    notifier.stopping(sum(service.stop_timeout_s for service in started))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(EXIT_FAILED))
    for service in reversed(started):
        service.stop()
    events.close()
    return status


def _await_readiness(program: str, services: Sequence[Service], events: Signals, notifier: SystemdNotifier) -> bool:
    """Wait until every service is ready, and tell systemd; return False when a signal to end comes first."""
    said = ""
    while awaited := ", ".join(filter(None, (service.waits_for() for service in services))):
        if awaited != said:
            LOG.warning("Daemon not ready", program=program, waits_for=awaited)
            said = awaited
        notifier.wait_for(awaited)
        number = events.get(_READINESS_POLL_S)
        if number == signal.SIGHUP:
            _reload(program, services)
        elif number is not None:
            return False
    LOG.info("Daemon ready", program=program)
    notifier.ready()
    return True


def _serve(program: str, services: Sequence[Service], events: Signals, notifier: SystemdNotifier) -> None:
    """Ping the watchdog, and reload at each SIGHUP, until another signal comes."""
    while True:
        number = events.get(notifier.ping_interval_s)
        if number is None:
            # Every service is asked, since its next answer is about the time since this one.
            silent = [service.name for service in services if not service.is_alive()]
            if silent:
                LOG.error("Daemon blocked; no watchdog ping sent", program=",".join(silent))
            else:
                notifier.ping()
        elif number == signal.SIGHUP:
            notifier.reloading()
            _reload(program, services)
            notifier.ready()
        else:
            return


def _reload(program: str, services: Sequence[Service]) -> None:
    """Have each service reread. A fault of one must not end the process."""
    LOG.info("Configuration reload started", program=program)
    for service in services:
        try:
            service.reload()
        except Exception:
            LOG.exception("Configuration reload failed; the old values stay in use", program=service.name)


def _refuse(program: str, exc: Exception) -> int:
    """Report the reason once: on standard error, and in the log where the log is elsewhere or JSON."""
    reason = config_faults.explain(exc)
    if not log.is_plain_console():
        LOG.error("Daemon cannot start with its configuration", program=program, reason=reason)
    if not log.is_json_console():
        sys.stderr.write(f"{program}: {reason}\n")
    return EXIT_CONFIG


def _fail(program: str, exc: errors.PortholeError) -> int:
    """Report once, as :func:`_refuse` does, why the daemon cannot start now."""
    if not log.is_plain_console():
        LOG.error("Daemon cannot start", program=program, reason=exc)
    if not log.is_json_console():
        sys.stderr.write(f"{program}: {exc}\n")
    return EXIT_FAILED
