# SPDX-License-Identifier: Apache-2.0
import inspect
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.model import ConnectInfo, ConsoleMode, ConsoleType, Owner, RevocationReason, TokenReason
from porthole_common.notifications import Revocation
from porthole_consoleauth import endpoint as endpoint_module
from porthole_consoleauth import rpcapi
from porthole_consoleauth.endpoint import ConsoleAuthEndpoint
from porthole_consoleauth.memory_store import MemoryStore
from porthole_consoleauth.rpcapi import ConsoleAuthAPI, TokenWish
from porthole_consoleauth.token_store import StoredConsole
from support.bus import expected_error, fake_bus
from support.cases import naming
from support.descriptions import make_store, make_vitals
from support.scrapes import Growth

TOKEN = "0f1e2d3c-4b5a-4978-8697-a5b4c3d2e1f0"
INSTANCE = "7f3a5c1e-0b1d-4c2e-9f00-aabbccddeeff"
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
TTL_S = 600
INFO = ConnectInfo(
    instance_uuid=INSTANCE,
    console_type=ConsoleType.NOVNC,
    host="192.0.2.1",
    port=5901,
    access_url=f"http://proxy:6080/console.html?path=%3Ftoken%3D{TOKEN}",
    compute_host="host1",
    token=TOKEN,
    run="run-1",
    owner=Owner("project-1", "user-1"),
)


class Publisher:
    """Notes what is published, or finds no broker."""

    def __init__(self) -> None:
        self.published: list[Revocation] = []
        self.broken = False

    def publish(self, context: RequestContext, revocation: Revocation) -> None:
        if self.broken:
            raise errors.RpcUnavailable("porthole.revocations", "revoke_instance")
        self.published.append(revocation)


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def build_endpoint(publisher: Publisher) -> ConsoleAuthEndpoint:
    return ConsoleAuthEndpoint(MemoryStore(), publisher, TTL_S, lambda: make_vitals("host1"), clock=lambda: NOW)


@pytest.fixture
def endpoint(publisher: Publisher) -> ConsoleAuthEndpoint:
    return build_endpoint(publisher)


def context() -> RequestContext:
    return RequestContext(user_id="user1", project_id="project1", overwrite=False)


def arguments(**changes: Any) -> dict[str, Any]:
    value = INFO.to_primitive()
    del value["expires_at"]
    return value | changes


def refused(method: Callable[..., Any], **values: Any) -> Exception:
    """Return the expected error of an endpoint's method."""
    return expected_error(lambda: method(context(), **values))


def test_authorize_says_when_the_token_expires(endpoint: ConsoleAuthEndpoint) -> None:
    answer = endpoint.authorize_console(context(), **arguments())
    assert datetime.fromisoformat(answer["expires_at"]) == NOW + timedelta(seconds=TTL_S)


def test_the_store_ends_a_token_when_its_user_was_told(publisher: Publisher) -> None:
    """The time has one owner (O13)."""
    now_s = [0.0]
    store = MemoryStore(clock=lambda: now_s[0])
    endpoint = ConsoleAuthEndpoint(store, publisher, 42, lambda: make_vitals("host1"), clock=lambda: NOW)
    answer = endpoint.authorize_console(context(), **arguments())
    assert datetime.fromisoformat(answer["expires_at"]) == NOW + timedelta(seconds=42)
    now_s[0] = 41.9
    assert endpoint.check_token(context(), token=TOKEN)["expires_at"] == answer["expires_at"]
    now_s[0] = 42.1
    assert isinstance(refused(endpoint.check_token, token=TOKEN), errors.TokenInvalid)


class SilentAboutTime(MemoryStore):
    """A store that does not say how long a token lives."""

    def check(self, token: str) -> StoredConsole:
        return replace(super().check(token), remaining_s=None)


