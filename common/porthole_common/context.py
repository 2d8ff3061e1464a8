# SPDX-License-Identifier: Apache-2.0
"""Who asks, and under which request id: carried by every RPC and shown in every log line of a request.

Why: oslo.context is what oslo.log, oslo.policy and keystonemiddleware already understand. The credentials
themselves (``auth_token``) end at the api: no other daemon needs them, so they never cross the wire.
"""

from typing import Any

from oslo_context import context as oslo_context


class RequestContext(oslo_context.RequestContext):
    """oslo.context's RequestContext; a daemon's own work runs under :func:`build_daemon_context`."""

    def to_dict(self) -> dict[str, Any]:
        """Return oslo.context's dictionary without the credentials."""
        values = super().to_dict()
        values["auth_token"] = None
        return values


def build_daemon_context() -> RequestContext:
    """Return an administrator's context with a fresh request id, for work no user asked for."""
    return RequestContext(is_admin=True, overwrite=False)
