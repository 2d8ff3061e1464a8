# SPDX-License-Identifier: Apache-2.0
"""The user and the id of a request: carried by every RPC, and shown in every log line of the request.

Why: oslo.log, oslo.policy and keystonemiddleware understand oslo.context. The credentials (``auth_token``) stay in the
api: no other daemon needs them, so no message carries them.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from oslo_context import context as oslo_context

from porthole_common.private_parts import report_missing

# Keys of oslo.context's to_dict that repeat others, and that its from_dict does not read.
_REPEATED = frozenset({"project", "user_identity"})


class RequestContext(oslo_context.RequestContext):
    """oslo.context's RequestContext; a daemon's own work runs under :func:`build_daemon_context`."""

    def to_dict(self) -> dict[str, Any]:
        """Return oslo.context's dictionary without the credentials."""
        values = super().to_dict()
        values["auth_token"] = None
        return values

    def to_message(self) -> dict[str, Any]:
        """Return the part of :meth:`to_dict` that has values: a message carries it, for ``from_dict`` at the other end.

        oslo.messaging packs and unpacks every key by itself.
        """
        return {key: value for key, value in self.to_dict().items() if value is not None and key not in _REPEATED}


def build_daemon_context() -> RequestContext:
    """Return an administrator's context with a fresh request id, for work that no user requested."""
    return RequestContext(is_admin=True, overwrite=False)


def build_request_context(**fields: Any) -> RequestContext:
    """Return a context with ``fields`` that does not become this thread's own.

    oslo.context makes the first context of a thread the thread's own. A thread that makes contexts for others would
    then write all its lines in the name of the first user.
    """
    before = oslo_context.get_current()
    context = RequestContext(**fields, overwrite=False)
    if before is None:
        _forget_current()
    return context


def get_current() -> RequestContext:
    """Return the context of the request that this thread serves, or a daemon's context where it serves none."""
    current = oslo_context.get_current()
    return current if isinstance(current, RequestContext) else build_daemon_context()


@contextlib.contextmanager
def serving(context: RequestContext) -> Iterator[None]:
    """Make ``context`` this thread's within a block. Behind the block the thread has none, until its next request."""
    context.update_store()
    try:
        yield
    finally:
        # The block may have made another context current: the user is known later than the request.
        _forget_current()


def _forget_current() -> None:
    # oslo.context has no public way; its own test fixture does the same.
    store = getattr(oslo_context, "_request_store", None)
    if store is None:
        report_missing("oslo.context", "context._request_store", "A log line may name the request before its own.")
        return
    vars(store).pop("context", None)
