# SPDX-License-Identifier: Apache-2.0
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porthole_common import errors
from porthole_common.rfb import messages
from porthole_common.rfb.handshake import MAX_READ_BYTES, HandshakeDriver, Peer, Read, StartTls
from porthole_common.rfb.messages import Version
from porthole_common.rfb.negotiation import Offer, Policy, negotiate
from support.cases import naming
from support.rfb_talks import (
    CHALLENGE,
    OK,
    TLS_NONE,
    VERSIONS,
    X509_NONE,
    X509_VNC,
    drive,
    failed,
    reason,
    subtypes,
    types,
    vencrypt,
)

BOTH = Policy(("vencrypt", "none"))
ONLY = Policy(("vencrypt",))
LAX = Policy(("none", "vencrypt"))
ANONYMOUS = Policy(("vencrypt",), anonymous=True)
V38 = VERSIONS[8]
NAME = "192.0.2.1:5900"

# What the server says before TLS and inside it; what it is told; what the viewer is to be offered.
GOOD = {
    "3.8-none": (BOTH, V38 + types(1) + OK, b"", [V38, b"\1"], Offer(Version.V3_8)),
    "3.7-none": (BOTH, VERSIONS[7] + types(1), b"", [VERSIONS[7], b"\1"], Offer(Version.V3_7)),
    "3.3-none": (BOTH, VERSIONS[3] + b"\0\0\0\1", b"", [VERSIONS[3]], Offer(Version.V3_3)),
    "3.8-vnc": (BOTH, V38 + types(2) + CHALLENGE, b"", [V38, b"\2"], Offer(Version.V3_8, CHALLENGE)),
    "3.7-vnc": (BOTH, VERSIONS[7] + types(2) + CHALLENGE, b"", [VERSIONS[7], b"\2"], Offer(Version.V3_7, CHALLENGE)),
    "3.3-vnc": (BOTH, VERSIONS[3] + b"\0\0\0\2" + CHALLENGE, b"", [VERSIONS[3]], Offer(Version.V3_3, CHALLENGE)),
    "none-before-vnc": (BOTH, V38 + types(2, 1) + OK, b"", [V38, b"\1"], Offer(Version.V3_8)),
    "none-is-preferred": (LAX, V38 + types(19, 1) + OK, b"", [V38, b"\1"], Offer(Version.V3_8)),
    "x509none": (
        ONLY,
        V38 + types(19) + vencrypt(X509_NONE),
        OK,
        [V38, b"\x13", b"\0\2", struct.pack(">I", X509_NONE)],
        Offer(Version.V3_8),
    ),
    "x509none-in-3.7": (
        BOTH,
        VERSIONS[7] + types(1, 2, 19) + vencrypt(TLS_NONE, X509_VNC, X509_NONE),
        OK,
        [VERSIONS[7], b"\x13", b"\0\2", struct.pack(">I", X509_NONE)],
        Offer(Version.V3_7),
    ),
    "x509vnc": (
        ONLY,
        V38 + types(19) + vencrypt(258, X509_VNC),
        CHALLENGE,
        [V38, b"\x13", b"\0\2", struct.pack(">I", X509_VNC)],
        Offer(Version.V3_8, CHALLENGE),
    ),
    "vencrypt-0.3": (
        ONLY,
        V38 + types(19) + vencrypt(X509_NONE, version=b"\0\3"),
        OK,
        [V38, b"\x13", b"\0\2", struct.pack(">I", X509_NONE)],
        Offer(Version.V3_8),
    ),
    "255-types": (BOTH, V38 + types(*range(1, 256)) + vencrypt(*[X509_NONE] * 255), OK, None, Offer(Version.V3_8)),
    "anonymous": (
        ANONYMOUS,
        V38 + types(19) + vencrypt(TLS_NONE),
        OK,
        [V38, b"\x13", b"\0\2", struct.pack(">I", TLS_NONE)],
        Offer(Version.V3_8),
    ),
}


def server_says(*streams):
    return [(Peer.SERVER, stream) for stream in streams]


def test_what_is_agreed_on_is_the_same_wherever_the_bytes_are_cut():
    for name, (policy, plain, inside, told, offer) in GOOD.items():
        with naming(name):
            every = range(max(len(plain), len(inside)) + 1)
            for cuts in ((), *((cut,) for cut in every), tuple(every)):
                with naming(cuts):
                    done = drive(negotiate(NAME, policy), *server_says(plain, inside), cuts=cuts)
                    assert done.driver.is_over
                    assert done.driver.result == offer
                    assert told is None or done.to_server == told
                    assert done.tls == ([StartTls(policy is ANONYMOUS)] if inside else [])
                    assert not done.to_viewer


