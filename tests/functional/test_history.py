# SPDX-License-Identifier: Apache-2.0
"""The history of consoles on real daemons: what is in it, and what no outage may do to it or to a console."""

import signal
import uuid as uuidlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from websockets.sync.connection import Connection

from porthole_common import errors
from porthole_common.history.event import EventKind, HistoryEvent
from porthole_consoleauth.history import schema
from porthole_consoleauth.history.database import Database
from porthole_consoleauth.history.writing import PRESUMED_REASON
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from support.console import ask_console, get_console, open_console, read_greeting, refusal, token_of, wait_for_instances
from support.consoleauth import Caller, context
from support.daemons import Porthole
from support.memcached import Memcached
from support.postgresql import PostgreSQL
from support.processes import wait_until
from support.rabbitmq import RabbitMQ
from support.vnc_servers import EchoVnc

# py-amqp leaves the socket of a connection that broke to the garbage collector: see test_consoleauth_outages.py.
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
MakePorthole = Callable[..., Porthole]
TIMEOUT_S = 45
QUICK = {"rpc": {"call_timeout": 3}, "history": {"enabled": True, "proxy_timeout": 6}}


@pytest.fixture
def uuid() -> str:
    return str(uuidlib.uuid4())


@pytest.fixture
def instances(tmp_path: Path, echo: EchoVnc, uuid: str) -> Path:
    path = tmp_path / "instances.yaml"
    instance = {"uuid": uuid, "name": "one", "host": echo.host, "port": echo.port}
    path.write_text(yaml.safe_dump({"instances": [instance]}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


class History:
    """The history of one instance, as a client of consoleauth reads it."""

    def __init__(self, api: ConsoleAuthAPI, uuid: str) -> None:
        self._api, self._uuid = api, uuid

    def list(self, *kinds: EventKind) -> list[HistoryEvent]:
        """Return the events, oldest first; none while the history is away."""
        try:
            events, _ = self._api.list_events(context(), {"server": self._uuid}, 1000)
        except errors.Unavailable:
            return []
        return [event for event in reversed(events) if not kinds or event.kind in kinds]

    def wait(self, count: int, *kinds: EventKind) -> Sequence[HistoryEvent]:
        """Return the events once there are ``count`` of them."""
        wait_until(lambda: len(self.list(*kinds)) >= count, TIMEOUT_S, f"{count} events of {kinds}")
        events = self.list(*kinds)
        assert len(events) == count, events
        return events


@contextmanager
def console(porthole: Porthole, uuid: str) -> Iterator[Connection]:
    """An open console."""
    with open_console(porthole.novnc_port, token_of(get_console(porthole, uuid))) as connection:
        read_greeting(connection)
        yield connection


def visit(porthole: Porthole, uuid: str, times: int = 1) -> None:
    """Open consoles and close them, one after the other."""
    for _ in range(times):
        with console(porthole, uuid):
            pass


OPENED, CLOSED = EventKind.SESSION_OPENED, EventKind.SESSION_CLOSED


def test_from_the_token_to_the_end(
    make_porthole: MakePorthole, caller: Caller, instances: Path, uuid: str, stack: ExitStack
) -> None:
    options = {**QUICK, "novncproxy": {"workers": 2, "max_sessions_per_token": 1}}
    porthole = make_porthole(instances_file=instances, options=options)
    wait_for_instances(porthole, uuid)
    history = History(caller.api, uuid)
    tokens = [token_of(get_console(porthole, uuid)) for _ in range(3)]
    for token in tokens:
        with open_console(porthole.novnc_port, token) as connection:
            read_greeting(connection)
            connection.send(b"x" * 1000)
            assert connection.recv(timeout=20)
    events = history.wait(9)
    assert Counter(event.kind for event in events) == {EventKind.TOKEN_CREATED: 3, OPENED: 3, CLOSED: 3}
    for opened, closed in zip(history.list(OPENED), history.list(CLOSED), strict=True):
        assert (opened.session_id, opened.client, opened.mode) == (closed.session_id, "127.0.0.1", "control")
        assert (closed.code, closed.compute_host) == (1000, porthole.host)
        assert closed.bytes_from_client == 1000
        assert closed.opened_at is not None
        assert abs((closed.opened_at - opened.at).total_seconds()) < 0.5
        # The same id in the lines of the session.
        assert porthole.novncproxy.log().count(f"session={opened.session_id}") == 2
    assert not any(token in porthole.consoleauth.log() for token in tokens)
    assert porthole.consoleauth.log().count("History event stored") == 9


def test_a_proxy_that_is_killed_or_frozen(
    make_porthole: MakePorthole, caller: Caller, instances: Path, uuid: str, stack: ExitStack
) -> None:
    porthole = make_porthole(instances_file=instances, options=QUICK)
    wait_for_instances(porthole, uuid)
    history = History(caller.api, uuid)
    stack.enter_context(console(porthole, uuid))
    (opened,) = history.wait(1, OPENED)
    proxy = porthole.novncproxy
    proxy.signal(signal.SIGSTOP)
    (closed,) = history.wait(1, CLOSED)
    assert (closed.session_id, closed.reason) == (opened.session_id, PRESUMED_REASON)
    proxy.signal(signal.SIGCONT)
    wait_until(lambda: not history.list(CLOSED), TIMEOUT_S, "the session to be open again")
    proxy.kill()
    porthole.start_daemon("novncproxy")
    (closed,) = history.wait(1, CLOSED)
    assert closed.session_id == opened.session_id
    # It was not the restart that did it: a session of the new process stays open.
    stack.enter_context(console(porthole, uuid))
    porthole.consoleauth.wait_for_line("Sessions closed", TIMEOUT_S)
    assert len(history.wait(2, OPENED)) == 2
    assert len(history.list(CLOSED)) == 1


def test_consoles_open_while_the_database_is_away_and_the_history_says_afterwards(
    make_porthole: MakePorthole, caller: Caller, postgresql: PostgreSQL, instances: Path, uuid: str
) -> None:
    url = postgresql.make_url(f"history_{uuid}")
    schema.sync(Database(sa.make_url(url)))
    options = {**QUICK, "database": {"connection": url}}
    porthole = make_porthole(instances_file=instances, options=options)
    wait_for_instances(porthole, uuid)
    history = History(caller.api, uuid)
    visit(porthole, uuid)
    history.wait(3)
    for hurt, mend in ((postgresql.kill, postgresql.start), (postgresql.pause, postgresql.resume)):
        before = len(history.list())
        hurt()
        try:
            visit(porthole, uuid, 5)
            porthole.novncproxy.wait_for_line("History not delivered", TIMEOUT_S)
            # A proxy that ends meanwhile leaves it to the next one.
            porthole.novncproxy.stop()
            porthole.start_daemon("novncproxy")
            visit(porthole, uuid)
        finally:
            mend()
        history.wait(before + 18)
    sessions = [event for event in history.list() if event.session_id]
    # Each end stands behind its beginning, and before the beginning of the next.
    assert [event.kind for event in sessions] == [OPENED, CLOSED] * 13
    assert all(a.session_id == b.session_id for a, b in zip(sessions[::2], sessions[1::2], strict=True))


def test_a_spool_that_cannot_be_written_costs_nobody_a_console(
    make_porthole: MakePorthole, caller: Caller, postgresql: PostgreSQL, instances: Path, uuid: str
) -> None:
    url = postgresql.make_url(f"history_{uuid}")
    schema.sync(Database(sa.make_url(url)))
    options = {**QUICK, "database": {"connection": url}, "DEFAULT": {"state_path": "/proc/nowhere"}}
    porthole = make_porthole(instances_file=instances, options=options)
    wait_for_instances(porthole, uuid)
    visit(porthole, uuid, 3)
    History(caller.api, uuid).wait(9)
    for daemon in (porthole.novncproxy, porthole.consoleauth):
        assert daemon.log().count("History spool not writable") == 1


def test_tables_that_are_not_there_cost_nobody_a_console(
    make_porthole: MakePorthole, caller: Caller, postgresql: PostgreSQL, instances: Path, uuid: str
) -> None:
    url = postgresql.make_url(f"history_{uuid}")
    porthole = make_porthole(instances_file=instances, options={**QUICK, "database": {"connection": url}})
    wait_for_instances(porthole, uuid)
    visit(porthole, uuid)
    porthole.consoleauth.wait_for_line("History schema not current", TIMEOUT_S)
    assert "porthole-manage db sync" in porthole.consoleauth.log()
    schema.sync(Database(sa.make_url(url)))
    History(caller.api, uuid).wait(3)
    assert porthole.consoleauth.log().count("History schema not current") == 1


def test_a_second_consoleauth_on_sqlite_is_named(
    make_porthole: MakePorthole, caller: Caller, instances: Path, uuid: str
) -> None:
    porthole = make_porthole(instances_file=instances, options=QUICK)
    wait_for_instances(porthole, uuid)
    other = porthole.add("consoleauth", "other", {"DEFAULT": {"host": "elsewhere", "state_path": porthole.directory}})
    other.start()
    other.wait_for_line("Daemon ready")
    porthole.consoleauth.wait_for_line("History refused", TIMEOUT_S)
    assert "consoleauth also runs on elsewhere" in porthole.consoleauth.log()
    visit(porthole, uuid)
    with pytest.raises(errors.HistoryUnavailable, match=r"\[database\] connection"):
        caller.api.list_events(context(), {}, 10)
    other.stop()
    History(caller.api, uuid).wait(3)


@pytest.mark.timeout(240)
def test_sessions_while_each_part_is_killed_in_turn(
    make_porthole: MakePorthole,
    make_caller: Callable[[RabbitMQ], Caller],
    own_rabbitmq: RabbitMQ,
    own_memcached: Memcached,
    instances: Path,
    uuid: str,
    report: Callable[[str], None],
    stack: ExitStack,
) -> None:
    porthole = make_porthole(rabbitmq=own_rabbitmq, memcached=own_memcached, instances_file=instances, options=QUICK)
    wait_for_instances(porthole, uuid)
    api = make_caller(own_rabbitmq).api
    history = History(api, uuid)
    count = 0
    for name in ("consoleauth", "novncproxy", "compute", "broker", "memcached"):
        visit(porthole, uuid, 20)
        for _ in range(3):
            stack.enter_context(console(porthole, uuid))
        count += 23
        # The events of some milliseconds are not spooled yet; a proxy that is killed then loses them.
        wait_until(lambda: len(history.list(OPENED)) == count, TIMEOUT_S, "the openings")  # noqa: B023
        if name == "broker":
            own_rabbitmq.kill()
            own_rabbitmq.start()
        elif name == "memcached":
            own_memcached.restart()
        else:
            porthole.processes[name].kill()
            porthole.start_daemon(name)
        wait_for_instances(porthole, uuid)
        wait_until(lambda: ask_console(porthole, uuid)[0] == 200, TIMEOUT_S, "a console again")
    stack.close()
    wait_until(lambda: len(history.list(CLOSED)) >= count, TIMEOUT_S, "the ends")
    opened = Counter(event.session_id for event in history.list(OPENED))
    closed = Counter(event.session_id for event in history.list(CLOSED))
    report(f"history: {len(opened)} sessions, {sum(opened.values())} openings, {sum(closed.values())} ends")
    assert set(opened.values()) == {1}
    assert opened == closed


def test_an_old_consoleauth_is_no_trouble(make_porthole: MakePorthole, instances: Path, uuid: str) -> None:
    options = {**QUICK, "upgrade_levels": {"consoleauth": "1.3"}}
    porthole = make_porthole(instances_file=instances, options=options)
    wait_for_instances(porthole, uuid)
    visit(porthole, uuid)
    porthole.novncproxy.wait_for_line("History not delivered", TIMEOUT_S)
    assert refusal(porthole.novnc_port, token_of(get_console(porthole, uuid))) == 101
    assert list((porthole.directory / "state" / "spool").glob("novncproxy-*.spool"))
