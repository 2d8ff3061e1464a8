# SPDX-License-Identifier: Apache-2.0
"""A token's life through the real daemons: authorized, known, used at the URLs, revoked, and unknown again.

Why: a console may fail to open although every part is well by itself. The token is for an instance that does not exist,
so it opens nothing at any time. It is revoked at every consoleauth, whatever happens before, and would expire by
itself. Called by :mod:`live_checks`.
"""

import uuid
from collections.abc import Callable, Sequence

from porthole_cli.doctor import finding
from porthole_cli.doctor.bus import Bus
from porthole_cli.doctor.facts import TokenCheck
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_common import errors
from porthole_common.discovery import DaemonProcess
from porthole_common.model import ConnectInfo, ConsoleType


def check_token(
    bus: Bus,
    stores: Sequence[DaemonProcess],
    compute_host: str,
    base_url: str,
    use_token: Callable[[str], None],
) -> TokenCheck:
    """Take a new token through its life; while it is valid, ``use_token`` is called with it.

    The proxies ask ``compute_host`` whether the instance exists, and it says no.
    """
    token_check = TokenCheck()
    token, instance_uuid = str(uuid.uuid4()), str(uuid.uuid4())
    connect_info = ConnectInfo(
        instance_uuid=instance_uuid,
        console_type=ConsoleType.NOVNC,
        # Never dialled: the compute is asked first, and does not know the instance.
        host="127.0.0.1",
        port=1,
        access_url=base_url,
        compute_host=compute_host,
        token=token,
    )
    try:
        bus.authorize(connect_info)
        token_check.before = {store.host: _knows(bus, token, store) for store in stores}
        use_token(token)
    except errors.PortholeError as exc:
        token_check.refusal = str(exc)
    finally:
        # Also after a failed authorization: the store may have kept the token all the same.
        for store in stores:
            token_check.after[store.host] = _revoke(bus, instance_uuid, store)
    for store in stores:
        if token_check.after[store.host] is True:
            token_check.after[store.host] = _knows(bus, token, store)
    return token_check


def judge_token(token_check: TokenCheck) -> list[Finding]:
    """Return what went wrong; one finding in order when nothing did.

    :mod:`stores` reports a consoleauth that does not know the token.
    """
    if token_check.refusal:
        mend = (
            "Mend what is wrong with memcached and consoleauth first; "
            "journalctl -u porthole-consoleauth -n 50 says more."
        )
        problem = f"No token can be authorized: {token_check.refusal.rstrip('.')}. Users get 503."
        return [finding.error(FindingId.TOKEN_FAILED, "", problem, mend)]
    findings = []
    for host, known in token_check.before.items():
        if isinstance(known, str):
            problem = f"consoleauth on {host} cannot say whether a token is valid: {known.rstrip('.')}."
            mend = f"On {host}: journalctl -u porthole-consoleauth -n 50. Check that it reaches memcached."
            findings.append(finding.error(FindingId.TOKEN_FAILED, host, problem, mend))
    for host, known in token_check.after.items():
        if known is False:
            continue
        why = "it is still valid" if known is True else known.rstrip(".")
        problem = f"consoleauth on {host} may not have revoked a token: {why}."
        mend = (
            f"On {host}: journalctl -u porthole-consoleauth -n 50. "
            "Until it works, stopping a guest does not end its consoles."
        )
        findings.append(finding.error(FindingId.TOKEN_NOT_REVOKED, host, problem, mend))
    if findings or not token_check.before:
        return findings
    where = f"{len(token_check.before)} consoleauth{'' if len(token_check.before) == 1 else 's'}"
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