def test_check_says_how_many_seconds_are_left(publisher: Publisher) -> None:
    """By the store's clock: two consoleauths may have clocks that differ."""
    now_s, now = [0.0], [NOW]
    for store, expected in (
        (MemoryStore(clock=lambda: now_s[0]), 570.0),
        # Then by this consoleauth's clock, which may have been set, and so never more than a new token has.
        (SilentAboutTime(clock=lambda: now_s[0]), 0.0),
    ):
        now_s[0], now[0] = 0.0, NOW
        endpoint = ConsoleAuthEndpoint(store, publisher, TTL_S, lambda: make_vitals("host1"), clock=lambda: now[0])
        endpoint.authorize_console(context(), **arguments())
        now_s[0], now[0] = 30.0, NOW + timedelta(seconds=700)
        assert endpoint.check_token(context(), token=TOKEN)["remaining_s"] == expected
    now[0] = NOW - timedelta(hours=1)
    assert endpoint.check_token(context(), token=TOKEN)["remaining_s"] == TTL_S


def test_check_returns_connect_info_without_the_token(endpoint: ConsoleAuthEndpoint) -> None:
    endpoint.authorize_console(context(), **arguments())
    answer = endpoint.check_token(context(), token=TOKEN)
    assert TOKEN not in repr(answer)
    expected = replace(INFO, token=None, access_url="http://proxy:6080", expires_at=NOW + timedelta(seconds=TTL_S))
    expected = replace(expected, user_id=context().user_id, project_id=context().project_id)
    assert expected.user_id
    assert ConnectInfo.from_primitive(answer) == expected


def test_a_port_as_text_is_stored_as_a_number(endpoint: ConsoleAuthEndpoint) -> None:
    """So that what is compared later is one (C11)."""
    endpoint.authorize_console(context(), **arguments(port="5901"))
    assert endpoint.check_token(context(), token=TOKEN)["port"] == 5901


def test_an_argument_that_does_not_parse() -> None:
    cases = [
        ("port", "x"),
        ("port", 0),
        ("port", None),
        ("console_type", "spice"),
        ("access_url", "nowhere"),
        ("instance_uuid", "x y"),
        ("run", 1),
        ("run", "x" * 256),
        ("owner", "project-1"),
        ("owner", {"project_id": 1}),
    ]
    for name, value in cases:
        with naming(name, value):
            endpoint = build_endpoint(Publisher())
            assert isinstance(refused(endpoint.authorize_console, **arguments(**{name: value})), errors.RequestInvalid)


def test_a_malformed_token() -> None:
    for token in [None, "", "x y", TOKEN.upper()]:
        with naming(token):
            endpoint = build_endpoint(Publisher())
            for method, values in (
                (endpoint.authorize_console, arguments(token=token)),
                (endpoint.check_token, {"token": token}),
            ):
                error = refused(method, **values)
                assert isinstance(error, errors.TokenInvalid)
                assert error.reason == TokenReason.MALFORMED


def test_revocation_is_published(endpoint: ConsoleAuthEndpoint, publisher: Publisher) -> None:
    endpoint.authorize_console(context(), **arguments())
    assert endpoint.delete_tokens_for_instance(context(), instance_uuid=INSTANCE) == 1
    assert publisher.published == [Revocation(INSTANCE)]
    assert isinstance(refused(endpoint.check_token, token=TOKEN), errors.TokenInvalid)


def test_revocation_of_nothing_is_published_too(endpoint: ConsoleAuthEndpoint, publisher: Publisher) -> None:
    assert endpoint.delete_tokens_for_instance(context(), instance_uuid=INSTANCE) == 0
    assert publisher.published == [Revocation(INSTANCE)]


def test_a_revocation_that_cannot_be_published_still_kills_and_can_be_repeated(
    endpoint: ConsoleAuthEndpoint, publisher: Publisher
) -> None:
    endpoint.authorize_console(context(), **arguments())
    publisher.broken = True
    assert isinstance(refused(endpoint.delete_tokens_for_instance, instance_uuid=INSTANCE), errors.RpcUnavailable)
    assert isinstance(refused(endpoint.check_token, token=TOKEN), errors.TokenInvalid)
    publisher.broken = False
    endpoint.delete_tokens_for_instance(context(), instance_uuid=INSTANCE)
    assert publisher.published == [Revocation(INSTANCE)]


