# SPDX-License-Identifier: Apache-2.0
"""The order of the decision. What lies behind its last step, the dial, is met on real sockets elsewhere."""

import contextlib
import dataclasses
import gc
import itertools
import logging
import socket
import ssl
import threading
import time
import tracemalloc

import pytest

from porthole_common import errors
from porthole_common.context import RequestContext, get_current, serving
from porthole_common.deadline import Deadline
from porthole_common.model import Claim, ConnectInfo, ConsoleType, Owner, Target, TokenReason
from porthole_common.rfb.negotiation import Policy
from porthole_novncproxy.admission.access import ConsoleRequest, OriginPolicy
from porthole_novncproxy.admission.circuit_breaker import HostCircuitBreaker
from porthole_novncproxy.admission.dialler import Dialler
from porthole_novncproxy.admission.gate import Gate, log_refusal
from porthole_novncproxy.admission.host_questions import HostQuestions
from porthole_novncproxy.admission.limits import Limits, SessionCounter
from porthole_novncproxy.admission.token_failures import BURST, TokenFailures
from porthole_novncproxy.admission.vencrypt import Security
from porthole_novncproxy.doors import DOORS, NOVNC
from support.cases import naming
from support.scrapes import Growth

TOKEN = "6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11"
INFO = ConnectInfo("i-1", ConsoleType.NOVNC, "192.0.2.1", 5900, "http://good.org/", "host-1")
EVIL = "http://evil.example"
# Longer than a healthy answer takes on a slow machine.
LONG_S = 30
VENCRYPT_ONLY = Security(Policy(("vencrypt",)), ssl.create_default_context(), ssl.create_default_context())


@pytest.fixture(autouse=True)
def request_of_its_own():
    """Each handshake thread serves one."""
    with serving(RequestContext(overwrite=False)):
        yield


class Consoleauth:
    def __init__(self, info=INFO):
        self.info = info
        self.error = None
        self.asked = []
        self.deadline = None

    def check_token(self, context, token, *, deadline):
        self.asked.append(token)
        self.deadline = deadline
        if self.error:
            raise self.error
        return self.info


class Compute:
    """Refuses everything by default: a request that comes so far has passed all that is before the dial."""

    def __init__(self, error=None):
        self.error = error or errors.TokenInvalid(TokenReason.INSTANCE_GONE)
        self.asked = []
        self.deadline = None

    def validate_console(self, context, compute_host, claim, deadline):
        self.asked.append((compute_host, claim))
        self.deadline = deadline
        raise self.error.with_traceback(None)


class House:
    def __init__(self, info=INFO, error=None, origins=None, limits=None):
        self.consoleauth, self.compute = Consoleauth(info), Compute(error)
        self.counter = SessionCounter(limits or Limits(9, 9, 9, 9))
        self.gate = Gate(
            consoleauth=self.consoleauth,
            questions=HostQuestions(self.compute, 10.0),
            counter=self.counter,
            circuit_breaker=HostCircuitBreaker(time.monotonic, 0.0),
            origins=origins or OriginPolicy(),
            token_failures=TokenFailures(time.monotonic),
            dialler=Dialler(1.0, 8, 0.0),
        )

    def refuse(self, *, origins=(), hosts=("good.org",), token=TOKEN, door=NOVNC, **fields):
        """Return the error that a request ends in."""
        request = ConsoleRequest(door, token, "192.0.2.7", tuple(origins), tuple(hosts), **fields)
        with pytest.raises(errors.PortholeError) as caught:
            self.gate.admit(request, Deadline())
        return caught.value


def test_compute_is_asked_about_what_consoleauth_said():
    """At the moment of use (S1, S2)."""
    house = House(dataclasses.replace(INFO, run="run-1", owner=Owner("p-1", "u-1"), user_id="admin"))
    assert house.refuse() == house.compute.error
    assert house.consoleauth.asked == [TOKEN]
    claim = Claim("i-1", ConsoleType.NOVNC, Target("192.0.2.1", 5900), "run-1", Owner("p-1", "u-1"))
    assert house.compute.asked == [("host-1", claim)]


def test_a_malformed_token_reaches_nobody():
    """Its syntax is looked at before anybody is asked (S11, S19)."""
    for token in (None, "", "x", TOKEN.upper(), TOKEN + "\n", "a b", "x" * 10240):
        with naming(token):
            house = House()
            assert isinstance(house.refuse(token=token), errors.TokenInvalid)
            assert house.consoleauth.asked == []


