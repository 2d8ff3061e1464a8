# SPDX-License-Identifier: Apache-2.0
"""An event of the history in the terms of CADF (DMTF DSP0262), as OpenStack's audit notifications have it. Pure.

Called by :mod:`porthole_common.audit`.
"""

from typing import Any

from porthole_common.history.event import EventKind, HistoryEvent

_TYPE_URI = "http://schemas.dmtf.org/cloud/audit/1.0/event"
_CONSOLE = "service/compute/console"
# By kind: the notification's event type, CADF's event type (section 6.2.1), action (appendix A.3) and outcome (A.4).
_TERMS: dict[EventKind, tuple[str, str, str, str]] = {
    EventKind.TOKEN_CREATED: ("console.token.create", "activity", "create", "success"),
    EventKind.SESSION_OPENED: ("console.session.start", "activity", "start", "success"),
    EventKind.SESSION_CLOSED: ("console.session.stop", "activity", "stop", "success"),
    EventKind.CONSOLE_REFUSED: ("console.session.deny", "control", "deny", "failure"),
    EventKind.SESSION_ENDED: ("console.session.revoke", "activity", "revoke", "success"),
    EventKind.MODE_CHANGED: ("console.session.update", "activity", "update", "success"),
    EventKind.EVENTS_LOST: ("console.history.unknown", "monitor", "unknown", "unknown"),
}


def build_event_type(event: HistoryEvent) -> str:
    """Return the event type of the notification, such as ``console.session.start``."""
    return _TERMS[event.kind][0]


def build_payload(event: HistoryEvent, observer: str) -> dict[str, Any]:
    """Return the CADF event. ``observer`` is the name of the consoleauth that tells of it.

    ``{typeURI, id, eventTime, eventType, action, outcome, initiator, target, observer, reason?, attachments}``; the
    attachment named ``porthole`` has the fields of :class:`HistoryEvent`.
    """
    _, event_type, action, outcome = _TERMS[event.kind]
    initiator = {"typeURI": "data/security/account/user", "id": event.by or event.user_id or "unknown"}
    payload: dict[str, Any] = {
        "typeURI": _TYPE_URI,
        "id": event.id,
        "eventTime": event.at.isoformat(),
        "eventType": event_type,
        "action": action,
        "outcome": outcome,
        "initiator": initiator
        | ({"project_id": event.project_id} if event.project_id else {})
        | ({"host": {"address": event.client}} if event.client else {}),
        "target": {"typeURI": _CONSOLE, "id": event.session_id or event.instance_uuid or "unknown"},
        "observer": {"typeURI": "service/compute/consoleauth", "id": observer},
        "attachments": [{"name": "porthole", "contentType": "application/json", "content": event.to_primitive()}],
    }
    if event.reason or event.code is not None:
        payload["reason"] = {"reasonType": "Porthole", "reasonCode": str(event.code or ""), "description": event.reason}
    return payload
