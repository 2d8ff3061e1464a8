# SPDX-License-Identifier: Apache-2.0
import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porthole_common import errors
from porthole_common.rfb.handshake import HandshakeDriver, Peer
from porthole_common.rfb.messages import Version
from porthole_common.rfb.negotiation import Offer
from porthole_common.rfb.viewer_handshake import offer_security
from support.cases import naming
from support.rfb_talks import CHALLENGE, OK, RESPONSE, VERSIONS, drive, failed, reason

V38 = VERSIONS[8]
NONE = Offer(Version.V3_8)
VNC = {version: Offer(version, CHALLENGE) for version in Version}
ONE, TWO = b"\0\0\0\1", b"\0\0\0\2"
FAILED = {3: ONE, 7: ONE, 8: failed(b"Authentication failed")}

# What the viewer says, and what it is told, each in a frame of its own.
BY_VERSION_NONE = {
    3: (VERSIONS[3], [V38, ONE]),
    7: (VERSIONS[7] + b"\1", [V38, b"\1\1"]),
    8: (V38 + b"\1", [V38, b"\1\1", OK]),
}
BY_VERSION_VNC = {
    3: (VERSIONS[3] + RESPONSE, [V38, TWO, CHALLENGE]),
    7: (VERSIONS[7] + b"\2" + RESPONSE, [V38, b"\1\2", CHALLENGE]),
    8: (V38 + b"\2" + RESPONSE, [V38, b"\1\2", CHALLENGE]),
}


def test_none_is_offered_in_the_viewers_own_version_wherever_its_bytes_are_cut():
    for minor, (says, told) in BY_VERSION_NONE.items():
        with naming(minor):
            for cuts in ((), *((cut,) for cut in range(len(says) + 1)), tuple(range(len(says)))):
                with naming(cuts):
                    done = drive(offer_security(NONE), (Peer.VIEWER, says), cuts=cuts)
                    assert done.driver.is_over
                    assert done.to_viewer == told
                    assert done.to_server == []


def test_a_password_goes_through_wherever_the_bytes_are_cut():
    for server_version, minor, is_right in itertools.product(Version, BY_VERSION_VNC, [True, False]):
        with naming(server_version, minor, is_right):
            says, told = BY_VERSION_VNC[minor]
            verdict = OK if is_right else failed(b"Authentication failed") if server_version is Version.V3_8 else ONE
            for cuts in ((), *((cut,) for cut in range(len(says) + 1)), tuple(range(len(says)))):
                with naming(cuts):
                    done = drive(
                        offer_security(VNC[server_version]), (Peer.VIEWER, says), (Peer.SERVER, verdict), cuts=cuts
                    )
                    assert done.driver.is_over
                    assert done.to_server == [RESPONSE]
                    assert done.to_viewer == [*told, OK if is_right else FAILED[minor]]


def test_the_viewer_is_told_nothing_before_the_server_has_judged():
    done = drive(offer_security(VNC[Version.V3_8]), (Peer.VIEWER, V38 + b"\2" + RESPONSE + b"\1"))
    assert done.to_viewer == [V38, b"\1\2", CHALLENGE]
    assert done.driver.missing_bytes(Peer.SERVER) == 4
    assert done.driver.missing_bytes(Peer.VIEWER) == 0
    assert done.driver.held_bytes(Peer.VIEWER) == 1


def test_what_a_viewer_sends_ahead_is_for_the_server_and_the_other_way_round():
    for cuts in [(), tuple(range(100))]:
        with naming(cuts):
            said = ((Peer.VIEWER, V38 + b"\1" + b"\1ahead"), (Peer.SERVER, b"early"))
            driver = drive(offer_security(NONE), *said, cuts=cuts).driver
            assert driver.take_rest(Peer.VIEWER) == b"\1ahead"
            assert driver.take_rest(Peer.SERVER) == b"early"


def test_a_server_that_speaks_early_is_not_taken_for_its_verdict():
    driver = HandshakeDriver(offer_security(NONE))
    driver.start()
    assert driver.feed(Peer.SERVER, OK) == []
    assert not driver.is_over


def test_long_reasons_are_cut_to_one_short_frame():
    verdict = ONE + reason(b"x" * 1024)
    said = ((Peer.VIEWER, V38 + b"\2" + RESPONSE), (Peer.SERVER, verdict))
    assert drive(offer_security(VNC[Version.V3_8]), *said).to_viewer[-1] == failed(b"x" * 117)


def test_a_viewer_that_breaks_the_protocol_is_named():
    cases = [
        (NONE, b"GET / HTTP/1.1\r\n"),
        (NONE, b"RFB 003.008\r"),
        (NONE, b"RFB 002.000\n"),
        (NONE, V38 + b"\2"),
        (NONE, V38 + b"\0"),
        (NONE, V38 + b"\x13"),
        (VNC[Version.V3_8], V38 + b"\1"),
        (VNC[Version.V3_8], VERSIONS[7] + b"\1"),
    ]
    for offer, says in cases:
        with naming(offer, says):
            for cuts in ((), tuple(range(len(says)))):
                with naming(cuts):
                    with pytest.raises(errors.RfbInvalid) as caught:
                        drive(offer_security(offer), (Peer.VIEWER, says), cuts=cuts)
                    assert caught.value.peer == Peer.VIEWER.value


def test_a_server_that_breaks_the_protocol_in_its_verdict_is_named():
    cases = [b"\0\0\0\3", b"\xff\xff\xff\xff", ONE + b"\xff\xff\xff\xff", ONE + b"\0\0\4\1"]
    for verdict in cases:
        with naming(verdict):
            with pytest.raises(errors.RfbInvalid) as caught:
                drive(offer_security(VNC[Version.V3_8]), (Peer.VIEWER, V38 + b"\2" + RESPONSE), (Peer.SERVER, verdict))
            assert caught.value.peer == Peer.SERVER.value


@settings(deadline=None)
@given(
    st.sampled_from([NONE, *VNC.values()]),
    st.lists(st.tuples(st.sampled_from(Peer), st.one_of(st.binary(max_size=40), st.just(V38)))),
)
def test_whatever_is_said_by_whom_ends_in_order_and_all_frames_are_short(offer, said):
    seen = []
    try:
        done = drive(offer_security(offer), *said)
    except errors.RfbInvalid:
        return
    seen = done.to_viewer
    assert all(1 <= len(message) <= 125 for message in seen)
    total = sum(len(data) for _peer, data in said)
    assert all(done.driver.held_bytes(peer) <= total for peer in Peer)


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_any_viewer_in_any_segments_comes_to_the_same(says, cuts):
    says = V38 + says if len(says) % 2 else says

    def outcome(edges):
        try:
            done = drive(offer_security(NONE), (Peer.VIEWER, says), cuts=edges)
        except errors.RfbInvalid as exc:
            return str(exc)
        return done.to_viewer, done.driver.is_over, done.driver.take_rest(Peer.VIEWER)

    assert outcome(cuts) == outcome(())


def test_every_pair_of_cuts():
    says, told = BY_VERSION_VNC[8]
    for cuts in itertools.combinations(range(len(says)), 2):
        done = drive(
            offer_security(VNC[Version.V3_8]), (Peer.VIEWER, says), (Peer.SERVER, struct.pack(">I", 0)), cuts=cuts
        )
        assert done.to_viewer == [*told, OK]