def test_what_comes_behind_is_kept():
    for name, (policy, plain, inside, _told, _offer) in GOOD.items():
        with naming(name):
            streams = (plain, inside + b"\x01\x02behind") if inside else (plain + b"\x01\x02behind",)
            done = drive(negotiate(NAME, policy), *server_says(*streams))
            assert done.driver.take_rest(Peer.SERVER) == b"\x01\x02behind"
            assert done.driver.take_rest(Peer.SERVER) == b""


def test_a_server_that_ends_anywhere_leaves_the_handshake_unfinished():
    for name, (policy, plain, inside, _told, _offer) in GOOD.items():
        with naming(name):
            for cut in range(len(plain)):
                with naming(cut):
                    assert not drive(negotiate(NAME, policy), *server_says(plain[:cut])).driver.is_over
            for cut in range(len(inside)):
                with naming(cut):
                    assert not drive(negotiate(NAME, policy), *server_says(plain, inside[:cut])).driver.is_over


def test_the_version_is_the_highest_of_both():
    cases = [
        (b"RFB 003.003\n", VERSIONS[3]),
        (b"RFB 003.005\n", VERSIONS[3]),
        (b"RFB 003.006\n", VERSIONS[3]),
        (b"RFB 003.007\n", VERSIONS[7]),
        (b"RFB 003.008\n", V38),
        (b"RFB 003.889\n", V38),
        (b"RFB 004.001\n", V38),
        (b"RFB 005.000\n", V38),
    ]
    for greeting, answer in cases:
        with naming(greeting, answer):
            assert drive(negotiate(NAME, BOTH), *server_says(greeting)).to_server == [answer]


UNSUITABLE = {
    "only-none": (ONLY, V38 + types(1), b"", "types 1,"),
    "only-vnc": (ONLY, V38 + types(2), b"", "types 2,"),
    "nothing-known": (BOTH, V38 + types(5, 16, 18, 30), b"", "5, 16, 18, 30"),
    "very-much-unknown": (BOTH, V38 + types(*range(20, 250)), b"", "35, ..."),
    "3.3-cannot": (ONLY, VERSIONS[3] + b"\0\0\0\1", b"", "types 1,"),
    "3.3-type-19": (BOTH, VERSIONS[3] + b"\xff\0\0\x05", b"", "4278190085"),
    "no-type": (BOTH, V38 + b"\0" + reason(b"too many\nviewers\x1b[2J\xff"), b"", "'too many?viewers?[2J?'"),
    "3.3-no-type": (BOTH, VERSIONS[3] + b"\0\0\0\0" + reason(b"busy"), b"", "'busy'"),
    "no-reason": (BOTH, V38 + b"\0" + reason(b""), b"", "''"),
    "refused": (BOTH, V38 + types(1) + failed(b"go away"), b"", "'go away'"),
    "too-many": (BOTH, V38 + types(1) + failed(b"go away", 2), b"", "'go away'"),
    "vencrypt-0.1": (BOTH, V38 + types(19) + b"\0\1", b"", "VeNCrypt 0.1"),
    "vencrypt-refused": (BOTH, V38 + types(19) + b"\0\2\1", b"", "does not take VeNCrypt"),
    "no-sub-type": (BOTH, V38 + types(19) + b"\0\2\0\0", b"", "no sub-type"),
    "only-plain": (BOTH, V38 + types(19) + b"\0\2\0" + subtypes(256, 259, 262), b"", "256, 259, 262"),
    "only-tls-none": (BOTH, V38 + types(19) + b"\0\2\0" + subtypes(TLS_NONE), b"", "without a certificate"),
    "only-tls-vnc": (ANONYMOUS, V38 + types(19) + b"\0\2\0" + subtypes(258), b"", "258"),
    "sub-type-refused": (ONLY, V38 + types(19) + vencrypt(X509_NONE, accepts=b"\0"), b"", "260"),
    "sub-type-nonsense": (ONLY, V38 + types(19) + vencrypt(X509_NONE, accepts=b"\2"), b"", "260"),
    "refused-inside-tls": (ONLY, V38 + types(19) + vencrypt(X509_NONE), failed(b"no certificate"), "no certificate"),
    "refused-inside-tls-in-3.7": (ONLY, VERSIONS[7] + types(19) + vencrypt(X509_NONE), b"\0\0\0\1", "''"),
}
INVALID = {
    "http": (BOTH, b"HTTP/1.1 400 Bad Request\r\n", b"", "version"),
    "tls": (BOTH, b"\x16\x03\x01\x02\x00" * 3, b"", "version"),
    "no-line-end": (BOTH, b"RFB 003.008\r", b"", "version"),
    "other-digits": (BOTH, "RFB 00\u0663.008\n".encode()[:12], b"", "version"),
    "3.2": (BOTH, b"RFB 003.002\n", b"", "older than 3.3"),
    "2.9": (BOTH, b"RFB 002.009\n", b"", "older than 3.3"),
    # S12: the length is looked at, and nothing is read.
    "reason-of-4-gib": (BOTH, V38 + b"\0" + reason(b"", 0xFFFFFFFF), b"", "4294967295"),
    "reason-of-1025": (BOTH, V38 + b"\0" + reason(b"", 1025), b"", "1025"),
    "3.3-reason-of-4-gib": (BOTH, VERSIONS[3] + b"\0\0\0\0" + reason(b"", 0xFFFFFFFF), b"", "4294967295"),
    "result-reason-of-4-gib": (BOTH, V38 + types(1) + b"\0\0\0\1\xff\xff\xff\xff", b"", "4294967295"),
    "tls-reason-of-4-gib": (ONLY, V38 + types(19) + vencrypt(X509_NONE), b"\0\0\0\1\xff\xff\xff\xff", "4294967295"),
    "result-3": (BOTH, V38 + types(1) + b"\0\0\0\3", b"", "it says 3"),
    "result-of-all-ones": (BOTH, V38 + types(1) + b"\xff\xff\xff\xff", b"", "4294967295"),
    # What is said before TLS stands must not pass for what is said inside.
    "early": (ONLY, V38 + types(19) + vencrypt(X509_NONE) + OK, b"", "between"),
    "early-byte": (ONLY, V38 + types(19) + vencrypt(X509_VNC) + b"\0", b"", "between"),
}


