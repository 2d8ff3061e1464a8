# SPDX-License-Identifier: Apache-2.0
import datetime
import functools
import logging
import socket
import threading
import time

import pytest

from porthole_common.context import RequestContext, serving
from porthole_common.model import ConnectInfo, ConsoleType, RevocationReason
from porthole_common.rfb.messages import Version
from porthole_common.rfb.negotiation import Offer
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.sessions import registry
from porthole_novncproxy.sessions.registry import SessionRegistry
from porthole_relay.codec import RawCodec, WebSocketCodec
from porthole_relay.frames import CloseCode, Opcode
from porthole_relay.liveness import EndSession, LivenessPolicy
from porthole_relay.loop import READ
from porthole_relay.pipe import Watermarks
from porthole_relay.session import CLOSE_TIMEOUT_S
from support import far_end
from support.cases import naming
from support.fake_loop import FakeLoop
from support.sessions import masked

USER = ("rita", "red")
REQUEST_ID = "req-00000000-0000-4000-8000-000000000001"

# KeyEvent (RFC 6143 section 7.5.4) in a frame, as a browser sends it; ProtocolVersion and the type None before it.
KEY = masked(Opcode.BINARY, b"\4\1\0\0\0\0\0\x61")
HANDSHAKE = masked(Opcode.BINARY, b"RFB 003.008\n") + masked(Opcode.BINARY, b"\1")


class House:
    """A relay on a fake loop, and consoles on socket pairs: (client's far end, VNC server's far end)."""

    def __init__(self, liveness=None, enforce=False, close_grace_s=0.0):
        self.loop = FakeLoop()
        self.sessions = SessionRegistry(
            self.loop, Watermarks(65536, 16384), liveness or LivenessPolicy(), enforce, 30.0, close_grace_s
        )
        self.released = []
        self.sockets = []
        self.client_fds = []
        self.server_fds = []

    def open(
        self,
        instance="i-1",
        admitted_at=1e-9,
        codec=None,
        first_bytes=b"RFB",
        expires_at=None,
        run=True,
        host="h",
        offer=None,
        from_client=b"",
        remaining_s=None,
    ):
        client, far_client = socket.socketpair()
        server, far_server = socket.socketpair()
        self.sockets += [client, far_client, server, far_server]
        for sock in (far_client, far_server):
            sock.setblocking(False)
        info = ConnectInfo(
            instance,
            ConsoleType.NOVNC,
            "192.0.2.1",
            5900,
            "http://x/",
            host,
            expires_at=expires_at,
            user_id=USER[0],
            project_id=USER[1],
            remaining_s=remaining_s,
        )
        admission = Admission(
            connect_info=info,
            sock=server,
            first_bytes=first_bytes,
            source="192.0.2.7",
            admitted_at=admitted_at,
            request_id=REQUEST_ID,
            release=lambda: self.released.append(instance),
            offer=offer,
        )
        self.client_fds.append(client.fileno())
        self.server_fds.append(server.fileno())
        self.sessions.open(client, from_client, admission, codec or WebSocketCodec())
        if run:
            self.loop.run_soon()
        return far_client, far_server

    def close(self):
        for sock in self.sockets:
            sock.close()


# A client that has not read everything is reset.
heard = functools.partial(far_end.heard, may_reset=True)


@pytest.fixture
def house():
    made = House()
    yield made
    made.close()


@pytest.fixture
def strict_house():
    made = House(enforce=True)
    yield made
    made.close()


def close_code(sock):
    data, _ended = heard(sock)
    at = data.index(b"\x88")
    return int.from_bytes(data[at + 2 : at + 4], "big")


def test_a_console_begins_with_what_was_read_before(house):
    client, _server = house.open(first_bytes=b"RFB 003.008\n")
    assert heard(client) == (b"\x82\x0cRFB 003.008\n", False)
    assert house.released == []


def test_a_console_whose_vnc_server_is_secured_begins_with_a_handshake_that_has_its_time(house):
    client, _server = house.open(first_bytes=b"early", offer=Offer(Version.V3_8))
    assert heard(client) == (b"\x82\x0cRFB 003.008\n", False)
    house.loop.advance(30)
    assert close_code(client) == 4409


def test_nothing_happens_outside_the_loops_thread(house):
    client, _server = house.open(run=False)
    house.sessions.close_instance("i-1")
    assert heard(client) == (b"", False)
    house.loop.run_soon()
    assert close_code(client) == 4401


def test_a_revocation_ends_all_consoles_of_the_instance_and_no_others(house):
    first, first_server = house.open("i-1")
    second, _ = house.open("i-1")
    other, other_server = house.open("i-2")
    house.sessions.close_instance("i-1")
    house.loop.run_soon()
    assert close_code(first) == close_code(second) == 4401
    assert heard(first_server)[1]
    assert heard(other) == (b"\x82\x03RFB", False)
    assert heard(other_server) == (b"", False)