def test_a_revocation_for_one_host(endpoint: ConsoleAuthEndpoint, publisher: Publisher) -> None:
    """What the instance has elsewhere by now is not touched, and the proxies hear for which host it is, and why."""
    endpoint.authorize_console(context(), **arguments())
    for host, count in (("host2", 0), ("host1", 1)):
        values = {"instance_uuid": INSTANCE, "compute_host": host, "reason": "moved"}
        assert endpoint.delete_tokens_for_instance(context(), **values) == count
    assert publisher.published == [Revocation(INSTANCE, h, RevocationReason.MOVED) for h in ("host2", "host1")]
    assert isinstance(refused(endpoint.check_token, token=TOKEN), errors.TokenInvalid)


class StoreThatIsDown(MemoryStore):
    def revoke_instance(self, instance_uuid: str, compute_host: str | None = None) -> int:
        raise errors.TokenStoreUnavailable("down")


def test_a_store_that_is_down_keeps_no_session_open(publisher: Publisher) -> None:
    """The proxies are told all the same, and the caller that it is not done."""
    endpoint = ConsoleAuthEndpoint(StoreThatIsDown(), publisher, TTL_S, lambda: make_vitals("host1"))
    error = refused(endpoint.delete_tokens_for_instance, instance_uuid=INSTANCE)
    assert isinstance(error, errors.TokenStoreUnavailable)
    assert publisher.published == [Revocation(INSTANCE)]


def test_a_bad_instance_is_not_published(endpoint: ConsoleAuthEndpoint, publisher: Publisher) -> None:
    assert isinstance(refused(endpoint.delete_tokens_for_instance, instance_uuid="x"), errors.RequestInvalid)
    assert publisher.published == []


