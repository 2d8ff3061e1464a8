# SPDX-License-Identifier: Apache-2.0
"""What a session is about, for its lines in the log.

Why: a library that knew tokens or admissions could serve only the proxy; these are plain values. Called by
:mod:`porthole_relay.session`, and built by its owner.
"""

from dataclasses import dataclass

from porthole_common.context import RequestContext, build_request_context
from porthole_common.log import get_logger

# The lines are those of the session.
LOG = get_logger("porthole_relay.session")


@dataclass(frozen=True, slots=True)
class Subject:
    """``client`` is an address, the rest are names and ids; ``request_id`` is that of the request that opened it.

    ``session_id`` is a UUID, which stands in each line of the session.
    """

    instance_uuid: str
    console_type: str
    client: str
    request_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    session_id: str | None = None

    @property
    def context(self) -> RequestContext:
        """The context of its lines in the log, built on demand: a context is much larger than its inputs."""
        return build_request_context(request_id=self.request_id, user_id=self.user_id, project_id=self.project_id)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session stands, and how it ended: ``code`` is that of the close frame, None without one."""

    code: int | None
    reason: str
    bytes_to_client: int
    bytes_from_client: int
    seconds: float


def log_end(subject: Subject, outcome: Outcome) -> None:
    """Log the line of a session that has ended."""
    LOG.info(
        "Console closed",
        context=subject.context,
        session=subject.session_id,
        instance=subject.instance_uuid,
        console_type=subject.console_type,
        client=subject.client,
        code=outcome.code,
        reason=outcome.reason,
        bytes_to_client=outcome.bytes_to_client,
        bytes_from_client=outcome.bytes_from_client,
        seconds=outcome.seconds,
    )


def log_fault(subject: Subject, fault: Exception) -> None:
    """Log an error of the relay's own, which ends the session."""
    LOG.error(
        "Console ended by an internal error",
        exc_info=fault,
        context=subject.context,
        session=subject.session_id,
        instance=subject.instance_uuid,
    )