def test_a_console_is_uncounted_when_both_its_sockets_are_closed_and_not_before(house):
    client, server = house.open()
    house.sessions.close_instance("i-1")
    house.loop.run_soon()
    assert house.released == []
    house.loop.advance(CLOSE_TIMEOUT_S)
    assert house.released == ["i-1"]
    assert heard(client)[1]
    assert heard(server)[1]
    assert not house.loop.callbacks
    assert not house.loop.pending_timers


def test_a_revocation_reaches_a_console_that_was_admitted_before_it_and_is_opened_after(house):
    house.sessions.close_instance("i-1")
    house.loop.run_soon()
    late, late_server = house.open()
    assert close_code(late) == 4401
    assert heard(late_server)[1]


def test_what_a_client_sent_ahead_does_not_reach_a_guest_that_was_revoked(house):
    """Before the console waited for the loop, while it waited, and with the handshake of the viewer before it."""
    for offer, ahead in ((None, KEY), (Offer(Version.V3_8), HANDSHAKE + KEY)):
        for revoked_first in (True, False):
            with naming(offer, revoked_first):
                if revoked_first:
                    house.sessions.close_instance("i-1")
                client, server = house.open(run=False, offer=offer, from_client=ahead)
                if not revoked_first:
                    house.sessions.close_instance("i-1")
                house.loop.run_soon()
                assert heard(server) == (b"", True)
                assert close_code(client) == 4401
                house.sessions._revoked.clear()


def test_a_key_after_a_revocation_waits_for_no_turn_of_the_loop(house):
    """The thread that receives the revocation has come before the loop's call to close."""
    for offer, ahead in ((None, b""), (Offer(Version.V3_8), HANDSHAKE)):
        with naming(offer):
            client, server = house.open(offer=offer, from_client=ahead)
            house.sessions.close_instance("i-1", "h", RevocationReason.MOVED)
            client.sendall(KEY)
            house.loop.callbacks[house.client_fds[-1]](READ)
            assert heard(server) == (b"", True)
            assert close_reason(client) == "The instance has moved to another host"
            house.loop.run_soon()
            house.sessions._revoked.clear()


def test_a_console_that_was_admitted_after_the_revocation_stays_open(house):
    house.sessions.close_instance("i-1")
    house.loop.run_soon()
    client, _server = house.open(admitted_at=float("inf"))
    assert heard(client) == (b"\x82\x03RFB", False)


def close_reason(sock):
    data, _ended = heard(sock)
    return data[data.index(b"\x88") + 4 :].decode()


def test_a_move_ends_the_consoles_of_the_host_that_was_left(house):
    """The instance may have some on the next one already; they open there, before and after."""
    old, _ = house.open(host="old")
    new, _ = house.open(host="new")
    house.sessions.close_instance("i-1", "old", RevocationReason.MOVED)
    house.loop.run_soon()
    late_old, _ = house.open(host="old")
    late_new, _ = house.open(host="new")
    assert close_reason(old) == "The instance has moved to another host"
    assert close_code(late_old) == 4401
    assert heard(new) == heard(late_new) == (b"\x82\x03RFB", False)


def test_the_end_of_a_vnc_server_waits_for_its_reason():
    """QEMU of a guest that moves away ends before its host has said so."""
    for reason, code in ((RevocationReason.MOVED, 4401), (RevocationReason.ENDED, 1000), (None, 1000)):
        with naming(reason, code):
            house = House(close_grace_s=2.0)
            client, server = house.open()
            heard(client)
            server.close()
            house.loop.callbacks[house.server_fds[-1]](READ)
            assert heard(client) == (b"", False)
            if reason:
                house.sessions.close_instance("i-1", "h", reason)
                house.loop.run_soon()
            else:
                house.loop.advance(2.0)
            assert close_code(client) == code
            house.loop.advance(CLOSE_TIMEOUT_S)
            assert not house.loop.pending_timers
            house.close()


def test_a_broken_connection_waits_for_its_reason():
    """QEMU of a guest that stops resets the connection when bytes of the viewer are unread."""
    for reason, code in ((RevocationReason.MOVED, 4401), (RevocationReason.ENDED, 1000), (None, 1011)):
        with naming(reason, code):
            house = House(close_grace_s=2.0)
            client, server = house.open(from_client=HANDSHAKE + KEY)
            heard(client)
            server.close()
            house.loop.callbacks[house.server_fds[-1]](READ)
            assert heard(client) == (b"", False)
            if reason:
                house.sessions.close_instance("i-1", "h", reason)
                house.loop.run_soon()
            else:
                house.loop.advance(2.0)
            assert close_code(client) == code
            house.loop.advance(CLOSE_TIMEOUT_S)
            assert not house.loop.pending_timers
            house.close()