def test_a_foreign_origin_reaches_nobody():
    """It is refused before anybody is asked (S4)."""
    house = House()
    assert isinstance(house.refuse(origins=[EVIL]), errors.OriginRefused)
    assert house.consoleauth.asked == []


def test_a_token_opens_only_the_door_it_was_made_for():
    """Each type at each door (S18)."""
    for door, kind in itertools.product(DOORS, list(ConsoleType)):
        with naming(door.name, kind):
            house = House(dataclasses.replace(INFO, console_type=kind))
            error = house.refuse(door=door)
            if kind in door.console_types:
                assert error is house.compute.error
            else:
                assert error.reason == TokenReason.CONSOLE_TYPE
                assert house.compute.asked == []


def test_a_page_of_the_wrong_scheme_does_not_reach_compute():
    house = House(dataclasses.replace(INFO, access_url="https://good.org/"))
    assert isinstance(house.refuse(origins=["http://good.org"]), errors.OriginRefused)
    assert house.compute.asked == []


def test_an_instance_that_is_not_there_any_more_makes_the_token_invalid():
    for error in (
        errors.InstanceNotFound("i-1"),
        errors.InstanceNotRunning("i-1", "shutoff"),
        errors.InstanceNotReady("i-1", "x"),
    ):
        with naming(error):
            refused = House(error=error).refuse()
            assert (type(refused), refused.reason) == (errors.TokenInvalid, TokenReason.INSTANCE_GONE)


def test_a_source_whose_tokens_fail_is_refused_without_a_question():
    """And with a proxy in front, the client alone."""
    house = House(origins=OriginPolicy(trusted_proxies=("192.0.2.7",)))
    house.consoleauth.error = errors.TokenInvalid(TokenReason.UNKNOWN)
    fields = {"forwarded_for": ("198.51.100.1",)}
    for _ in range(BURST):
        assert house.refuse(**fields) is house.consoleauth.error
    assert isinstance(house.refuse(**fields), errors.TokensRefused)
    assert len(house.consoleauth.asked) == BURST
    with pytest.raises(errors.TokensRefused):
        house.gate.check_source("198.51.100.1", TOKEN)
    house.gate.check_source("198.51.100.2", TOKEN)
    assert house.refuse(forwarded_for=("198.51.100.2",)) is house.consoleauth.error


def test_malformed_tokens_count_and_missing_ones_and_silent_daemons_do_not():
    for token, error, refused in (
        ("x", None, errors.TokensRefused),
        (None, None, errors.TokenInvalid),
        (TOKEN, errors.RpcUnavailable("consoleauth", "check_token"), errors.RpcUnavailable),
    ):
        with naming(token, error):
            house = House()
            house.consoleauth.error = error
            for _ in range(BURST):
                house.refuse(token=token)
            assert type(house.refuse(token=token)) is refused


def test_an_answer_that_did_not_come_is_not_taken_for_no():
    for error in (errors.HypervisorUnavailable("h"), errors.RpcUnavailable("compute", "validate_console")):
        with naming(error):
            assert House(error=error).refuse() is error


def test_a_refusal_after_the_count_uncounts():
    house = House(limits=Limits(1, 1, 1, 1))
    for _ in range(5):
        assert house.refuse() is house.compute.error
    assert house.counter.total == 0


def test_a_limit_is_reached_before_compute_is_asked():
    house = House(limits=Limits(1, 1, 1, 1))
    house.counter.reserve("192.0.2.7", TOKEN, "i-1")
    assert isinstance(house.refuse(), errors.LimitReached)
    assert house.compute.asked == []


def test_a_user_is_counted_whatever_the_address_and_the_instance():
    house = House(dataclasses.replace(INFO, user_id="u"), limits=Limits(9, 9, 9, 9, per_user=1))
    house.counter.reserve("198.51.100.1", "other", "i-2", "u")
    refusal = house.refuse()
    assert isinstance(refusal, errors.LimitReached)
    assert refusal.limit == "[novncproxy] max_sessions_per_user"


