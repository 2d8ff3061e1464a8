# SPDX-License-Identifier: Apache-2.0
"""What the running daemons are asked to do: describe themselves, dial VNC servers, and take a token through its life.

Why together: each of these is a round of questions, all asked at once under one deadline, and a daemon that fails one
of them is noted as such. What the answers mean is decided elsewhere. Called by :mod:`examination`.
"""

import functools
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from porthole_cli.doctor import displays, tokens
from porthole_cli.doctor.bus import CALL_TIMEOUT_S, Bus
from porthole_cli.doctor.facts import Daemons, Described, DialResult, TokenCheck, Undescribed, UrlCheck
from porthole_cli.doctor.parallel import NotDone, gather
from porthole_common import errors
from porthole_common.diagnosis import HostDescription, ProxyDescription
from porthole_common.discovery import DaemonProcess

# One round of RPCs, and a moment for a question that waited for a thread.
ROUND_S = CALL_TIMEOUT_S + 1.0


def describe_daemons(bus: Bus, found: Daemons, clock: Callable[[], datetime]) -> None:
    """Ask every process of ``found`` for its description, all at once, and fill them in.

    ``clock`` returns the aware time of the doctor's host.
    """
    kinds: dict[str, list[Any]] = {
        "api": found.apis,
        "compute": found.computes,
        "consoleauth": found.stores,
        "novncproxy": found.proxies,
    }

    def ask(presence: DaemonProcess) -> Described[Any]:
        asked_at = clock()
        description = bus.describe(presence)
        return Described(presence, description, asked_at, clock())

    asked = [presence for presence in found.presences if presence.daemon in kinds]
    answers = gather([functools.partial(ask, each) for each in asked], ROUND_S)
    for presence, answer in zip(asked, answers, strict=True):
        if isinstance(answer, Described):
            kinds[presence.daemon].append(answer)
        else:
            found.undescribed.append(Undescribed(presence, isinstance(answer, errors.RemoteFailure)))


def dial_displays(bus: Bus, found: Daemons) -> tuple[list[DialResult], list[str]]:
    """Have one proxy of each host dial the VNC servers of each compute.

    Return the results, and the compute hosts whose VNC servers could not be dialled in time.
    """
    # The workers of one host reach the same addresses, so one of them is enough.
    proxies = {proxy.presence.host: proxy for proxy in found.proxies}
    pairs: list[tuple[Described[ProxyDescription], Described[HostDescription]]] = []
    pairs += [(proxy, compute) for proxy in proxies.values() for compute in found.computes]

    def ask(proxy: Described[ProxyDescription], compute: Described[HostDescription]) -> DialResult:
        targets = displays.choose_targets(compute.description, proxy.description)
        reaches = tuple(bus.dial(proxy.presence, targets)) if targets else ()
        return DialResult(proxy.presence.host, compute.presence.host, reaches)

    answers = gather([functools.partial(ask, *pair) for pair in pairs], ROUND_S * 2)
    # In a large cloud of which much is broken, time runs out; the proxies are not to blame.
    late = {compute.presence.host for (_, compute), answer in zip(pairs, answers, strict=True) if _is_late(answer)}
    for (proxy, _), answer in zip(pairs, answers, strict=True):
        failed = not isinstance(answer, DialResult) and not _is_late(answer)
        if failed and all(each.presence != proxy.presence for each in found.undescribed):
            found.undescribed.append(Undescribed(proxy.presence, is_old=False))
    return [answer for answer in answers if isinstance(answer, DialResult)], sorted(late)


def check_urls(
    bus: Bus, found: Daemons, urls: Iterable[str], own_host: str, check_url: Callable[[str, str], UrlCheck]
) -> tuple[TokenCheck, list[UrlCheck]]:
    """Take a token through its life, and meanwhile call ``check_url`` with each of ``urls`` and the token.

    ``own_host`` is named in the token when no compute can answer for its instance; the URLs are not checked then.
    """
    if not found.stores:
        return TokenCheck(), []
    urls = list(urls)
    compute_host = choose_compute(found)
    checks: list[UrlCheck] = []

    def use_token(token: str) -> None:
        if found.proxies and compute_host:
            answers = gather([functools.partial(check_url, url, token) for url in urls], ROUND_S * 2)
            checks.extend(answer for answer in answers if isinstance(answer, UrlCheck))

    stores_by_host = {store.presence.host: store.presence for store in found.stores}
    result = tokens.check_token(bus, list(stores_by_host.values()), compute_host or own_host, urls[0], use_token)
    return result, checks


def choose_compute(found: Daemons) -> str:
    """Return the host that the proxies ask for the instance of a token; "" when no compute could answer them."""
    return next((each.presence.host for each in found.computes if not each.description.refusal), "")


def _is_late(answer: object) -> bool:
    return isinstance(answer, NotDone)
