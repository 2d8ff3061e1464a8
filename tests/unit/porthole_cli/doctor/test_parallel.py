# SPDX-License-Identifier: Apache-2.0
import threading

import pytest

from porthole_cli.doctor.parallel import AT_ONCE, NotDone, gather


def test_answers_come_in_the_order_of_the_questions() -> None:
    questions = [lambda number=number: number for number in range(3 * AT_ONCE)]
    assert gather(questions, 10) == list(range(3 * AT_ONCE))


def test_no_question() -> None:
    assert gather([], 10) == []


def test_an_error_is_an_answer_and_spoils_no_other() -> None:
    def fail() -> int:
        raise ValueError("x")

    first, second = gather([fail, lambda: 1], 10)
    assert isinstance(first, ValueError)
    assert second == 1


@pytest.mark.parametrize("stuck", [1, AT_ONCE])
def test_what_is_stuck_is_left_behind(stuck: int) -> None:
    never = threading.Event()
    try:
        answers = gather([lambda: 7, *[never.wait] * stuck], 0.2)
    finally:
        never.set()
    assert answers[0] == 7
    assert all(isinstance(answer, NotDone) for answer in answers[1:])
