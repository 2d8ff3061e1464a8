# SPDX-License-Identifier: Apache-2.0
"""What the lists of sessions and of the history have in common: their query, whose items a user sees, and the history.

Called by :mod:`porthole_api.handlers.audit` and :mod:`porthole_api.handlers.sessions`.
"""

from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

from porthole_api.policy import Policy
from porthole_api.request import Request
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.history.event import HistoryEvent

_AWAY = "it cannot be read now"


class EventLister(Protocol):
    """The part of :class:`porthole_consoleauth.rpcapi.ConsoleAuthAPI` that is used here."""

    def list_events(  # noqa: D102
        self, context: RequestContext, filters: dict[str, str], limit: int, marker: str | None = None
    ) -> tuple[list[HistoryEvent], bool]: ...


@dataclass(frozen=True)
class ListRules:
    """The policy rules of a list: ``index`` for the user's own project, ``all_projects`` for everybody's."""

    index: str
    all_projects: str

    def restrict(self, policy: Policy, context: RequestContext, filters: dict[str, str]) -> bool:
        """Restrict ``filters`` to the user's project; return whether the user sees all projects.

        :raises PolicyForbidden: when the user may see no list, or asks for another project's items or for a host's.
        """
        if policy.allows(context, self.all_projects):
            return True
        policy.authorize(context, self.index)
        is_foreign = filters.get("project_id", context.project_id) != context.project_id
        if is_foreign or "host" in filters or context.project_id is None:
            raise errors.PolicyForbidden(self.all_projects)
        filters["project_id"] = context.project_id
        return False


def read_query(request: Request, known: Set[str]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Return the query's parameters in their order, and by their names.

    :raises RequestInvalid: when one is not among ``known``, or is given twice.
    """
    pairs = request.parse_query_pairs()
    query = dict(pairs)
    unknown = sorted(query.keys() - known)
    if unknown:
        raise errors.RequestInvalid(f"There is no query parameter {unknown[0][:64]!r}.")
    if len(pairs) != len(query):
        raise errors.RequestInvalid("A query parameter is given twice.")
    return pairs, query


def list_events(
    consoleauth: EventLister,
    context: RequestContext,
    filters: dict[str, str],
    limit: int,
    marker: str | None,
    sees_all: bool,
) -> tuple[list[HistoryEvent], bool]:
    """Return a page of the history, newest first, and whether there are more.

    :raises HistoryUnavailable: when it cannot be read; only a user who sees all projects is told why.
    """
    try:
        return consoleauth.list_events(context, filters, limit, marker)
    except errors.HistoryUnavailable as exc:
        # The reason may quote the database, with its address.
        raise exc if sees_all else errors.HistoryUnavailable(_AWAY) from None
