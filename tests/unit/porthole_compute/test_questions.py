# SPDX-License-Identifier: Apache-2.0

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from porthole_compute.drivers.questions import NoAnswer, Questions
from support.deadlines import call_within, join_within
from support.processes import wait_until

PATIENCE_S = 30
# Of a question that must not end: the test lets its call return.
SOON_S = 0.05
LIMIT = 3


class Lock:
    """What a call waits for; ``calls`` counts those that have begun."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.calls = threading.Semaphore(0)

    def hold(self) -> str:
        self.calls.release()
        assert self.released.wait(PATIENCE_S)
        return "late"


@pytest.fixture
def changes() -> queue.SimpleQueue[None]:
    return queue.SimpleQueue()


@pytest.fixture
def lock() -> Iterator[Lock]:
    lock = Lock()
    yield lock
    lock.released.set()


@pytest.fixture
def make_questions(changes: queue.SimpleQueue[None], lock: Lock) -> Iterator[Callable[[float], Questions]]:
    made = []

    def make(timeout_s: float) -> Questions:
        made.append(Questions(LIMIT, timeout_s, lambda: changes.put(None)))
        return made[-1]

    yield make
    lock.released.set()
    for questions in made:
        questions.close()


def assert_no_answer(questions: Questions, subject: str, work: Callable[[], object]) -> None:
    with pytest.raises(NoAnswer) as caught:
        call_within(PATIENCE_S, lambda: questions.ask(subject, work), "a question")
    assert caught.value.subject == subject


def test_the_answer_is_returned_or_raised(make_questions: Callable[[float], Questions]) -> None:
    questions = make_questions(PATIENCE_S)
    assert questions.ask("a", lambda: 5) == 5
    for error in (ValueError("x"), SystemExit(3)):
        with pytest.raises(type(error)) as caught:
            questions.ask("a", lambda error=error: raise_(error))
        assert caught.value is error


def raise_(error: BaseException) -> None:
    raise error


def test_a_caller_goes_on_at_its_deadline_and_nothing_else_is_asked(
    make_questions: Callable[[float], Questions], lock: Lock, changes: queue.SimpleQueue[None]
) -> None:
    questions = make_questions(SOON_S)
    assert_no_answer(questions, "a", lock.hold)
    changes.get(timeout=PATIENCE_S)
    assert questions.get_overdue() == ["a"]
    asked: list[int] = []
    assert_no_answer(questions, "a", lambda: asked.append(1))
    assert asked == []
    lock.released.set()
    changes.get(timeout=PATIENCE_S)
    assert questions.get_overdue() == []
    assert questions.ask("a", lambda: "new") == "new"
    assert changes.empty()


def test_one_question_at_a_time_about_a_subject(make_questions: Callable[[float], Questions], lock: Lock) -> None:
    questions = make_questions(PATIENCE_S)
    order: list[str] = []
    first = threading.Thread(target=lambda: order.append(questions.ask("a", lock.hold)), daemon=True)
    first.start()
    assert lock.calls.acquire(timeout=PATIENCE_S)
    second = threading.Thread(target=lambda: questions.ask("a", lambda: order.append("second")), daemon=True)
    second.start()
    assert questions.ask("b", lambda: order) == []
    lock.released.set()
    join_within(PATIENCE_S, first, second)
    assert sorted(order) == ["late", "second"]


def test_who_waits_for_a_turn_goes_on_when_the_question_before_is_overdue(
    make_questions: Callable[[float], Questions], lock: Lock
) -> None:
    questions = make_questions(SOON_S)
    refused: list[NoAnswer] = []

    def ask() -> None:
        try:
            questions.ask("a", lock.hold)
        except NoAnswer as exc:
            refused.append(exc)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    join_within(PATIENCE_S, *threads)
    assert len(refused) == 20
    assert lock.calls.acquire(blocking=False)
    assert not lock.calls.acquire(blocking=False)


def test_threads_are_bounded_and_their_last_one_answers_the_others(
    make_questions: Callable[[float], Questions], lock: Lock
) -> None:
    questions = make_questions(SOON_S)
    before = threading.active_count()
    for number in range(LIMIT - 1):
        assert_no_answer(questions, str(number), lock.hold)
    # The answers of the others come in time: SOON_S is of those that are held.
    wait_until(lambda: answers(questions), PATIENCE_S, "an answer")
    assert_no_answer(questions, "last", lock.hold)
    assert_no_answer(questions, "one more", lambda: pytest.fail("it was asked"))
    assert threading.active_count() <= before + LIMIT
    lock.released.set()
    wait_until(lambda: questions.get_overdue() == [], PATIENCE_S, "all answers")
    wait_until(lambda: answers(questions), PATIENCE_S, "an answer")
    assert threading.active_count() <= before + LIMIT


def answers(questions: Questions) -> bool:
    try:
        return questions.ask("healthy", lambda: True)
    except NoAnswer:
        return False


def test_an_overdue_call_that_fails_is_over_too(make_questions: Callable[[float], Questions], lock: Lock) -> None:
    questions = make_questions(SOON_S)

    def fail_late() -> None:
        lock.hold()
        raise ValueError("late")

    assert_no_answer(questions, "a", fail_late)
    lock.released.set()
    wait_until(lambda: questions.get_overdue() == [], PATIENCE_S, "the end of the call")


def test_close_ends_the_threads_and_refuses(make_questions: Callable[[float], Questions]) -> None:
    questions = make_questions(PATIENCE_S)
    before = threading.active_count()
    questions.ask("a", lambda: None)
    questions.close()
    wait_until(lambda: threading.active_count() <= before, PATIENCE_S, "the end of the threads")
    assert_no_answer(questions, "a", lambda: pytest.fail("it was asked"))