def test_revocations_are_not_remembered_for_ever(house):
    for number in range(registry._MIN_SWEPT):
        house.sessions.close_instance(f"i-{number}")
    # A thousand seconds later.
    aged = {place: (at - 1000, reason) for place, (at, reason) in house.sessions._revoked.items()}
    house.sessions._revoked = aged
    house.sessions.close_instance("i-last")
    house.loop.run_soon()
    assert set(house.sessions._revoked) == {("i-last", None)}


def test_a_revocation_costs_the_same_however_many_came_before(house):
    """When a host with thousands of guests ends, each revocation must not look at all others."""
    copies, last = 0, house.sessions._revoked
    for number in range(5000):
        house.sessions.close_instance(f"i-{number}")
        house.loop.soon.clear()
        copies += house.sessions._revoked is not last
        last = house.sessions._revoked
    assert len(last) == 5000
    assert copies < 10


def stop_in_a_thread(house, drain_timeout_s=0.0):
    """SessionRegistry.stop waits for the loop, which is this test."""
    stopper = threading.Thread(target=house.sessions.stop, args=(drain_timeout_s,))
    stopper.start()
    return stopper


def run_until_stopped(house, stopper):
    while stopper.is_alive():
        house.loop.run_soon()
        stopper.join(0.001)


def test_stopping_with_no_console_open_is_immediate(house):
    stopper = stop_in_a_thread(house, 3600)
    run_until_stopped(house, stopper)


def test_stopping_tells_every_client_and_waits_until_they_have_gone(house):
    """1001 (O10)."""
    client, server = house.open()
    stopper = stop_in_a_thread(house)
    while not heard(server)[1]:
        house.loop.run_soon()
    assert close_code(client) == 1001
    assert stopper.is_alive()
    house.loop.advance(CLOSE_TIMEOUT_S)
    run_until_stopped(house, stopper)
    assert house.released == ["i-1"]


def test_a_console_that_is_opened_while_the_proxy_stops_is_ended_at_once(house):
    run_until_stopped(house, stop_in_a_thread(house))
    client, server = house.open(from_client=KEY)
    assert close_code(client) == 1001
    assert heard(server) == (b"", True)


def test_a_console_may_end_with_its_token(strict_house):
    gone = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    client, server = strict_house.open(expires_at=gone, from_client=KEY)
    assert close_code(client) == 4408
    assert heard(server) == (b"", True)


def time_left(house, admitted_s_ago=0.0, **fields):
    """Return in how many seconds the session that is opened now ends by itself; None for never."""
    house.loop.timers.clear()
    house.open(admitted_at=time.monotonic() - admitted_s_ago, **fields)
    return min((at_s - house.loop.now for at_s, _ in house.loop.timers), default=None)


def test_the_clocks_of_two_hosts_do_not_matter(strict_house):
    """expires_at is a time by consoleauth's clock, which is 700 s slow, or an hour fast."""
    for skew_s in (-700, 3600):
        with naming(skew_s):
            said = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100 + skew_s)
            left_s = time_left(strict_house, expires_at=said, remaining_s=100.0)
            assert left_s == pytest.approx(100, abs=5)


def test_what_opening_took_is_no_gift(strict_house):
    """The seconds are counted from the question, and not from the opening."""
    left_s = time_left(strict_house, admitted_s_ago=30.0, remaining_s=100.0)
    assert left_s == pytest.approx(70, abs=5)


def test_an_older_consoleauth_tells_only_the_time(strict_house):
    said = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    assert time_left(strict_house, expires_at=said) == pytest.approx(100, abs=5)


def test_a_token_that_never_expires(strict_house):
    assert time_left(strict_house) is None


def test_a_console_does_not_end_with_its_token_unless_it_is_asked_for(house):
    gone = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    client, _server = house.open(expires_at=gone)
    house.loop.advance(1000)
    assert heard(client) == (b"\x82\x03RFB", False)


def test_a_native_viewer_is_never_pinged():
    house = House(LivenessPolicy(ping_interval_s=0.001))
    try:
        client, _server = house.open(codec=RawCodec())
        assert heard(client) == (b"RFB", False)
        assert not house.loop.pending_timers
    finally:
        house.close()


