# SPDX-License-Identifier: Apache-2.0
"""Whether consoles that were issued are still valid: one before it is dialled, or many at once.

Why: a proxy that has missed a revocation asks again about all its sessions at this host, in one call. A guest about
which libvirt does not answer must hold up neither the other answers nor the users' questions. So several guests are
asked about side by side, in fewer threads than the driver has questions, and a batch has a deadline.
Called by :mod:`porthole_compute.endpoint`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from porthole_common import errors
from porthole_common.log import get_logger
from porthole_common.model import ConsoleType, Target, TokenReason, is_uuid
from porthole_common.thread_pool import Job, ThreadPool
from porthole_compute.drivers import ComputeDriver

LOG = get_logger(__name__)
# Half of the questions that the driver of libvirt asks at once: the other half is left to users.
THREADS = 4
# Longer than one question may take, so that its thread goes on with others; shorter than the call of the proxy.
BATCH_TIMEOUT_S = 6.0
# By instance and console type.
FindTarget = Callable[[str, ConsoleType], Target]


@dataclass(frozen=True)
class IssuedConsole:
    """A console as it was issued. Its values are as they came, and may be malformed."""

    instance_uuid: str
    host: str
    port: int | str
    console_type: str

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``{instance_uuid, host, port, console_type}``; keys of a newer version are ignored.

        :raises KeyError: when a key is missing.
        """
        return cls(str(value["instance_uuid"]), str(value["host"]), value["port"], str(value["console_type"]))


def find_target(driver: ComputeDriver, instance_uuid: str, console_type: ConsoleType) -> Target:
    """Return where the instance's VNC server listens now.

    :raises InstanceNotFound: when ``instance_uuid`` is not a UUID.
    :raises PortholeError: what :meth:`ComputeDriver.get_vnc_target` raises.
    """
    if not is_uuid(instance_uuid):
        raise errors.InstanceNotFound(instance_uuid)
    return driver.get_vnc_target(instance_uuid, console_type)


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

        :raises TokenInvalid: when the VNC server is elsewhere; when the instance is gone, stopped or migrating, or no
            longer offers a console of the type.
        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """
        if issued.console_type not in set(ConsoleType):
            raise errors.TokenInvalid(str(TokenReason.CONSOLE_TYPE))
        console_type = ConsoleType(issued.console_type)
        try:
            asked = Target.from_primitive({"host": issued.host, "port": issued.port})
            target = find_target(self._driver, issued.instance_uuid, console_type)
        except (errors.NotFound, errors.Conflict, errors.ConsoleTypeUnavailable, TypeError, ValueError) as exc:
            LOG.info("Console no longer valid", instance=issued.instance_uuid, console_type=console_type, reason=exc)
            raise errors.TokenInvalid(str(TokenReason.INSTANCE_GONE)) from exc
        if asked != target:
            LOG.info(
                "Console no longer valid",
                instance=issued.instance_uuid,
                console_type=console_type,
                reason="it was issued for another address",
                issued_for=str(asked),
                address=str(target),
            )
            raise errors.TokenInvalid(str(TokenReason.INSTANCE_GONE))
        return target

    def validate_all(self, consoles: Sequence[IssuedConsole]) -> list[Target | errors.PortholeError]:
        """Return for each console what :meth:`validate` returns or raises, in the same order; in bounded time.

        A console without an answer at the deadline of the batch gets HypervisorUnavailable.
        """
        due_at = time.monotonic() + self._batch_timeout_s
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
            return self.validate(issued)
        except errors.PortholeError as exc:
            # Without the traceback, which would keep the frames of this thread.
            return exc.local()
        except Exception:
            # A fault of Porthole's about one guest must not cost the other guests their answers.
            LOG.exception("Console not validated", instance=issued.instance_uuid)
            return errors.HypervisorUnavailable(self._host)
