# SPDX-License-Identifier: Apache-2.0
"""Which servers a user sees: the directory, narrowed to the user's own servers and to the filters of the request.

Why: a server of the API is an instance of the directory. Only this module decides who may see it, so another project's
instance is hidden from lists and from console requests alike. Only administrators see an instance without an owner.
:mod:`porthole_api.policy` decides what a user may do with a visible server. Called by the handlers and by
:mod:`porthole_api.consoles`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import dropwhile, islice
from typing import Any

import re2

from porthole_api.directory import Directory, Located
from porthole_api.paging import MAX_LIMIT
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.model import InstanceState, is_uuid

# As Nova's display_name.
MAX_NAME_LENGTH = 255
# A text whose only special characters are dots, like most names: its longest part is searched first, which is faster.
_DOTTED = re.compile(r"[A-Za-z0-9_.-]*", re.ASCII)
# RE2 matches in linear time, and compiles no larger expression: so no user's filter can stop other users.
_RE2_MAX_BYTES = 1024 * 1024
_STATUSES = {
    InstanceState.RUNNING: "ACTIVE",
    InstanceState.PAUSED: "PAUSED",
    InstanceState.SUSPENDED: "SUSPENDED",
    InstanceState.SHUTOFF: "SHUTOFF",
    InstanceState.CRASHED: "ERROR",
    InstanceState.BUILDING: "BUILD",
    InstanceState.MIGRATING: "MIGRATING",
    # As in Nova, where a server keeps its status while its task_state is "deleting".
    InstanceState.DELETING: "ACTIVE",
    InstanceState.UNKNOWN: "UNKNOWN",
}
# The sort keys of Nova that Porthole can serve; None sorts as the empty text, first.
_SORT_VALUES: dict[str, Callable[[Located], Any]] = {
    "created_at": lambda located: located.created_at,
    "display_name": lambda located: located.instance.name,
    "host": lambda located: located.host,
    "node": lambda located: located.host,
    "project_id": lambda located: located.instance.project_id or "",
    "updated_at": lambda located: located.updated_at,
    "user_id": lambda located: located.instance.user_id or "",
    "uuid": lambda located: located.instance.uuid,
    "vm_state": lambda located: str(located.instance.state),
}
SORT_KEYS = frozenset(_SORT_VALUES)
# An order by these keys shows which servers share a host.
HOST_SORT_KEYS = frozenset({"host", "node"})


def get_status(located: Located) -> str:
    """Return Nova's server status of the instance."""
    return _STATUSES[located.instance.state]


@dataclass(frozen=True)
class Filters:
    """The filters of a list; None: no filter. ``limit`` is 1 to MAX_LIMIT, ``marker`` a UUID.

    ``name`` matches anywhere in a name, as text or as a regular expression of RE2's dialect, and ignores case, as Nova
    on MySQL. ``all_projects`` needs the policy; ``project_id`` narrows it. ``sort`` holds pairs of (one of SORT_KEYS,
    whether descending), the most important first; without it a list is sorted by name.
    """

    name: str | None = None
    status: str | None = None
    host: str | None = None
    project_id: str | None = None
    all_projects: bool = False
    marker: str | None = None
    limit: int = MAX_LIMIT
    sort: tuple[tuple[str, bool], ...] = ()


def get_server(directory: Directory, context: RequestContext, server_id: str) -> Located:
    """Return the instance that ``server_id`` names in a URL.

    :raises InstanceNotFound: when it is not a UUID, is unknown, or is hidden from the user.
    :raises RpcUnavailable: when no compute has answered yet.
    """
    uuid = server_id.lower()
    if not is_uuid(uuid):
        raise errors.InstanceNotFound(server_id)
    located = directory.get(uuid)
    check_visible(located, context, server_id)
    # For the log, which names only an instance that exists: a URL may hold any text, also a token.
    context.resource_uuid = uuid
    return located


def check_visible(located: Located, context: RequestContext, server_id: str) -> None:
    """Check that the user may know of the instance, which the user called ``server_id``.

    :raises InstanceNotFound: when it is hidden from the user.
    """
    if not _is_visible(located, context):
        raise errors.InstanceNotFound(server_id)