def test_a_consoles_lines_bear_its_request_and_a_revocations_line_its_own(house, caplog):
    """They are written by the loop's thread, which serves no request."""
    for package in ("porthole_relay", "porthole_novncproxy"):
        caplog.set_level(logging.INFO, package)
    house.open()
    revocation = RequestContext(overwrite=False)
    with serving(revocation):
        house.sessions.close_instance("i-1")
    house.loop.run_soon()
    house.loop.advance(CLOSE_TIMEOUT_S)
    found = {record.extra["event"]: (record.context.request_id, record.extra) for record in caplog.records}
    assert {event: request_id for event, (request_id, _) in found.items()} == {
        "Console opened": REQUEST_ID,
        "Revocation received": revocation.request_id,
        "Console closed": REQUEST_ID,
    }
    assert found["Revocation received"][1]["sessions"] == 1
    users = {record.extra["event"]: (record.context.user_id, record.context.project_id) for record in caplog.records}
    assert users == {"Console opened": USER, "Revocation received": (None, None), "Console closed": USER}
    closed = found["Console closed"][1]
    assert (closed["code"], closed["client"], closed["instance"]) == (4401, "192.0.2.7", "i-1")
    assert (closed["bytes_to_client"], closed["bytes_from_client"]) == (3, 0)


def list_open(house):
    """As another thread does, while the loop turns."""
    listed = []
    thread = threading.Thread(target=lambda: listed.extend(house.sessions.list_open(10)), daemon=True)
    thread.start()
    while thread.is_alive():
        house.loop.run_soon()
        thread.join(0.01)
    return listed


def test_sessions_that_are_listed_end_with_a_reason_and_others_of_their_instance_go_on(house):
    for reason, words in registry.REVOKED_WORDS.items():
        with naming(reason):
            client, _ = house.open()
            (session, admission), *_ = reversed(list_open(house))
            younger, _ = house.open()
            assert admission.connect_info.instance_uuid == "i-1"
            house.sessions.end([session], reason)
            assert heard(client) == (b"\x82\x03RFB", False)
            house.loop.run_soon()
            assert close_reason(client) == words
            assert heard(younger) == (b"\x82\x03RFB", False)


def in_loop(house, call):
    """Return what another thread's ``call`` returns, while the loop turns."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    while thread.is_alive():
        house.loop.run_soon()
        thread.join(0.01)
    return results[0]


def test_sessions_that_a_user_ends_are_told_so_and_the_others_go_on(house):
    first, _ = house.open("i-1")
    second, _ = house.open("i-2")
    meant = [session for session, _ in list_open(house) if session.subject.instance_uuid == "i-1"]
    end, told = EndSession(CloseCode.ENDED_BY_USER, "Ended by Rita: why"), []

    def end_them():
        return house.sessions.end_by(meant, "u-1", end, lambda _, admission: told.append(admission.ended_by))

    assert in_loop(house, end_them) == 1
    assert told == ["u-1"]
    assert close_reason(first) == "Ended by Rita: why"
    assert heard(second) == (b"\x82\x03RFB", False)
    # It waits for its client's answer, and has ended.
    assert in_loop(house, end_them) == 0
    house.loop.advance(CLOSE_TIMEOUT_S)
    assert in_loop(house, end_them) == 0
    assert told == ["u-1"]


def test_an_end_that_the_loop_comes_to_late_is_told_all_the_same(house, monkeypatch):
    monkeypatch.setattr(registry, "LOOP_TIMEOUT_S", 0.01)
    house.open("i-1")
    meant, told = [session for session, _ in list_open(house)], []
    end = EndSession(CloseCode.ENDED_BY_USER, "Ended by Rita")
    with pytest.raises(TimeoutError):
        house.sessions.end_by(meant, "u-1", end, lambda _, admission: told.append(admission.ended_by))
    house.loop.run_soon()
    assert told == ["u-1"]


def test_a_session_tells_when_its_client_last_typed(house):
    _, _ = house.open("i-1")
    [(silent, _)] = list_open(house)
    assert silent.input_at is None
    house.open("i-2", from_client=HANDSHAKE)
    typed = next(session for session, _ in list_open(house) if session.subject.instance_uuid == "i-2")
    assert typed.input_at is not None


def test_a_session_that_has_ended_meanwhile_is_not_ended_again(house):
    client, _ = house.open()
    [(session, _)] = list_open(house)
    house.sessions.close_instance("i-1", None, RevocationReason.MOVED)
    house.loop.run_soon()
    house.loop.advance(CLOSE_TIMEOUT_S)
    house.sessions.end([session], RevocationReason.ENDED)
    house.loop.run_soon()
    assert close_reason(client) == "The instance has moved to another host"
    assert list_open(house) == []


def test_a_loop_that_does_not_turn_lists_nothing_and_holds_up_no_thread(house):
    with pytest.raises(TimeoutError):
        house.sessions.list_open(0.01)
