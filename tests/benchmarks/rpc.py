# SPDX-License-Identifier: Apache-2.0
"""What consoleauth costs beside a bare call of oslo.messaging as it comes: same broker, same run, a process each.

Bare means without Porthole's port and its defaults: what the deadline and the single connection cost shows too. The
bare method returns its argument, a connect_info.
"""

import contextlib
import multiprocessing
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from oslo_config import cfg

from benchmarks.table import Row, median
from porthole_common.context import build_daemon_context
from porthole_common.model import ConnectInfo, ConsoleType
from porthole_common.rpc import Rpc, Target
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from support.bus import parse_global_conf
from support.daemons import Porthole
from support.memcached import Memcached
from support.rabbitmq import RabbitMQ

TOPIC = "bench-bare"
VERSION = "1.0"
TIMEOUT_S = 10
ROUNDS = 5
CALLS = 200
CLIENTS = 8
_SPAWN = multiprocessing.get_context("spawn")


class BareEndpoint:
    """Answers at once."""

    target = Target(version=VERSION)

    def echo(self, context: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        """Return ``value``."""
        return value


def run() -> list[Row]:
    """Return p50 of one client and the rate of eight, beside bare calls."""
    with _servers() as url, _calls(url) as calls:
        alone: dict[str, list[float]] = {name: [] for name in calls}
        together: dict[str, list[float]] = {name: [] for name in calls}
        # In turns, so that a machine that slows down meanwhile does so for all of them.
        for _ in range(ROUNDS):
            for name, call in calls.items():
                alone[name].append(median([_time_ms(call) for _ in range(CALLS)]))
                together[name].append(_rate(call))
    p50 = {name: median(values) for name, values in alone.items()}
    rate = {name: median(values) for name, values in together.items()}
    bare = p50["bare call"]
    both = p50["authorize_console"] + p50["check_token"]
    return [
        *(Row(f"{name}, p50, one client", value, "ms", "a bare call", bare) for name, value in p50.items()),
        Row("authorize and check, p50, one client", both, "ms", "two bare calls", 2 * bare),
        *(
            Row(f"{name}, {CLIENTS} clients", value, "/s", "bare calls", rate["bare call"])
            for name, value in rate.items()
        ),
    ]


@contextlib.contextmanager
def _servers() -> Iterator[str]:
    """Run a broker, a store, consoleauth as operators run it (no DEBUG), and the bare server; yield the bus's URL."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        rabbitmq = stack.enter_context(RabbitMQ(directory / "rabbitmq"))
        memcached = stack.enter_context(Memcached())
        quiet = {"DEFAULT": {"debug": False}}
        stack.enter_context(
            Porthole(directory / "porthole", rabbitmq, memcached, daemons=["consoleauth"], options=quiet)
        )
        ready = _SPAWN.Event()
        server = _SPAWN.Process(target=_serve, args=(rabbitmq.transport_url, ready), daemon=True)
        server.start()
        stack.callback(server.join)
        stack.callback(server.kill)
        assert ready.wait(60), "the bare server did not start"
        yield rabbitmq.transport_url


def _serve(url: str, ready: Event) -> None:
    import oslo_messaging

    parse_global_conf()
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
    target = oslo_messaging.Target(topic=TOPIC, server="bench")
    oslo_messaging.get_rpc_server(transport, target, [BareEndpoint()]).start()
    ready.set()
    time.sleep(3600)


@contextlib.contextmanager
def _calls(url: str) -> Iterator[dict[str, Callable[[], object]]]:
    """Yield what is measured, by name."""
    import oslo_messaging

    parse_global_conf()
    # First, since Porthole's Rpc gives oslo.messaging's options other defaults.
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
    bare = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=TOPIC, version=VERSION), timeout=TIMEOUT_S
    )
    rpc = Rpc(cfg.CONF, TIMEOUT_S, transport_url=url)
    port, consoleauth = rpc.get_client(TOPIC, VERSION), ConsoleAuthAPI(rpc)
    context, info = build_daemon_context(), _new_info()
    plain, value, token = context.to_dict(), info.to_primitive(), str(info.token)
    consoleauth.authorize_console(context, info)
    yield {
        "bare call": lambda: bare.call(plain, "echo", value=value),
        "call with a deadline": lambda: port.call(context, "echo", value=value),
        "authorize_console": lambda: consoleauth.authorize_console(context, _new_info()),
        "check_token": lambda: consoleauth.check_token(context, token),
    }
    rpc.close()
    transport.cleanup()


def _new_info() -> ConnectInfo:
    """Return a connect_info of ordinary size, of an instance of its own."""
    token = str(uuid.uuid4())
    return ConnectInfo(
        instance_uuid=str(uuid.uuid4()),
        console_type=ConsoleType.NOVNC,
        host="192.0.2.1",
        port=5901,
        access_url=f"http://proxy.example.org:6080/console.html?path=%3Ftoken%3D{token}",
        compute_host="host1.example.org",
        token=token,
    )


def _time_ms(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


def _rate(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in pool.map(lambda _: call(), range(CALLS)):
            pass
    return CALLS / (time.perf_counter() - begin)
