# SPDX-License-Identifier: Apache-2.0
"""Deadlines of tests, and that no test waits without one."""

import ast
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadlines import MACHINE_SLACK_S, call_within, join_within, kept_within

TESTS = Path(__file__).parents[2]
# Without arguments they wait for as long as it takes: those of threads, processes, queues, futures, events, pipes and
# WebSockets. str.join and dict.get take an argument.
WAITING_METHODS = {"wait", "join", "get", "result", "recv"}
SUBPROCESS_CALLS = {"run", "call", "check_call", "check_output"}
# Name, and the number of positional arguments with which the timeout is among them.
WAITING_CALLS = {"communicate": 2, "create_connection": 2, "urlopen": 3, "HTTPConnection": 3, "HTTPSConnection": 5}


def find_waits(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each call that is known to wait without a deadline."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    # asyncio.wait_for(call(), timeout)
    bounded = {id(argument) for call in calls if name_of(call) == "wait_for" for argument in call.args}
    for call in calls:
        if id(call) not in bounded and waits_without_deadline(call):
            yield call.lineno, ast.unparse(call)


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def waits_without_deadline(call: ast.Call) -> bool:
    name, is_method = name_of(call), isinstance(call.func, ast.Attribute)
    if any(keyword.arg in {None, "timeout", "timeout_s"} for keyword in call.keywords):
        # Given by name, or among the unpacked ones.
        return False
    if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "subprocess":
        return name in SUBPROCESS_CALLS
    if name in WAITING_CALLS:
        return len(call.args) < WAITING_CALLS[name]
    if name == "settimeout":
        return ast.unparse(call.args[0]) == "None"
    if name == "select":
        # The other select is a method of selectors, which the stand-ins for servers wait in.
        return len(call.args) == 3
    return is_method and name in WAITING_METHODS and not call.args and not call.keywords


def test_no_test_waits_without_a_deadline() -> None:
    paths = sorted(TESTS.rglob("*.py"))
    assert len(paths) > 100
    found = [
        f"{path.relative_to(TESTS)}:{line}: {call}"
        for path in paths
        for line, call in find_waits(path.read_text(encoding="utf-8"))
    ]
    assert not found, "calls that wait without a deadline:\n" + "\n".join(found)


def test_waits_are_told_from_calls_with_a_deadline() -> None:
    waits = (
        "subprocess.run(['x'], check=True)",
        "subprocess.check_output(['x'])",
        "process.communicate(b'input')",
        "process.wait()",
        "thread.join()",
        "queue.get()",
        "future.result()",
        "client.recv()",
        "socket.create_connection(('h', 1))",
        "select.select([a], [], [])",
        "sock.settimeout(None)",
        "urllib.request.urlopen('http://h')",
        "http.client.HTTPConnection('h', 1)",
    )
    bounded = (
        "subprocess.run(['x'], timeout=5)",
        "process.communicate(timeout=5)",
        "process.wait(5)",
        "thread.join(5)",
        "', '.join(words)",
        "queue.get(timeout=5)",
        "{}.get('key')",
        "future.result(timeout=5)",
        "sock.recv(5)",
        "client.recv(timeout_s=5)",
        "asyncio.wait_for(client.recv(), 5)",
        "socket.create_connection(('h', 1), 5)",
        "select.select([a], [], [], 5)",
        "sock.settimeout(5)",
        "urllib.request.urlopen('http://h', timeout=5)",
        "http.client.HTTPConnection('h', 1, timeout=5)",
        "call(**options)",
    )
    for call in waits:
        assert list(find_waits(call)) == [(1, call)]
    for call in bounded:
        assert list(find_waits(call)) == [], call


def test_a_call_with_a_deadline() -> None:
    assert call_within(30, lambda: 7, "seven") == 7
    with pytest.raises(ZeroDivisionError):
        call_within(30, lambda: 1 // 0, "a division")
    let_go = threading.Event()
    with pytest.raises(AssertionError, match=r"^no return after 0\.05 s: an event$"):
        call_within(0.05, lambda: let_go.wait(30), "an event")
    let_go.set()


def test_threads_are_joined_by_a_deadline() -> None:
    let_go = threading.Event()
    thread = threading.Thread(target=let_go.wait, args=(30,), name="slow")
    thread.start()
    with pytest.raises(AssertionError, match="slow"):
        join_within(0.05, thread)
    let_go.set()
    join_within(30, thread)


def test_a_promise_has_the_machines_allowance_on_top() -> None:
    limit_s = 2 + MACHINE_SLACK_S
    with kept_within(2, "an answer", iter((100.0, 100.0 + limit_s - 1)).__next__):
        pass
    with (
        pytest.raises(AssertionError, match=r"^an answer: took .* promised 2 s"),
        kept_within(2, "an answer", iter((100.0, 100.0 + limit_s)).__next__),
    ):
        pass
