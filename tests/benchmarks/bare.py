# SPDX-License-Identifier: Apache-2.0
"""The least that has to be done: a call of oslo.messaging as it comes, to a process that answers at once.

Bare means without Porthole's port to oslo.messaging and its defaults, so that what the deadline and the single
connection cost shows too.
"""

import concurrent.futures
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from typing import Any

# Porthole's own port chooses oslo.service's threading backend, which must come before oslo.messaging.
import porthole_common.rpc  # isort: skip
import oslo_messaging
from oslo_config import cfg

from support.bus import parse_global_conf

TOPIC = "bench-bare"
VERSION = "1.0"
TIMEOUT_S = 10
CLIENTS = 8
_RATE_CALLS = 400
_SPAWN = multiprocessing.get_context("spawn")


class BareEndpoint:
    """Answers at once."""

    target = porthole_common.rpc.RpcTarget(version=VERSION)

    def echo(self, context: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        """Return ``value``."""
        return value


@contextlib.contextmanager
def serve(transport_url: str) -> Iterator[None]:
    """Run the server, in a process of its own."""
    ready = _SPAWN.Event()
    server = _SPAWN.Process(target=_serve, args=(transport_url, ready), daemon=True)
    server.start()
    try:
        assert ready.wait(60), "the bare server did not start"
        yield
    finally:
        server.kill()
        server.join(60)


def _serve(transport_url: str, ready: Event) -> None:
    parse_global_conf()
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=transport_url)
    target = oslo_messaging.Target(topic=TOPIC, server="bench")
    oslo_messaging.get_rpc_server(transport, target, [BareEndpoint()], executor="threading").start()
    ready.set()
    time.sleep(3600)


@contextlib.contextmanager
def client(transport_url: str) -> Iterator[Callable[[dict[str, Any]], object]]:
    """Yield the call: it takes a dictionary and returns it.

    Made before any Rpc of this process, which gives oslo.messaging's options other defaults.
    """
    parse_global_conf()
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=transport_url)
    target = oslo_messaging.Target(topic=TOPIC, version=VERSION)
    bare = oslo_messaging.get_rpc_client(transport, target, timeout=TIMEOUT_S)
    yield lambda value: bare.call({}, "echo", value=value)
    transport.cleanup()


def time_ms(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def rate(call: Callable[[], object]) -> float:
    """Return how often a second ``CLIENTS`` threads together can."""
    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        for _ in pool.map(lambda _: call(), range(_RATE_CALLS)):
            continue
    return _RATE_CALLS / (time.perf_counter() - begun)
