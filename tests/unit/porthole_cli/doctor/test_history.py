# SPDX-License-Identifier: Apache-2.0
from porthole_cli.doctor.history import judge_history
from porthole_common.diagnosis import HistoryState
from support.cases import naming
from support.clouds import ids, make_daemons
from support.descriptions import make_proxy, make_store


def test_a_history_that_is_kept_and_one_that_is_off() -> None:
    (found,) = judge_history(make_daemons(stores=[make_store("a", history="ok"), make_store("b", history="ok")]))
    assert (found.id, found.severity) == ("history.ok", "ok")
    for state in ("", HistoryState.OFF, "of_tomorrow"):
        assert judge_history(make_daemons(stores=[make_store(history=state)])) == []


def test_what_keeps_events_from_the_history() -> None:
    for state, found_id in (
        (HistoryState.SCHEMA, "history.schema"),
        (HistoryState.NOT_SHARED, "history.not_shared"),
        (HistoryState.AWAY, "history.unreachable"),
    ):
        with naming(state):
            store = make_store("b", history=state, history_reason="so it is")
            (found,) = judge_history(make_daemons(stores=[make_store("a", history="ok"), store]))
            assert (found.id, found.severity, found.host) == (found_id, "warning", "b")
            assert "so it is" in found.problem
            assert "porthole-manage" in found.mend


def test_a_spool_that_fills() -> None:
    found = make_daemons(
        stores=[make_store("a", history="ok", spool_fill=0.49)], proxies=[make_proxy("p", spool_fill=0.5)]
    )
    findings = judge_history(found)
    assert ids(findings) == ["history.spool_fills"]
    assert (findings[0].host, "50% full" in findings[0].problem) == ("p", True)
