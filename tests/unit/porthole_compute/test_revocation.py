# SPDX-License-Identifier: Apache-2.0

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.model import RevocationReason
from porthole_compute.revocation import Revoker
from support.cases import naming
from support.compute_fakes import OTHER_UUID, TIMEOUT_S, UUID
from support.scrapes import Growth

HOST = "host1"
MOVED = RevocationReason.MOVED
DOWN = errors.TokenStoreUnavailable("down")


class Consoleauth:
    """A TokenDeleter; ``failing`` gives the error for an instance, and whose turn it was waits in ``calls``."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.revoked: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.gate = threading.Event()
        self.gate.set()

    def delete_tokens_for_instance(
        self, context: RequestContext, instance_uuid: str, compute_host: str | None, reason: RevocationReason
    ) -> int:
        assert context.is_admin
        assert (compute_host, reason) == (HOST, MOVED)
        self.calls.put(instance_uuid)
        self.gate.wait(TIMEOUT_S)
        if instance_uuid in self.failing:
            raise self.failing[instance_uuid]
        self.revoked.append(instance_uuid)
        return 2

    def next(self) -> str:
        return self.calls.get(timeout=TIMEOUT_S)


@pytest.fixture
def consoleauth() -> Consoleauth:
    return Consoleauth()


@contextmanager
def making_revoker(consoleauth: Consoleauth) -> Iterator[Revoker]:
    revoker = Revoker(HOST, consoleauth, first_retry_s=0.001, last_retry_s=0.002, max_pending=3)
    try:
        yield revoker
    finally:
        consoleauth.failing.clear()
        revoker.stop(TIMEOUT_S)


@pytest.fixture
def revoker(consoleauth: Consoleauth) -> Iterator[Revoker]:
    with making_revoker(consoleauth) as revoker:
        yield revoker


def test_each_instance_is_revoked(revoker: Revoker, consoleauth: Consoleauth) -> None:
    revoker.start()
    revoker.revoke(UUID, MOVED)
    assert consoleauth.next() == UUID
    revoker.revoke(OTHER_UUID, MOVED)
    assert consoleauth.next() == OTHER_UUID


def test_revoke_waits_for_nobody(revoker: Revoker, consoleauth: Consoleauth) -> None:
    consoleauth.gate.clear()
    revoker.start()
    revoker.revoke(UUID, MOVED)
    assert consoleauth.next() == UUID
    revoker.revoke(OTHER_UUID, MOVED)
    assert consoleauth.revoked == []
    consoleauth.gate.set()
    assert consoleauth.next() == OTHER_UUID


def test_what_fails_is_tried_until_it_works_and_logged_once(
    revoker: Revoker, consoleauth: Consoleauth, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    consoleauth.failing[UUID] = DOWN
    revoker.start()
    revoker.revoke(UUID, MOVED)
    assert [consoleauth.next() for _ in range(5)] == [UUID] * 5
    del consoleauth.failing[UUID]
    revoker.stop(TIMEOUT_S)
    assert consoleauth.revoked == [UUID]
    assert caplog.text.count("Revocations failing") == 1


def test_no_error_ends_the_thread_or_holds_up_others() -> None:
    cases = [errors.RpcUnavailable("consoleauth", "x"), errors.RequestInvalid("x"), KeyError()]
    for error in cases:
        consoleauth = Consoleauth()
        with naming(error), making_revoker(consoleauth) as revoker:
            consoleauth.failing[UUID] = error
            revoker.start()
            revoker.revoke(UUID, MOVED)
            assert consoleauth.next() == UUID
            revoker.revoke(OTHER_UUID, MOVED)
            while consoleauth.next() != OTHER_UUID:
                pass


def test_a_new_one_does_not_wait_for_the_next_try_of_those_that_failed(consoleauth: Consoleauth) -> None:
    """One memcached of several may be down for hours; the instances of the others are revoked at once."""
    patient = Revoker(HOST, consoleauth, first_retry_s=3600, last_retry_s=3600)
    consoleauth.failing[UUID] = DOWN
    patient.start()
    patient.revoke(UUID, MOVED)
    assert consoleauth.next() == UUID
    patient.revoke(OTHER_UUID, MOVED)
    assert consoleauth.next() == OTHER_UUID
    consoleauth.failing.clear()
    patient.stop(TIMEOUT_S)
    assert consoleauth.revoked == [OTHER_UUID, UUID]


def test_an_instance_waits_once(revoker: Revoker, consoleauth: Consoleauth) -> None:
    for _ in range(10):
        revoker.revoke(UUID, MOVED)
    assert revoker.revoke_pending()
    assert consoleauth.revoked == [UUID]


def test_an_instance_that_ends_again_meanwhile_is_revoked_again(revoker: Revoker, consoleauth: Consoleauth) -> None:
    consoleauth.gate.clear()
    revoker.start()
    revoker.revoke(UUID, MOVED)
    assert consoleauth.next() == UUID
    revoker.revoke(UUID, MOVED)
    consoleauth.gate.set()
    assert consoleauth.next() == UUID


def test_what_waits_is_bounded(revoker: Revoker, consoleauth: Consoleauth, caplog: pytest.LogCaptureFixture) -> None:
    for uuid in "abcd":
        revoker.revoke(uuid, MOVED)
    assert "the tokens will expire instance=a\n" in caplog.text
    assert revoker.revoke_pending()
    assert consoleauth.revoked == ["b", "c", "d"]


def test_stop_tries_once_more(revoker: Revoker, consoleauth: Consoleauth, caplog: pytest.LogCaptureFixture) -> None:
    slow = Revoker(HOST, consoleauth, first_retry_s=3600)
    consoleauth.failing[UUID] = DOWN
    slow.start()
    slow.revoke(UUID, MOVED)
    assert consoleauth.next() == UUID
    slow.stop(TIMEOUT_S)
    assert consoleauth.next() == UUID
    assert "the tokens will expire instances=1\n" in caplog.text


def test_what_waits_is_measured(consoleauth: Consoleauth) -> None:
    pending = Growth("porthole_revocations_pending")
    consoleauth.gate.clear()
    with making_revoker(consoleauth) as revoker:
        revoker.start()
        revoker.revoke(UUID, MOVED)
        consoleauth.next()
        revoker.revoke(OTHER_UUID, MOVED)
        assert pending.grown == 1
        consoleauth.gate.set()
        consoleauth.next()
    assert pending.grown == 0
