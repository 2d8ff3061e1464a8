# SPDX-License-Identifier: Apache-2.0
"""The facts of an examination, before they are judged.

Why apart from the judges: the ports fill these in, and every finding follows from them alone, so that every fault is a
unit test without a network. Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, Generic, TypeVar

from porthole_common.diagnosis import (
    ApiDescription,
    CertificateDates,
    HostDescription,
    ProxyDescription,
    Reach,
    StoreDescription,
    Vitals,
)
from porthole_common.discovery import DaemonProcess

Description = TypeVar("Description", ApiDescription, HostDescription, ProxyDescription, StoreDescription)


@dataclass(frozen=True)
class Described(Generic[Description]):
    """A process that described itself, from ``asked_at`` to ``answered_at`` by the doctor's clock."""

    presence: DaemonProcess
    description: Description
    asked_at: datetime
    answered_at: datetime

    @property
    def vitals(self) -> Vitals:
        """The vitals of the process."""
        return self.description.vitals


@dataclass(frozen=True)
class Undescribed:
    """A process that answered discovery and did not describe itself; ``is_old`` when its version cannot do so."""

    presence: DaemonProcess
    is_old: bool


@dataclass
class Daemons:
    """The daemons on the bus.

    ``presences`` are the processes that answered discovery. ``consumers`` is how many processes the broker counts, by
    daemon; empty when it cannot say. The other lists hold the processes by daemon, or those that did not describe
    themselves.
    """

    presences: list[DaemonProcess] = field(default_factory=list)
    consumers: dict[str, int] = field(default_factory=dict)
    apis: list[Described[ApiDescription]] = field(default_factory=list)
    computes: list[Described[HostDescription]] = field(default_factory=list)
    stores: list[Described[StoreDescription]] = field(default_factory=list)
    proxies: list[Described[ProxyDescription]] = field(default_factory=list)
    undescribed: list[Undescribed] = field(default_factory=list)

    def list_described(self) -> Iterator[tuple[DaemonProcess, Vitals, datetime, datetime]]:
        """Yield ``(presence, vitals, asked_at, answered_at)`` of every process that described itself."""
        kinds: tuple[Sequence[Described[Any]], ...] = (self.apis, self.computes, self.stores, self.proxies)
        for process in chain.from_iterable(kinds):
            yield process.presence, process.vitals, process.asked_at, process.answered_at


@dataclass(frozen=True)
class DialResult:
    """How one proxy fared with the VNC servers of one compute host; ``reaches`` is None when it did not answer."""

    proxy_host: str
    compute_host: str
    reaches: tuple[Reach, ...] | None


@dataclass(frozen=True)
class UrlCheck:
    """What a browser on the doctor's host would meet at one base URL.

    ``problem`` is why no request could be made, or "". ``page_status`` and ``upgrade_status`` are HTTP statuses, None
    without an HTTP answer. ``certificate`` is the served one; ``mistrust`` is why this host does not trust it, or "".
    """

    url: str
    problem: str = ""
    certificate: CertificateDates | None = None
    mistrust: str = ""
    page_status: int | None = None
    upgrade_status: int | None = None


@dataclass
class TokenCheck:
    """The life of a token: authorized once, then checked, revoked and checked again at every consoleauth.

    ``refusal`` is why the token could not be authorized, or "". ``before`` and ``after`` the revocation map the host of
    each consoleauth to whether it knew the token (True, False), or to the reason why it could not say.
    """

    refusal: str = ""
    before: dict[str, bool | str] = field(default_factory=dict)
    after: dict[str, bool | str] = field(default_factory=dict)