def test_each_client_behind_a_trusted_proxy_is_counted_for_itself():
    """One client's consoles do not shut out the others, nor does it shut in itself by naming others."""
    house = House(limits=Limits(9, 1, 9, 9), origins=OriginPolicy(trusted_proxies=("192.0.2.7",)))
    house.counter.reserve("198.51.100.1", "other", "i-2")
    assert isinstance(house.refuse(forwarded_for=("198.51.100.1",)), errors.LimitReached)
    assert isinstance(house.refuse(forwarded_for=("203.0.113.5, 198.51.100.1",)), errors.LimitReached)
    assert house.refuse(forwarded_for=("198.51.100.2",)) is house.compute.error
    house.gate.set_policy(Limits(9, 1, 9, 9), OriginPolicy(), None)
    assert house.refuse(forwarded_for=("198.51.100.1",)) is house.compute.error


def test_a_host_that_was_once_its_own_origin_is_no_origin_later():
    """No request adds to the allowed origins (S5)."""
    house = House()
    assert house.refuse(origins=[EVIL], hosts=["evil.example"]) is house.compute.error
    assert isinstance(house.refuse(origins=[EVIL]), errors.OriginRefused)


def test_ten_thousand_hosts_leave_nothing_in_the_gate():
    """Neither an origin nor a byte (S5)."""
    origins = OriginPolicy(("portal.example",))
    house = House(origins=origins)
    tracemalloc.start()
    try:
        visit_hosts(house, range(1000))
        held = tracemalloc.get_traced_memory()[0]
        visit_hosts(house, range(1000, 11_000))
        grown = tracemalloc.get_traced_memory()[0] - held
    finally:
        tracemalloc.stop()
    # A list of ten thousand names would be a megabyte.
    assert grown < 100_000
    assert origins == OriginPolicy(("portal.example",))
    assert isinstance(house.refuse(origins=["http://host-17.example"]), errors.OriginRefused)


def visit_hosts(house, numbers):
    for number in numbers:
        name = f"host-{number}.example"
        house.refuse(origins=[f"http://{name}"], hosts=[name])
        house.consoleauth.asked.clear()
        house.compute.asked.clear()
    gc.collect()


def test_other_limits_and_origins_count_from_the_next_request_on():
    house = House()
    assert isinstance(house.refuse(origins=["http://portal.example"]), errors.OriginRefused)
    house.gate.set_policy(Limits(9, 9, 9, 9), OriginPolicy(("portal.example",)), None)
    assert house.refuse(origins=["http://portal.example"]) is house.compute.error
    house.gate.set_policy(Limits(9, 9, 9, 0), OriginPolicy(), None)
    assert isinstance(house.refuse(origins=["http://portal.example"]), errors.OriginRefused)
    assert isinstance(house.refuse(), errors.LimitReached)


def test_a_refusal_is_one_line_with_status_and_reason(caplog):
    """What an operator can mend stands out; the rest is the day's business."""
    caplog.set_level(logging.INFO)
    cases = [
        (errors.TokenInvalid(TokenReason.UNKNOWN), 401, logging.INFO),
        (errors.OriginRefused("it is of another host"), 403, logging.INFO),
        (errors.LimitReached("[novncproxy] max_sessions"), 429, logging.WARNING),
        (errors.RpcUnavailable("consoleauth", "check_token"), 503, logging.WARNING),
        (errors.VncServerTimeout("192.0.2.1", 5900), 504, logging.WARNING),
    ]
    for error, status, level in cases:
        with naming(error, status, level):
            caplog.clear()
            with serving(RequestContext(overwrite=False)):
                assert log_refusal(error, NOVNC, "192.0.2.7") == status
            (record,) = caplog.records
            assert record.levelno == level
            assert record.extra == {
                "event": "Console refused",
                "console_type": "novnc",
                "client": "192.0.2.7",
                "status": status,
                "error": type(error).__name__,
                "reason": str(error),
            }


def test_a_request_is_logged_before_its_token_is_looked_at_and_with_instance_and_user_after_that(caplog):
    caplog.set_level(logging.INFO)
    house = House(dataclasses.replace(INFO, user_id="u", project_id="p"))
    seen, check = [], house.consoleauth.check_token
    house.consoleauth.check_token = lambda *asked, **more: seen.extend(caplog.messages) or check(*asked, **more)
    with serving(RequestContext(overwrite=False)):
        error = house.refuse()
        log_refusal(error, NOVNC, "192.0.2.7")
        current = get_current()
    asked, refused = caplog.messages
    assert seen == [asked] == ["Console requested console_type=novnc client=192.0.2.7"]
    assert refused.startswith("Console refused instance=i-1 ")
    assert (current.user_id, current.project_id) == ("u", "p")