def test_a_server_that_does_not_do_is_refused_with_the_reason_wherever_the_bytes_are_cut():
    for name, (policy, plain, inside, said) in {**UNSUITABLE, **INVALID}.items():
        with naming(name):
            kind = errors.VncSecurityUnsuitable if name in UNSUITABLE else errors.RfbInvalid
            every = [] if name.startswith("early") else range(max(len(plain), len(inside)) + 1)
            for cuts in ((), *((cut,) for cut in every), tuple(every)):
                with naming(cuts):
                    with pytest.raises(kind) as caught:
                        drive(negotiate(NAME, policy), *server_says(plain, inside), cuts=cuts)
                    assert said in str(caught.value)
                    assert NAME in str(caught.value)
                    assert str(caught.value).isprintable()


def test_a_reason_of_the_cap_is_read():
    with pytest.raises(errors.VncSecurityUnsuitable, match="x" * messages.MAX_REASON_BYTES):
        drive(negotiate(NAME, BOTH), *server_says(V38 + b"\0" + reason(b"x" * messages.MAX_REASON_BYTES)))


SERVERS = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda version, rest: version + rest,
        st.sampled_from([*VERSIONS.values(), b"RFB 004.001\n"]),
        st.one_of(
            st.binary(max_size=60),
            st.builds(lambda rest: types(19) + b"\0\2\0" + rest, st.binary(max_size=60)),
            st.builds(lambda kind, rest: types(19) + vencrypt(kind) + rest, st.sampled_from([257, 260]), st.binary()),
            st.builds(lambda rest: types(1) + rest, st.binary(max_size=60)),
        ),
    ),
)


def outcome(policy, plain, inside, cuts):
    """What a server comes to: an error, or what was done and what is wanted next."""
    try:
        done = drive(negotiate(NAME, policy), *server_says(plain, inside), cuts=cuts)
    except (errors.RfbInvalid, errors.VncSecurityUnsuitable) as exc:
        return type(exc), str(exc)
    driver = done.driver
    return done.to_server, done.tls, driver.result, driver.missing_bytes(Peer.SERVER)


@settings(deadline=None)
@given(SERVERS, st.sampled_from([BOTH, ONLY, LAX, ANONYMOUS]), st.lists(st.integers(0, 400), max_size=6))
def test_any_server_in_any_segments_comes_to_the_same_and_never_asks_for_much(plain, policy, cuts):
    whole = outcome(policy, plain, b"", ())
    if "between" not in whole[1]:
        assert outcome(policy, plain, b"", cuts) == whole
    assert not isinstance(whole[-1], int) or whole[-1] <= MAX_READ_BYTES


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from([X509_NONE, X509_VNC]), st.lists(st.integers(0, 60), max_size=4))
def test_anything_inside_tls_comes_to_the_same(inside, kind, cuts):
    plain = V38 + types(19) + vencrypt(kind)
    assert outcome(ONLY, plain, inside, cuts) == outcome(ONLY, plain, inside, ())


def test_a_handshake_that_would_ask_for_more_than_any_message_has_is_stopped():
    def handshake(size):
        yield Read(Peer.SERVER, size)

    for size in [0, -1, MAX_READ_BYTES + 1, 1 << 32]:
        with naming(size), pytest.raises(ValueError, match="more, or less"):
            HandshakeDriver(handshake(size)).start()
