# SPDX-License-Identifier: Apache-2.0
from porthole_common.cadf import build_event_type, build_payload
from porthole_common.history.event import EventKind, build_event
from support.history import closed, new_id


def test_each_kind_has_its_terms() -> None:
    types = {kind: build_event_type(build_event(kind)) for kind in EventKind}
    assert len(set(types.values())) == len(EventKind)
    assert all(text.startswith("console.") for text in types.values())
    # CADF's outcomes (DSP0262 appendix A.4).
    outcomes = {build_payload(build_event(kind), "host-1")["outcome"] for kind in EventKind}
    assert outcomes == {"success", "failure", "unknown"}


def test_who_did_what_to_which_console() -> None:
    session = new_id()
    payload = build_payload(closed(session, client="192.0.2.7", reason="the client left"), "host-1")
    assert (payload["action"], payload["eventType"], payload["outcome"]) == ("stop", "activity", "success")
    assert payload["initiator"] == {
        "typeURI": "data/security/account/user",
        "id": "rita",
        "project_id": "red",
        "host": {"address": "192.0.2.7"},
    }
    assert payload["target"]["id"] == session
    assert payload["observer"]["id"] == "host-1"
    assert payload["reason"] == {"reasonType": "Porthole", "reasonCode": "1000", "description": "the client left"}
    assert payload["attachments"][0]["content"]["bytes_to_client"] == 2**40


def test_somebody_else_who_ended_it_is_the_initiator() -> None:
    event = build_event(EventKind.SESSION_ENDED, session_id=new_id(), user_id="rita", by="boss")
    assert build_payload(event, "h")["initiator"]["id"] == "boss"
