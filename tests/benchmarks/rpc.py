# SPDX-License-Identifier: Apache-2.0
"""What consoleauth costs beside a bare call of oslo.messaging as it comes: same broker, same run, a process each.

The bare method returns its argument, a connect_info.
"""

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from oslo_config import cfg

from benchmarks import bare
from benchmarks.table import Row, median
from porthole_common.context import build_daemon_context
from porthole_common.model import ConnectInfo, ConsoleType
from porthole_common.rpc import Rpc
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from support.daemons import Porthole
from support.memcached import Memcached
from support.rabbitmq import RabbitMQ

ROUNDS = 5
CALLS = 200


def run() -> list[Row]:
    """Return p50 of one client and the rate of eight, beside bare calls."""
    with _servers() as url, _calls(url) as calls:
        alone: dict[str, list[float]] = {name: [] for name in calls}
        together: dict[str, list[float]] = {name: [] for name in calls}
        # In turns, so that a machine that slows down meanwhile does so for all of them.
        for _ in range(ROUNDS):
            for name, call in calls.items():
                alone[name].append(median([bare.time_ms(call) for _ in range(CALLS)]))
                together[name].append(bare.rate(call))
    p50 = {name: median(values) for name, values in alone.items()}
    rate = {name: median(values) for name, values in together.items()}
    one = p50["bare call"]
    both = p50["authorize_console"] + p50["check_token"]
    return [
        *(Row(f"{name}, p50, one client", value, "ms", "a bare call", one) for name, value in p50.items()),
        Row("authorize and check, p50, one client", both, "ms", "two bare calls", 2 * one),
        *(
            Row(f"{name}, {bare.CLIENTS} clients", value, "/s", "bare calls", rate["bare call"])
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
        stack.enter_context(bare.serve(rabbitmq.transport_url))
        yield rabbitmq.transport_url


@contextlib.contextmanager
def _calls(url: str) -> Iterator[dict[str, Callable[[], object]]]:
    """Yield what is measured, by name."""
    with bare.client(url) as call:
        rpc = Rpc(cfg.CONF, bare.TIMEOUT_S, transport_url=url)
        port, consoleauth = rpc.get_client(bare.TOPIC, bare.VERSION), ConsoleAuthAPI(rpc)
        context, info = build_daemon_context(), _new_info()
        value, token = info.to_primitive(), str(info.token)
        consoleauth.authorize_console(context, info)
        yield {
            "bare call": lambda: call(value),
            "call with a deadline": lambda: port.call(context, "echo", value=value),
            "authorize_console": lambda: consoleauth.authorize_console(context, _new_info()),
            "check_token": lambda: consoleauth.check_token(context, token),
        }
        rpc.close()


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