def test_one_line_per_event_names_the_instance_and_no_token(
    endpoint: ConsoleAuthEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.authorize_console(context(), **arguments())
    endpoint.check_token(context(), token=TOKEN)
    endpoint.delete_tokens_for_instance(context(), instance_uuid=INSTANCE)
    refused(endpoint.check_token, token=TOKEN)
    lines = [record.getMessage() for record in caplog.records if record.name == endpoint_module.__name__]
    assert len(lines) == 4
    assert all(INSTANCE in line for line in lines[:3])
    assert "project1" in lines[1]
    assert TOKEN not in caplog.text


# Those of porthole_consoleauth.history.endpoint, which has a test of its own.
HISTORY_METHODS = ("list_events", "record_events")
CLIENT_METHODS = [
    name
    for name, _ in inspect.getmembers(ConsoleAuthAPI, inspect.isfunction)
    if not name.startswith("_") and name not in HISTORY_METHODS
]


def test_client_and_endpoint_have_the_same_methods_and_version() -> None:
    served = [
        name for name, _ in inspect.getmembers(ConsoleAuthEndpoint, inspect.isfunction) if not name.startswith("_")
    ]
    assert served == CLIENT_METHODS
    assert ConsoleAuthEndpoint.target.version == rpcapi.VERSION


class RecordingRpc:
    """Stands in for :class:`porthole_common.rpc.Rpc`: notes the arguments of each call."""

    def __init__(self, level: str = "9.9", **checked: Any) -> None:
        """``checked``: what differs in the answer of check_token."""
        self.checked = checked
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.versions: dict[str, str] = {}
        self._level = level

    def may_send(self, topic: str, version: str) -> bool:
        return version <= self._level

    def get_client(self, topic: str, version: str) -> "RecordingClient":
        assert topic == rpcapi.TOPIC
        return RecordingClient(self, version)


class RecordingClient:
    """The client that :class:`RecordingRpc` gives for one version."""

    def __init__(self, rpc: RecordingRpc, version: str) -> None:
        self._rpc = rpc
        self._version = version

    def call(
        self, context: RequestContext, method: str, server: str | None = None, deadline: object = None, **values: Any
    ) -> Any:
        self._rpc.calls.append((method, values))
        self._rpc.versions[method] = self._version
        answers: dict[str, Any] = {
            "authorize_console": {"expires_at": NOW.isoformat()},
            "check_token": arguments() | self._rpc.checked,
            "describe_store": make_store().to_primitive(),
        }
        return answers.get(method, 1)


def test_what_the_client_sends_is_what_the_endpoint_takes() -> None:
    rpc = RecordingRpc()
    client = ConsoleAuthAPI(rpc)  # type: ignore[arg-type]
    client.authorize_console(context(), INFO, wish=TokenWish(ConsoleMode.VIEW, 1, 60))
    client.check_token(context(), TOKEN)
    client.delete_tokens_for_instance(context(), INSTANCE)
    client.describe_store(context(), "host1")
    client.spend_token(context(), TOKEN)
    assert [method for method, _ in rpc.calls] == CLIENT_METHODS
    assert rpc.versions.pop("describe_store") == "1.1"
    assert rpc.versions.pop("delete_tokens_for_instance") == "1.2"
    assert rpc.versions.pop("authorize_console") == "1.4"
    assert rpc.versions.pop("spend_token") == "1.4"
    # A proxy that is newer than its consoleauths must go on opening consoles.
    assert set(rpc.versions.values()) == {"1.0"}
    for method, values in rpc.calls:
        parameters = list(inspect.signature(getattr(ConsoleAuthEndpoint, method)).parameters)
        assert parameters[:2] == ["self", "context"]
        assert sorted(parameters[2:]) == sorted(values)


def test_an_answer_with_a_time_that_cannot_be_is_a_failure_of_consoleauth(caplog: pytest.LogCaptureFixture) -> None:
    """With NaN or Infinity a session would never end."""
    for remaining_s in (float("nan"), float("inf"), -1.0):
        with naming(remaining_s):
            caplog.clear()
            client = ConsoleAuthAPI(RecordingRpc(remaining_s=remaining_s))  # type: ignore[arg-type]
            with pytest.raises(errors.RemoteFailure):
                client.check_token(context(), TOKEN)
            assert "RPC answer not understood topic=consoleauth method=check_token" in caplog.text
            assert TOKEN not in caplog.text


def test_a_pinned_client_sends_what_an_older_endpoint_takes() -> None:
    rpc = RecordingRpc("1.1")
    ConsoleAuthAPI(rpc).delete_tokens_for_instance(context(), INSTANCE, "host1")  # type: ignore[arg-type]
    assert rpc.calls == [("delete_tokens_for_instance", {"instance_uuid": INSTANCE})]
    assert rpc.versions == {"delete_tokens_for_instance": "1.0"}


def test_a_console_that_an_older_endpoint_can_store() -> None:
    """That of an older compute names no run and no owner; and a pinned client names none."""
    older = replace(INFO, run=None, owner=None)
    for level, info in (("9.9", older), ("1.2", INFO), ("1.2", older)):
        with naming(level, info):
            rpc = RecordingRpc(level)
            ConsoleAuthAPI(rpc).authorize_console(context(), info)  # type: ignore[arg-type]
            assert rpc.versions == {"authorize_console": "1.0"}
            assert {"run", "owner"}.isdisjoint(rpc.calls[0][1])


def test_a_token_without_a_wish_is_sent_as_before() -> None:
    rpc = RecordingRpc()
    ConsoleAuthAPI(rpc).authorize_console(context(), INFO)  # type: ignore[arg-type]
    assert rpc.versions == {"authorize_console": "1.3"}
    assert {"mode", "uses", "ttl_s"}.isdisjoint(rpc.calls[0][1])


def test_what_a_user_asks_of_a_token(endpoint: ConsoleAuthEndpoint) -> None:
    said = endpoint.authorize_console(context(), **arguments(mode="view", uses=2, ttl_s=60))
    assert said == {"expires_at": (NOW + timedelta(seconds=60)).isoformat(), "uses": 2}
    found = ConnectInfo.from_primitive(endpoint.check_token(context(), token=TOKEN))
    assert (found.mode, found.uses) == (ConsoleMode.VIEW, 2)
    endpoint.spend_token(context(), token=TOKEN)
    endpoint.spend_token(context(), token=TOKEN)
    for call in (endpoint.spend_token, endpoint.check_token):
        error = refused(call, token=TOKEN)
        assert isinstance(error, errors.TokenInvalid)
        assert error.reason == TokenReason.SPENT


def test_the_option_decides_where_the_user_does_not(publisher: Publisher) -> None:
    for option, asked, uses in ((0, None, None), (1, None, 1), (1, 0, None), (3, 2, 2)):
        with naming(option, asked):
            endpoint = ConsoleAuthEndpoint(MemoryStore(), publisher, TTL_S, lambda: make_vitals("host1"), uses=option)
            assert endpoint.authorize_console(context(), **arguments(uses=asked))["uses"] == uses


def test_a_wish_that_cannot_be_is_refused(endpoint: ConsoleAuthEndpoint) -> None:
    for wish in ({"uses": -1}, {"uses": 1001}, {"uses": True}, {"uses": "1"}, {"ttl_s": 0}, {"ttl_s": TTL_S + 1}):
        with naming(wish):
            assert isinstance(refused(endpoint.authorize_console, **arguments(**wish)), errors.RequestInvalid)
    assert isinstance(refused(endpoint.authorize_console, **arguments(mode="admin")), errors.RequestInvalid)


def test_a_token_of_an_older_version_is_bound_to_no_run(endpoint: ConsoleAuthEndpoint) -> None:
    older = arguments()
    del older["run"], older["owner"]
    endpoint.authorize_console(context(), **older)
    answer = ConnectInfo.from_primitive(endpoint.check_token(context(), token=TOKEN))
    assert (answer.run, answer.owner) == (None, None)


def test_client_and_endpoint_over_the_bus(endpoint: ConsoleAuthEndpoint) -> None:
    with fake_bus() as bus:
        server = bus.get_server(rpcapi.TOPIC, "host1", [endpoint])
        server.start()
        client = ConsoleAuthAPI(bus)
        expires_at = client.authorize_console(context(), INFO).expires_at
        assert expires_at == NOW + timedelta(seconds=TTL_S)
        found = client.check_token(context(), TOKEN)
        assert (found.expires_at, found.claim) == (expires_at, INFO.claim)
        assert client.delete_tokens_for_instance(context(), INSTANCE) == 1
        with pytest.raises(errors.TokenInvalid) as caught:
            client.check_token(context(), TOKEN, server="host1")
        assert caught.value.reason == TokenReason.UNKNOWN
        assert client.describe_store(context(), "host1") == make_store("host1", servers={}, history="off")
        server.stop()


def test_what_happens_to_tokens_is_counted(endpoint: ConsoleAuthEndpoint) -> None:
    made = Growth("porthole_tokens_authorized_total", console_type="novnc")
    accepted, refusals = (Growth("porthole_token_checks_total", outcome=each) for each in ("accepted", "refused"))
    revoked = Growth("porthole_tokens_revoked_total", reason="moved")
    endpoint.authorize_console(context(), **arguments())
    endpoint.check_token(context(), token=TOKEN)
    assert endpoint.delete_tokens_for_instance(context(), INSTANCE, "host1", "moved") == 1
    refused(endpoint.check_token, token=TOKEN)
    assert [each.grown for each in (made, accepted, refusals, revoked)] == [1, 1, 1, 1]


def test_a_store_that_fails_is_counted_by_method(
    endpoint: ConsoleAuthEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise errors.TokenStoreUnavailable("down")

    for name in ("authorize", "check", "revoke_instance"):
        monkeypatch.setattr(endpoint._store, name, fail)
    for method, values in (
        (endpoint.authorize_console, arguments()),
        (endpoint.check_token, {"token": TOKEN}),
        (endpoint.delete_tokens_for_instance, {"instance_uuid": INSTANCE}),
    ):
        with naming(method.__name__):
            failures = Growth("porthole_token_store_failures_total", method=method.__name__)
            made = Growth("porthole_tokens_authorized_total")
            refused(method, **values)
            assert (failures.grown, made.grown) == (1, 0)


def test_equal_texts_of_many_consoles_are_one_object_and_no_token_is_among_them() -> None:
    """Thousands of open consoles have the same hosts and users, and each answer is parsed by itself."""
    texts = {"host": "192.0.2.1", "access_url": "http://x/", "compute_host": "c1", "user_id": "rita", "run": "12-34"}
    value = {"instance_uuid": "i-1", "console_type": "novnc", "port": 5900, "owner": {"user_id": "u"}, **texts}
    first, second = (ConnectInfo.from_primitive(rpcapi._share_texts(json.loads(json.dumps(value)))) for _ in range(2))
    for name in ("instance_uuid", *texts):
        with naming(name):
            assert getattr(first, name) is getattr(second, name)
    assert first.owner is not None
    assert second.owner is not None
    assert first.owner.user_id is second.owner.user_id
    assert rpcapi._share.cache_info().maxsize == 4096
