# SPDX-License-Identifier: Apache-2.0
"""A healthy cloud as the doctor sees it, and a bus to ask it by: for a test to break in one thing."""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from porthole_cli.doctor.facts import Daemons, Described, DialResult
from porthole_cli.doctor.finding import Finding
from porthole_common import errors
from porthole_common.diagnosis import Reach
from porthole_common.discovery import DaemonProcess
from porthole_common.model import ConnectInfo, Target, TokenReason
from support.descriptions import NOW, make_api, make_host, make_proxy, make_store

# Where the screen of the one instance is.
SCREEN = Target("192.0.2.11", 5900)


def make_presence(daemon: str, host: str = "controller", number: int = 1) -> DaemonProcess:
    return DaemonProcess(daemon, host, f"{host}-{number}", f"{daemon}-{host}-{number}")


def described(daemon: str, description: Any, number: int = 1) -> Described[Any]:
    """One that was asked and answered at :data:`NOW`, a tenth of a second either way."""
    presence = make_presence(daemon, description.vitals.host, number)
    return Described(presence, description, NOW - timedelta(seconds=0.1), NOW + timedelta(seconds=0.1))


def make_daemons(
    *,
    apis: Sequence[Any] | None = None,
    computes: Sequence[Any] | None = None,
    stores: Sequence[Any] | None = None,
    proxies: Sequence[Any] | None = None,
) -> Daemons:
    """One of each, in order; whatever is given stands in place of the one."""
    found = Daemons()
    found.apis = [described("api", each, n) for n, each in enumerate([make_api()] if apis is None else apis)]
    found.computes = [
        described("compute", each, n) for n, each in enumerate([make_host()] if computes is None else computes)
    ]
    found.stores = [
        described("consoleauth", each, n) for n, each in enumerate([make_store()] if stores is None else stores)
    ]
    found.proxies = [
        described("novncproxy", each, n) for n, each in enumerate([make_proxy()] if proxies is None else proxies)
    ]
    found.presences = [presence for presence, *_ in found.list_described()]
    kinds = ("api", "compute", "consoleauth", "novncproxy")
    found.consumers = {kind: sum(each.daemon == kind for each in found.presences) for kind in kinds}
    return found


def reached(target: Target = SCREEN, problem: str = "", types: tuple[int, ...] = (1,)) -> DialResult:
    return DialResult("controller", "compute1", (Reach(target, problem, () if problem else types),))


def ids(findings: Sequence[Finding]) -> list[str]:
    return [str(each.id) for each in findings]


class FakeBus:
    """A :class:`porthole_cli.doctor.bus.Bus` over the descriptions of ``found``.

    ``stores`` holds the tokens that each consoleauth knows, by server; one dictionary in two of them is one memcached.
    ``failing`` names methods that raise :attr:`error`; ``stuck`` those that return only once the bus is closed.
    """

    def __init__(self, found: Daemons, clock: Callable[[], datetime] = lambda: NOW) -> None:
        self.found = found
        shared: dict[str, str] = {}
        self.stores = {store.presence.server: shared for store in found.stores}
        self.failing: set[str] = set()
        self.stuck: set[str] = set()
        self.error: errors.PortholeError = errors.RpcUnavailable("compute", "x")
        self.calls: list[str] = []
        self.authorized: list[ConnectInfo] = []
        self.refusing: set[Target] = set()
        self._closed = threading.Event()
        everybody: list[Described[Any]] = [*found.apis, *found.computes, *found.stores, *found.proxies]
        self._descriptions = {each.presence: each.description for each in everybody}

    def _enter(self, method: str) -> None:
        self.calls.append(method)
        if method in self.stuck:
            self._closed.wait(30)
        if method in self.failing:
            raise self.error

    def discover(self, expected: Mapping[str, int]) -> list[DaemonProcess]:
        self._enter("discover")
        return self.found.presences

    def describe(self, presence: DaemonProcess) -> Any:
        self._enter(f"describe {presence.daemon}")
        return self._descriptions[presence]

    def dial(self, proxy: DaemonProcess, targets: Sequence[Target]) -> list[Reach]:
        self._enter("dial")
        return [Reach(each, "refused") if each in self.refusing else Reach(each, "", (1,)) for each in targets]

    def authorize(self, connect_info: ConnectInfo) -> None:
        self._enter("authorize")
        self.authorized.append(connect_info)
        first = next(iter(self.stores.values()))
        first[str(connect_info.token)] = connect_info.instance_uuid

    def check(self, token: str, server: str) -> None:
        self._enter("check")
        if token not in self.stores[server]:
            raise errors.TokenInvalid(TokenReason.UNKNOWN)

    def revoke(self, instance_uuid: str, server: str) -> None:
        self._enter("revoke")
        for token in [token for token, uuid in self.stores[server].items() if uuid == instance_uuid]:
            del self.stores[server][token]

    def close(self) -> None:
        self._closed.set()
        self.calls.append("close")
