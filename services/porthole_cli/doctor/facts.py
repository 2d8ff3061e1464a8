# SPDX-License-Identifier: Apache-2.0
"""What an examination brings home, before anybody judges it.

Why apart from the judging: the ports fill these in, and what is wrong follows from them alone, so that every fault is
a unit test without a network. Pure.
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
class Heard(Generic[Description]):
    """One process's description; the doctor's clock showed ``asked_at`` before the question, ``heard_at`` after it."""

    presence: DaemonProcess
    description: Description
    asked_at: datetime
    heard_at: datetime

    @property
    def vitals(self) -> Vitals:
        """The process's."""
        return self.description.vitals


@dataclass(frozen=True)
class Mute:
    """A process that answered the roll call and could not be asked further: ``is_old`` when its version cannot say."""

    presence: DaemonProcess
    is_old: bool


@dataclass
class Daemons:
    """Who is on the bus. ``consumers`` is how many processes the broker counts, by daemon; empty when it cannot say."""

    presences: list[DaemonProcess] = field(default_factory=list)
    consumers: dict[str, int] = field(default_factory=dict)
    apis: list[Heard[ApiDescription]] = field(default_factory=list)
    computes: list[Heard[HostDescription]] = field(default_factory=list)
    stores: list[Heard[StoreDescription]] = field(default_factory=list)
    proxies: list[Heard[ProxyDescription]] = field(default_factory=list)
    mute: list[Mute] = field(default_factory=list)

    def list_heard(self) -> Iterator[tuple[DaemonProcess, Vitals, datetime, datetime]]:
        """Yield who was heard, of every kind."""
        kinds: tuple[Sequence[Heard[Any]], ...] = (self.apis, self.computes, self.stores, self.proxies)
        for heard in chain.from_iterable(kinds):
            yield heard.presence, heard.vitals, heard.asked_at, heard.heard_at


@dataclass(frozen=True)
class Dialled:
    """What one proxy met at the VNC servers of one compute host; ``reaches`` is None when it did not answer."""

    proxy_host: str
    compute_host: str
    reaches: tuple[Reach, ...] | None


@dataclass(frozen=True)
class Door:
    """What a browser's way in through one base URL looks like from where the doctor runs.

    ``problem`` is why nothing could be asked, or "". ``page_status`` and ``upgrade_status`` are HTTP statuses, None
    when there was no answer. ``certificate`` is what was served; ``mistrust`` why it is not trusted here, or "".
    """

    url: str
    problem: str = ""
    certificate: CertificateDates | None = None
    mistrust: str = ""
    page_status: int | None = None
    upgrade_status: int | None = None


@dataclass
class TokenTrip:
    """A token's life at every consoleauth, by host: authorized once, checked, revoked and checked again everywhere.

    ``refusal`` is why it could not be authorized, or "". ``before`` and ``after`` say of each consoleauth whether it
    knew the token (True, False), or why it could not say.
    """

    refusal: str = ""
    before: dict[str, bool | str] = field(default_factory=dict)
    after: dict[str, bool | str] = field(default_factory=dict)