def list_servers(directory: Directory, context: RequestContext, filters: Filters) -> tuple[list[Located], bool]:
    """Return the user's servers in order, at most ``filters.limit``, and whether more follow.

    :raises RequestInvalid: when the marker does not exist, or the name filter is too long.
    :raises RpcUnavailable: when the computes could not be asked yet.
    """
    matching = (
        located
        for located in _list_in_order(directory, context, filters)
        if (filters.status is None or get_status(located) == filters.status)
        and (filters.host is None or located.host == filters.host)
        and (filters.project_id is None or located.instance.project_id == filters.project_id)
    )
    found = list(islice(matching, filters.limit + 1))
    return found[: filters.limit], len(found) > filters.limit


def _list_in_order(directory: Directory, context: RequestContext, filters: Filters) -> Iterable[Located]:
    """Return the servers that the user may list, that match the name filter, and that follow the marker."""
    has_name = _build_name_filter(filters.name) if filters.name else None
    marker = filters.marker.lower() if filters.marker is not None else None
    if marker is not None:
        _check_marker(directory, context, filters, marker)
    try:
        if not filters.sort:
            return _keep_listed(directory.list_instances(marker, has_name), context, filters)
        # The name filter may exclude the marker, so it is applied after the marker is found.
        instances = directory.list_instances(has_name=has_name if marker is None else None)
        order = _sort(_keep_listed(instances, context, filters), filters)
    except errors.InstanceNotFound:
        raise _refuse_marker(marker) from None
    if marker is None:
        return order
    behind = islice(dropwhile(lambda located: located.instance.uuid != marker, order), 1, None)
    return behind if has_name is None else (located for located in behind if has_name(located.instance.name))


def _keep_listed(instances: Iterable[Located], context: RequestContext, filters: Filters) -> Iterator[Located]:
    return (located for located in instances if _is_listed(located, context, filters))


def _sort(instances: Iterable[Located], filters: Filters) -> list[Located]:
    # The instances are ordered by name and UUID, and sorting is stable: servers keep their places between two pages.
    order = list(instances)
    for key, is_descending in reversed(filters.sort):
        order.sort(key=_SORT_VALUES[key], reverse=is_descending)
    return order


def _check_marker(directory: Directory, context: RequestContext, filters: Filters, marker: str) -> None:
    try:
        is_there = is_uuid(marker) and _is_listed(directory.get(marker), context, filters)
    except errors.InstanceNotFound:
        is_there = False
    if not is_there:
        raise _refuse_marker(marker)


def _refuse_marker(marker: str | None) -> errors.RequestInvalid:
    return errors.RequestInvalid(f"marker [{(marker or '')[:64]}] not found")


def _is_listed(located: Located, context: RequestContext, filters: Filters) -> bool:
    """Return True when a list has the instance.

    A list has the instances of all projects, or those of the user's project; for administrators also those without one.
    """
    project_id = located.instance.project_id
    if filters.all_projects:
        return True
    return bool(context.is_admin) if project_id is None else project_id == context.project_id


def _is_visible(located: Located, context: RequestContext) -> bool:
    if context.is_admin:
        return True
    project_id = located.instance.project_id
    return project_id is not None and project_id == context.project_id


def _build_name_filter(text: str) -> Callable[[str], bool]:
    """Return a function that is True for a name that contains ``text``, or matches it as a regular expression."""
    if len(text) > MAX_NAME_LENGTH:
        raise errors.RequestInvalid(f"The name filter is longer than {MAX_NAME_LENGTH} characters.")
    folded = text.casefold()
    longest = max(folded.split("."), key=len) if _DOTTED.fullmatch(text) else ""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = _RE2_MAX_BYTES
    try:
        pattern = re2.compile(text, options)
    except re2.error:
        # A text such as "vm[1" is not an expression: clients use this filter to find a server by its name.
        return lambda name: folded in name.casefold()
    return lambda name: longest in (own := name.casefold()) and (folded in own or pattern.search(name) is not None)
