# SPDX-License-Identifier: Apache-2.0
"""Whether consoles that were issued are still valid: one before it is dialled, or many at once.

Why: a proxy asks in one call about consoles that are opened at the same time, and about all its sessions at this host
after it may have missed a revocation. A guest about which libvirt does not answer must hold up neither the other
answers nor the users' questions. So several guests are asked about side by side, in fewer threads than the driver has
questions, and a batch has a deadline.
Called by :mod:`porthole_compute.endpoint`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from porthole_common import errors
from porthole_common.log import get_logger
from porthole_common.model import Claim, ConsoleType, Target, TokenReason, is_uuid
from porthole_common.thread_pool import Job, ThreadPool
from porthole_compute.drivers import ComputeDriver, VncServer

LOG = get_logger(__name__)
# Half of the questions that the driver of libvirt asks at once: the other half is left to users.
THREADS = 4
# Longer than one question may take, so that its thread goes on with others; shorter than the call of the proxy.
BATCH_TIMEOUT_S = 6.0


@dataclass(frozen=True)
class IssuedConsole:
    """A console as it was issued. Its values are as they came, and may be malformed."""

    instance_uuid: str
    host: str
    port: int | str
    console_type: str
    run: str | None = None
    owner: dict[str, Any] | None = None

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from what ``Claim.to_primitive`` writes; keys of a newer version are ignored.

        :raises KeyError: when a required key is missing.
        """
        return cls(
            instance_uuid=str(value["instance_uuid"]),
            host=str(value["host"]),
            port=value["port"],
            console_type=str(value["console_type"]),
            run=value.get("run"),
            owner=value.get("owner"),
        )

    def parse(self) -> Claim:
        """Return it as a claim.

        :raises ValueError: when a value does not parse, or, as TypeError, is not of its type.
        """
        return Claim.from_primitive(vars(self))


def find_difference(claim: Claim, server: VncServer) -> tuple[TokenReason, str] | None:
    """Return why ``claim`` is not true of ``server``, for the user and in words for the log; None when it is true.

    A claim of an older version has no run or no owner, and these are not compared.
    """
    if claim.target != server.target:
        return TokenReason.INSTANCE_GONE, "it was issued for another address"
    if claim.run is not None and server.run is not None and claim.run != server.run:
        return TokenReason.INSTANCE_GONE, "it was issued for an earlier run of the guest"
    if claim.owner is not None and claim.owner != server.owner:
        return TokenReason.OWNER_CHANGED, "it was issued while the instance had another owner"
    return None


def find_server(driver: ComputeDriver, instance_uuid: str, console_type: ConsoleType) -> VncServer:
    """Return the instance's VNC server as it is now.

    :raises InstanceNotFound: when ``instance_uuid`` is not a UUID.
    :raises PortholeError: what :meth:`ComputeDriver.get_vnc_server` raises.
    """
    if not is_uuid(instance_uuid):
        raise errors.InstanceNotFound(instance_uuid)
    return driver.get_vnc_server(instance_uuid, console_type)


class ConsoleValidator:
    """Compares issued consoles with what ``driver`` says now. Thread-safe."""

    def __init__(
        self, driver: ComputeDriver, host: str, threads: int = THREADS, batch_timeout_s: float = BATCH_TIMEOUT_S
    ) -> None:
        """``host`` is named where its hypervisor has no answer."""
        self._driver = driver
        self._host = host
        self._threads = ThreadPool("validation", threads)
        self._batch_timeout_s = batch_timeout_s

    def validate(self, issued: IssuedConsole) -> Target:
        """Return where the console's VNC server listens now, which is where it was when the console was issued.

        :raises TokenInvalid: when the VNC server is elsewhere, or is that of another run of the guest; when the
            instance is gone, stopped or migrating, has another owner, or no longer offers a console of the type.
        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """
        try:
            return self._confirm(issued)
        except errors.InstanceNotReady as exc:
            raise _refuse(issued, exc) from exc

    def _confirm(self, issued: IssuedConsole) -> Target:
        """Do as :meth:`validate`, but let InstanceNotReady pass, which says nothing about an open console."""
        if issued.console_type not in set(ConsoleType):
            raise errors.TokenInvalid(str(TokenReason.CONSOLE_TYPE))
        console_type = ConsoleType(issued.console_type)
        try:
            claim = issued.parse()
            server = find_server(self._driver, claim.instance_uuid, console_type)
        except (
            errors.NotFound,
            errors.InstanceNotRunning,
            errors.ConsoleTypeUnavailable,
            TypeError,
            ValueError,
        ) as exc:
            raise _refuse(issued, exc) from exc
        if difference := find_difference(claim, server):
            token_reason, words = difference
            LOG.info(
                "Console no longer valid",
                instance=issued.instance_uuid,
                console_type=console_type,
                reason=words,
                issued_for=str(claim.target),
                address=str(server.target),
            )
            raise errors.TokenInvalid(str(token_reason))
        return server.target

    def validate_all(
        self, consoles: Sequence[IssuedConsole], timeout_s: float | None = None
    ) -> list[Target | errors.PortholeError]:
        """Return for each console what :meth:`validate` returns or raises, in the same order; in bounded time.

        There are two differences. An instance that is not ready has InstanceNotReady: a guest that migrates shows its
        screen here until the end. A console without an answer at the deadline of the batch has HypervisorUnavailable;
        the deadline comes after ``timeout_s``, if that is shorter than the validator's own.
        """
        own_s = self._batch_timeout_s
        due_at = time.monotonic() + (own_s if timeout_s is None else min(timeout_s, own_s))
        # The consoles of one instance, one after the other: about an instance one question is asked at a time.
        numbers: dict[str, list[int]] = {}
        for number, issued in enumerate(consoles):
            numbers.setdefault(issued.instance_uuid, []).append(number)
        jobs = {uuid: self._begin([consoles[number] for number in numbers[uuid]]) for uuid in numbers}
        answers: list[Target | errors.PortholeError] = [errors.HypervisorUnavailable(self._host)] * len(consoles)
        for uuid, job in jobs.items():
            if job.wait(max(0.0, due_at - time.monotonic())):
                for number, answer in zip(numbers[uuid], job.get_result(), strict=True):
                    answers[number] = answer
            else:
                self._threads.withdraw(job)
        return answers

    def _begin(self, consoles: list[IssuedConsole]) -> Job:
        job = Job(lambda: [self._answer(issued) for issued in consoles])
        self._threads.start(job)
        return job

    def _answer(self, issued: IssuedConsole) -> Target | errors.PortholeError:
        try:
            return self._confirm(issued)
        except errors.PortholeError as exc:
            # Without the traceback, which would keep the frames of this thread.
            return exc.local()
        except Exception:
            # A fault of Porthole's about one guest must not cost the other guests their answers.
            LOG.exception("Console not validated", instance=issued.instance_uuid)
            return errors.HypervisorUnavailable(self._host)


def _refuse(issued: IssuedConsole, reason: Exception) -> errors.TokenInvalid:
    LOG.info("Console no longer valid", instance=issued.instance_uuid, console_type=issued.console_type, reason=reason)
    return errors.TokenInvalid(str(TokenReason.INSTANCE_GONE))
