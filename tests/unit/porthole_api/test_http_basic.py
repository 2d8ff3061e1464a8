# SPDX-License-Identifier: Apache-2.0
"""Users and passwords of a file: who is let in, as whom, and which files do."""

import base64
import contextlib
import functools
import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_context import context as oslo_context
from webob import exc

from porthole_api.http_basic import OPTION, HttpBasic
from porthole_api.login_limits import KNOWN_S, SOURCE_BURST, SOURCE_REFILL_S, USER_BURST, WRONG_S
from porthole_common import errors
from porthole_common.context import RequestContext
from support.api import Api, FakeClock, build_conf, build_instance, build_uuid
from support.cases import naming

pytestmark = pytest.mark.usefixtures("no_context_stays")
ROUNDS = 4


def build_line(user: str, password: str) -> str:
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(ROUNDS)).decode()}\n"


@pytest.fixture(scope="module")
def text() -> str:
    return build_line("root", "toor") + "\n" + build_line("rita", "páss:word") + build_line("bert", "b")


@pytest.fixture
def path(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(text, encoding="utf-8")
    return path


def build_strategy(path: Path, clock: Callable[[], float] | None = None) -> HttpBasic:
    """Return the strategy; without a clock, so much time passes between two attempts that nothing is remembered."""
    conf = build_conf(http_basic_auth_user_file=str(path), admin_users=["root", "nobody"])
    return HttpBasic(conf, clock or itertools.count(1000, 1000).__next__)


@pytest.fixture
def strategy(path: Path) -> HttpBasic:
    return build_strategy(path)


def encode(user: str, password: str | bytes) -> str:
    password = password.encode() if isinstance(password, str) else password
    return "Basic " + base64.b64encode(user.encode() + b":" + password).decode()


def ask(strategy: HttpBasic, header: str | None, **environ: Any) -> RequestContext:
    environ = {"openstack.request_id": "req-1", "openstack.global_request_id": "req-2", **environ}
    if header is not None:
        environ["HTTP_AUTHORIZATION"] = header
    return strategy(environ)


def test_a_users_project_is_the_users_own(strategy: HttpBasic) -> None:
    context = ask(strategy, encode("rita", "páss:word"))
    assert (context.user_id, context.project_id, context.roles) == ("rita", "rita", ["member", "reader"])
    assert (context.request_id, context.global_request_id) == ("req-1", "req-2")
    assert oslo_context.get_current() is context


def test_an_admin_user_is_an_administrator(strategy: HttpBasic) -> None:
    assert ask(strategy, encode("root", "toor")).roles == ["admin", "member", "reader"]


def test_what_a_client_says_of_itself_counts_for_nothing(strategy: HttpBasic) -> None:
    claims = {"HTTP_X_ROLES": "admin", "HTTP_X_USER_ID": "root", "HTTP_X_PROJECT_ID": "blue", "REMOTE_USER": "root"}
    context = ask(strategy, encode("bert", "b"), **claims)
    assert (context.user_id, context.project_id, context.roles) == ("bert", "bert", ["member", "reader"])


def test_whoever_does_not_prove_it_is_refused_and_told_how(strategy: HttpBasic) -> None:
    cases = [
        None,
        "",
        "Basic",
        "Basic  ",
        "Basic !",
        "Basic " + base64.b64encode(b"rita").decode(),
        "Basic " + base64.b64encode(b"\xff:x").decode(),
        "Bearer abc",
        encode("rita", "wrong"),
        encode("rita", ""),
        encode("rita", "páss:word\0"),
        encode("rita", "x" * 73),
        encode("rita", "x" * 100_000),
        encode("nobody", "x"),
        encode("", ""),
        encode("rit", "páss:word"),
        encode("rita:", "páss:word"),
        encode("rita\nroot", "toor"),
    ]
    for header in cases:
        with naming(header):
            with pytest.raises(exc.HTTPUnauthorized) as caught:
                ask(strategy, header)
            assert caught.value.headers["WWW-Authenticate"].startswith('Basic realm="')


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=50))
def test_no_header_does_anything_else(strategy: HttpBasic, header: str) -> None:
    for value in (header, f"Basic {header}", "Basic " + base64.b64encode(header.encode()).decode()):
        with pytest.raises(exc.HTTPUnauthorized):
            ask(strategy, value)


