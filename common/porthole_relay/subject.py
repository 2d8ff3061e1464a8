# SPDX-License-Identifier: Apache-2.0
"""What a session is about, for its lines in the log.

Why: a library that knew tokens or admissions could serve only the proxy; these are plain values. Called by
:mod:`porthole_relay.session`, and built by its owner.
"""

from dataclasses import dataclass

from porthole_common.context import RequestContext, build_request_context


@dataclass(frozen=True, slots=True)
class Subject:
    """``client`` is an address, the rest are names and ids; ``request_id`` is that of the request that opened it."""

    instance_uuid: str
    console_type: str
    client: str
    request_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None

    @property
    def context(self) -> RequestContext:
        """The context of its lines in the log, built on demand: a context is much larger than its inputs."""
        return build_request_context(request_id=self.request_id, user_id=self.user_id, project_id=self.project_id)