def test_compute_and_consoleauth_are_asked_under_the_id_of_the_request():
    house, seen = House(), []
    house.consoleauth.check_token = lambda context, token, **_more: seen.append((context.request_id, token)) or INFO
    context = RequestContext(overwrite=False)
    with serving(context):
        house.refuse()
    assert seen == [(context.request_id, TOKEN)]


def test_the_deadline_of_the_request_is_that_of_both_calls_and_of_the_dial():
    house, deadline = House(), Deadline()
    request = ConsoleRequest(NOVNC, TOKEN, "192.0.2.7", hosts=("good.org",))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        validate = house.compute.validate_console

        def move(*asked):
            with contextlib.suppress(errors.TokenInvalid):
                validate(*asked)
            return Target("127.0.0.1", port)

        house.compute.validate_console = move
        with pytest.raises(errors.VncServerUnavailable):
            house.gate.admit(request, deadline)
    assert house.consoleauth.deadline is house.compute.deadline is deadline
    assert isinstance(deadline.waits_for, errors.VncServerTimeout)
    assert (deadline.waits_for.host, deadline.waits_for.port) == ("127.0.0.1", port)
    assert house.counter.total == 0


def test_vencrypt_is_asked_only_of_a_server_that_speaks_rfb():
    """A VNC server that offers no TLS is refused; a serial line is not asked."""
    for speaks_rfb in (True, False):
        with naming(speaks_rfb), socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(LONG_S)
            host, port = server.getsockname()
            house = House()
            house.compute.validate_console = lambda *_asked, host=host, port=port: Target(host, port)
            house.gate.set_policy(Limits(9, 9, 9, 9), OriginPolicy(), VENCRYPT_ONLY)
            door = dataclasses.replace(NOVNC, server_speaks_rfb=speaks_rfb)
            request = ConsoleRequest(door, TOKEN, "192.0.2.7", hosts=("good.org",))
            answers = []
            asking = threading.Thread(target=ask, args=(house.gate, request, answers), daemon=True)
            asking.start()
            connection, _ = server.accept()
            with connection:
                connection.settimeout(LONG_S)
                connection.sendall(b"RFB 003.008\n")
                if speaks_rfb:
                    assert connection.recv(12) == b"RFB 003.008\n"
                    connection.sendall(b"\x01\x01")
                asking.join(LONG_S)
                (answer,) = answers
                if speaks_rfb:
                    assert isinstance(answer, errors.VncSecurityUnsuitable)
                else:
                    assert (answer.first_bytes, answer.offer) == (b"", None)
                    assert answer.sock.recv(12) == b"RFB 003.008\n"
                    answer.close()


def ask(gate, request, answers):
    try:
        answers.append(gate.admit(request, Deadline()))
    except errors.PortholeError as exc:
        answers.append(exc)


def test_each_stage_is_timed_when_it_fails_too():
    stages = {
        each: Growth("porthole_opening_stage_seconds_count", stage=each) for each in ("check", "validate", "dial")
    }
    House().refuse()
    assert {stage: each.grown for stage, each in stages.items()} == {"check": 1, "validate": 1, "dial": 0}
    House().refuse(token="x")
    assert stages["check"].grown == 1


def test_a_refusal_is_counted_by_reason_and_status():
    for error, reason, status in (
        (errors.TokenInvalid(TokenReason.UNKNOWN), "token_invalid_unknown", "401"),
        (errors.VncServerTimeout("192.0.2.1", 5900), "vnc_server_timeout", "504"),
        (errors.LimitReached("[novncproxy] max_sessions"), "limit_reached_max_sessions", "429"),
    ):
        with naming(reason):
            refusals = Growth("porthole_refusals_total", door="novnc", reason=reason, status=status)
            openings = Growth("porthole_openings_total", door="novnc", outcome="refused")
            log_refusal(error, NOVNC, "192.0.2.7")
            assert (refusals.grown, openings.grown) == (1, 1)