def test_a_password_is_not_logged(strategy: HttpBasic, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(exc.HTTPUnauthorized):
        ask(strategy, encode("rita", "s3cret"))
    with pytest.raises(exc.HTTPUnauthorized):
        ask(strategy, "Basic s3cret!")
    assert "s3cret" not in caplog.text


def test_users_come_and_go_without_a_restart(strategy: HttpBasic, path: Path) -> None:
    path.write_text(build_line("new", "n"))
    assert ask(strategy, encode("new", "n")).user_id == "new"
    with pytest.raises(exc.HTTPUnauthorized):
        ask(strategy, encode("bert", "b"))


def test_a_file_that_cannot_be_read_later_is_not_the_clients_fault(path: Path) -> None:
    strategy = build_strategy(path)
    path.unlink()
    with pytest.raises(errors.IdentityUnavailable):
        ask(strategy, encode("rita", "páss:word"))
    path.mkdir()
    with pytest.raises(errors.IdentityUnavailable):
        ask(strategy, encode("rita", "páss:word"))


def test_an_entry_that_breaks_later_is_that_users_alone(
    path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = build_strategy(path)
    for line in ["rita:{SHA}x", "rita:$2y$05$short", "rita"]:
        with naming(line):
            path.write_text(line + "\n" + text, encoding="utf-8")
            with pytest.raises(exc.HTTPUnauthorized):
                ask(strategy, encode("rita", "páss:word"))
            assert ask(strategy, encode("bert", "b")).user_id == "bert"
    assert caplog.messages == [f"User entries skipped file={path} lines=1"]


def test_a_comment_and_an_entry_of_another_kind_keep_nobody_out(path: Path, text: str) -> None:
    path.write_text("# Users of the api\nold:$apr1$rOioh4Wh$bVD3DRwksETubcpEH90ww0\n" + text, encoding="utf-8")
    strategy = build_strategy(path)
    assert ask(strategy, encode("rita", "páss:word")).user_id == "rita"
    with pytest.raises(exc.HTTPUnauthorized):
        ask(strategy, encode("old", "myPassword"))


def test_a_file_that_cannot_be_read_names_the_option(tmp_path: Path) -> None:
    for kind in ["missing", "directory"]:
        with naming(kind):
            path = tmp_path / kind
            if kind == "directory":
                path.mkdir()
            with pytest.raises(errors.ConfigInvalid) as caught:
                HttpBasic(build_conf(http_basic_auth_user_file=str(path)))
            assert caught.value.option == OPTION


def test_a_file_without_users_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_text("\n# nobody yet\n")
    with pytest.raises(exc.HTTPUnauthorized):
        ask(HttpBasic(build_conf(http_basic_auth_user_file=str(path))), encode("rita", ""))


class TestGuesses:
    """bcrypt takes its time in the threads that answer everybody."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def checks(self, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
        """The passwords that bcrypt was given."""
        given: list[bytes] = []
        check = bcrypt.checkpw

        def note(password: bytes, digest: bytes) -> bool:
            given.append(password)
            return check(password, digest)

        monkeypatch.setattr(bcrypt, "checkpw", note)
        return given

    @pytest.fixture
    def guarded(self, path: Path, clock: FakeClock) -> HttpBasic:
        return build_strategy(path, clock)

    def guess(self, strategy: HttpBasic, number: int, user: str = "rita", address: str = "192.0.2.1") -> type:
        try:
            ask(strategy, encode(user, f"wrong-{number}"), REMOTE_ADDR=address)
        except exc.HTTPException as error:
            return type(error)
        raise AssertionError("a wrong password was let in")

    def test_a_source_that_guesses_waits(self, guarded: HttpBasic, clock: FakeClock, checks: list[bytes]) -> None:
        answers = [self.guess(guarded, number, f"user{number}") for number in range(50)]
        assert answers == [exc.HTTPUnauthorized] * SOURCE_BURST + [exc.HTTPTooManyRequests] * (50 - SOURCE_BURST)
        assert len(checks) == SOURCE_BURST
        clock.now_s += SOURCE_REFILL_S
        assert [self.guess(guarded, 50), self.guess(guarded, 51)] == [exc.HTTPUnauthorized, exc.HTTPTooManyRequests]

    def test_it_is_told_when_to_come_back(self, guarded: HttpBasic) -> None:
        for number in range(SOURCE_BURST):
            self.guess(guarded, number)
        with pytest.raises(exc.HTTPTooManyRequests) as caught:
            ask(guarded, encode("rita", "páss:word"), REMOTE_ADDR="192.0.2.1")
        assert caught.value.headers["Retry-After"] == "5"

    def test_a_good_user_of_another_source_notices_nothing(self, guarded: HttpBasic) -> None:
        for number in range(50):
            self.guess(guarded, number)
        assert ask(guarded, encode("rita", "páss:word"), REMOTE_ADDR="192.0.2.2").user_id == "rita"

    def test_a_user_whose_password_was_right_is_let_in_from_the_source_that_guesses(
        self, guarded: HttpBasic, checks: list[bytes]
    ) -> None:
        for number in range(50):
            assert ask(guarded, encode("rita", "páss:word"), REMOTE_ADDR="192.0.2.1").user_id == "rita"
            self.guess(guarded, number)
        assert checks.count("páss:word".encode()) == 1

    def test_guesses_for_one_user_from_everywhere_are_bounded(self, guarded: HttpBasic, checks: list[bytes]) -> None:
        for number in range(100):
            self.guess(guarded, number, "rita", f"192.0.2.{number}")
        assert len(checks) == USER_BURST, WRONG_S
        assert ask(guarded, encode("bert", "b"), REMOTE_ADDR="192.0.2.200").user_id == "bert"

    def test_guesses_do_not_lock_a_user_out_from_where_the_password_was_right_before(
        self, guarded: HttpBasic, clock: FakeClock
    ) -> None:
        """Two addresses guess as often as they may, which is more often than the user's bound refills."""
        good = functools.partial(ask, guarded, encode("rita", "páss:word"))
        good(REMOTE_ADDR="192.0.2.8")
        # Known without a check: there too the password was right.
        good(REMOTE_ADDR="192.0.2.9")
        clock.now_s += KNOWN_S
        for number in range(100):
            for source in range(USER_BURST if number == 0 else 2):
                self.guess(guarded, 100 * number + source, "rita", f"192.0.2.{100 + source}")
            for address in ("192.0.2.8", "192.0.2.9"):
                assert good(REMOTE_ADDR=address).user_id == "rita"
            clock.now_s += SOURCE_REFILL_S
            # Otherwise the next one would need no check.
            guarded._limits._known._ends_at.clear()
        for source in range(USER_BURST):
            self.guess(guarded, 100_000 + source, "rita", f"192.0.2.{100 + source}")
        with pytest.raises(exc.HTTPTooManyRequests):
            good(REMOTE_ADDR="192.0.2.7")
        # The source's own bound is for it all the same.
        answers = [self.guess(guarded, number, "rita", "192.0.2.9") for number in range(SOURCE_BURST + 1)]
        assert answers == [exc.HTTPUnauthorized] * SOURCE_BURST + [exc.HTTPTooManyRequests]

    def test_what_was_right_is_forgotten_with_its_time_or_its_line(
        self, guarded: HttpBasic, clock: FakeClock, checks: list[bytes], path: Path
    ) -> None:
        for _ in range(3):
            ask(guarded, encode("bert", "b"))
        clock.now_s += KNOWN_S
        ask(guarded, encode("bert", "b"))
        assert len(checks) == 2
        path.write_text(build_line("bert", "new"))
        with pytest.raises(exc.HTTPUnauthorized):
            ask(guarded, encode("bert", "b"))
        path.write_text("# nobody")
        with pytest.raises(exc.HTTPUnauthorized):
            ask(guarded, encode("bert", "new"))

    def test_many_requests_with_one_right_password_are_one_check(self, guarded: HttpBasic, checks: list[bytes]) -> None:
        seen: list[str | None] = []
        threads = [
            threading.Thread(target=lambda: seen.append(ask(guarded, encode("bert", "b")).user_id)) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (seen, len(checks)) == (["bert"] * 20, 1)

    def test_many_requests_with_one_wrong_password_are_one_check(
        self, guarded: HttpBasic, clock: FakeClock, checks: list[bytes]
    ) -> None:
        """They wait for it in the threads that answer everybody: one after the other would be 250 ms for each."""
        seen: list[type] = []
        threads = [
            threading.Thread(target=lambda n=n: seen.append(self.guess(guarded, 1, address=f"192.0.2.{n}")))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (seen, len(checks)) == ([exc.HTTPUnauthorized] * 20, 1)
        clock.now_s += WRONG_S
        assert self.guess(guarded, 1) is exc.HTTPUnauthorized
        assert len(checks) == 2

    def test_guesses_leave_threads_for_others(self, guarded: HttpBasic) -> None:
        """Of one source, for users of other sources; of several, for users whose password is known."""
        good = functools.partial(ask, guarded, encode("rita", "páss:word"), REMOTE_ADDR="192.0.2.200")
        ask(guarded, encode("bert", "b"))
        with contextlib.ExitStack() as stack:
            for number in range(build_conf().api.workers // 2):
                address = f"192.0.2.{number // 2}"
                if number == 2:
                    assert self.guess(guarded, 1, "x", "192.0.2.0") is exc.HTTPTooManyRequests
                    assert self.guess(guarded, 1, "x", "192.0.2.100") is exc.HTTPUnauthorized
                under_way = guarded._limits.build_attempt(address, "x", "", b"")
                assert stack.enter_context(guarded._limits.checking(under_way))
            for _ in range(2 * SOURCE_BURST):
                with pytest.raises(exc.HTTPTooManyRequests) as caught:
                    good()
                assert caught.value.headers["Retry-After"] == "1"
                assert ask(guarded, encode("bert", "b"), REMOTE_ADDR="192.0.2.0").user_id == "bert"
        # Such a refusal costs no allowance.
        assert [good().user_id for _ in range(2)] == ["rita"] * 2
        assert not guarded._limits._checking

    def test_what_costs_no_check_costs_no_allowance(self, guarded: HttpBasic) -> None:
        for header in [None, "Basic !", encode("rita", "x" * 73), encode("", "x")] * SOURCE_BURST:
            with pytest.raises(exc.HTTPUnauthorized):
                ask(guarded, header, REMOTE_ADDR="192.0.2.1")
        assert ask(guarded, encode("bert", "b"), REMOTE_ADDR="192.0.2.1").user_id == "bert"


class TestInTheApplication:
    """The answers a client gets."""

    @pytest.fixture
    def api(self, path: Path) -> Api:
        conf = build_conf(auth_strategy="http_basic", http_basic_auth_user_file=str(path), admin_users=["root"])
        instances = [build_instance(1, project_id="rita"), build_instance(2, project_id="bert"), build_instance(3)]
        return Api(instances, conf)

    def test_anonymous_requests_get_401_and_the_open_documents(self, api: Api) -> None:
        for path in ("/", "/v2.1", "/v2.1/", "/healthcheck"):
            assert api.get(path).status_int == 200
        response = api.get("/v2.1/servers", "2.6")
        assert (response.status_int, list(response.json)) == (401, ["unauthorized"])
        assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert response.headers["OpenStack-API-Version"] == "compute 2.6"

    def test_everybody_sees_the_own_and_an_administrator_all(self, api: Api) -> None:
        def names(user: str, password: str, query: str = "") -> set[str]:
            response = api.get(f"/v2.1/servers{query}", headers={"Authorization": encode(user, password)})
            return {server["name"] for server in response.json["servers"]}

        assert names("rita", "páss:word") == {"vm1"}
        assert names("bert", "b") == {"vm2"}
        assert names("root", "toor") == {"vm3"}
        assert names("root", "toor", "?all_tenants=1") == {"vm1", "vm2", "vm3"}

    def test_the_list_of_all_projects_is_for_administrators(self, api: Api) -> None:
        for listing in ["/v2.1/servers", "/v2.1/servers/detail"]:
            with naming(listing):
                response = api.get(f"{listing}?all_tenants=1", headers={"Authorization": encode("bert", "b")})
                assert (response.status_int, list(response.json)) == (403, ["forbidden"])

    def test_the_host_filter_is_too_and_is_passed_over_for_others(self, api: Api) -> None:
        headers = {"Authorization": encode("bert", "b")}
        assert len(api.get("/v2.1/servers?host=elsewhere", headers=headers).json["servers"]) == 1
        headers = {"Authorization": encode("root", "toor")}
        assert api.get("/v2.1/servers?host=elsewhere", headers=headers).json["servers"] == []

    def test_an_order_by_host_is_the_administrators(self, api: Api) -> None:
        """It would tell which servers share one."""
        for key, listing in itertools.product(["host", "node"], ["/v2.1/servers", "/v2.1/servers/detail"]):
            with naming(key, listing):
                headers = {"Authorization": encode("bert", "b")}
                response = api.get(f"{listing}?sort_key=uuid&sort_key={key}", headers=headers)
                assert (response.status_int, list(response.json)) == (403, ["forbidden"])
                assert api.get(f"{listing}?sort_key=uuid", headers=headers).status_int == 200
                assert (
                    api.get(f"{listing}?sort_key={key}", headers={"Authorization": encode("root", "toor")}).status_int
                    == 200
                )

    def test_the_errors_of_the_application_are_not_the_users(self, api: Api) -> None:
        headers = {"Authorization": encode("bert", "b")}
        assert api.get(f"/v2.1/servers/{build_uuid(1)}", headers=headers).status_int == 404
        assert api.get("/v2.1/servers?limit=x", headers=headers).status_int == 400
        assert api.post("/v2.1/servers", {}, headers=headers).status_int == 405
        api.compute.error = errors.HostUnavailable("host-a")
        body = {"os-getVNCConsole": {"type": "novnc"}}
        assert api.post(f"/v2.1/servers/{build_uuid(2)}/action", body, headers=headers).status_int == 503

    def test_a_source_that_guesses_gets_429_and_the_time_to_wait(self, api: Api) -> None:
        headers = {"Authorization": encode("bert", "wrong")}
        answers = [api.get("/v2.1/servers", headers=headers) for _ in range(SOURCE_BURST + 1)]
        assert [answer.status_int for answer in answers] == [401] * SOURCE_BURST + [429]
        assert list(answers[-1].json) == ["overLimit"]
        assert int(answers[-1].headers["Retry-After"]) > 0
        assert api.get("/healthcheck").status_int == 200

    def test_a_file_that_is_gone_is_503(self, api: Api, path: Path) -> None:
        path.unlink()
        response = api.get("/v2.1/servers", headers={"Authorization": encode("bert", "b")})
        assert (response.status_int, list(response.json)) == (503, ["serviceUnavailable"])
