# SPDX-License-Identifier: Apache-2.0
"""A token's life through the real daemons: authorized, known, used at the doors, revoked, and known no more.

Why: every part can say that it is well, and a console not open. The token is for an instance that there is none of, so
it opens nothing at any moment; it is revoked at every consoleauth, whatever happens before, and would die by itself.
Called by :mod:`examination`.
"""

import uuid
from collections.abc import Callable, Sequence

from porthole_cli.doctor import finding
from porthole_cli.doctor.bus import Bus
from porthole_cli.doctor.facts import TokenTrip
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_common import errors
from porthole_common.discovery import DaemonProcess
from porthole_common.model import ConnectInfo, ConsoleType


def travel(
    bus: Bus,
    stores: Sequence[DaemonProcess],
    compute_host: str,
    base_url: str,
    at_the_doors: Callable[[str], None],
) -> TokenTrip:
    """Lead a new token through its life; while it is valid, ``at_the_doors`` is called with it.

    ``compute_host`` is asked by the proxies whether the instance is there, and says no.
    """
    trip = TokenTrip()
    token, instance_uuid = str(uuid.uuid4()), str(uuid.uuid4())
    connect_info = ConnectInfo(
        instance_uuid=instance_uuid,
        console_type=ConsoleType.NOVNC,
        # Never dialled: the compute is asked before, and knows no such instance.
        host="127.0.0.1",
        port=1,
        access_url=base_url,
        compute_host=compute_host,
        token=token,
    )
    try:
        bus.authorize(connect_info)
        trip.before = {store.host: _knows(bus, token, store) for store in stores}
        at_the_doors(token)
    except errors.PortholeError as exc:
        trip.refusal = str(exc)
    finally:
        # Also after an authorization that failed: whether the store took it is not known then.
        for store in stores:
            trip.after[store.host] = _revoke(bus, instance_uuid, store)
    for store in stores:
        if trip.after[store.host] is True:
            trip.after[store.host] = _knows(bus, token, store)
    return trip


def judge_trip(trip: TokenTrip) -> list[Finding]:
    """Return what went wrong on the way; one finding in order when nothing did.

    That a consoleauth does not know the token is :mod:`stores`'s to say.
    """
    if trip.refusal:
        mend = (
            "Mend what is wrong with memcached and consoleauth first; "
            "journalctl -u porthole-consoleauth -n 50 says more."
        )
        problem = f"No token can be authorized: {trip.refusal.rstrip('.')}. Users get 503."
        return [finding.error(FindingId.TOKEN_FAILED, "", problem, mend)]
    findings = []
    for host, known in trip.before.items():
        if isinstance(known, str):
            problem = f"consoleauth on {host} cannot say whether a token is valid: {known.rstrip('.')}."
            mend = f"On {host}: journalctl -u porthole-consoleauth -n 50. memcached is what it needs."
            findings.append(finding.error(FindingId.TOKEN_FAILED, host, problem, mend))
    for host, known in trip.after.items():
        if known is False:
            continue
        why = "it is still valid" if known is True else known.rstrip(".")
        problem = f"A token was not revoked for certain at consoleauth on {host}: {why}."
        mend = (
            f"On {host}: journalctl -u porthole-consoleauth -n 50. "
            "Until it works, stopping a guest does not end its consoles."
        )
        findings.append(finding.error(FindingId.TOKEN_NOT_REVOKED, host, problem, mend))
    if findings or not trip.before:
        return findings
    where = f"{len(trip.before)} consoleauth{'' if len(trip.before) == 1 else 's'}"
    return [finding.ok(FindingId.TOKEN_OK, f"authorized, known to {where}, revoked, and gone")]


def _knows(bus: Bus, token: str, store: DaemonProcess) -> bool | str:
    try:
        bus.check(token, store.server)
    except errors.TokenInvalid:
        return False
    except errors.PortholeError as exc:
        return str(exc)
    return True


def _revoke(bus: Bus, instance_uuid: str, store: DaemonProcess) -> bool | str:
    try:
        bus.revoke(instance_uuid, store.server)
    except errors.PortholeError as exc:
        return str(exc)
    return True
