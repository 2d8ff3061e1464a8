# SPDX-License-Identifier: Apache-2.0
"""Which servers a user sees: the directory, narrowed to the user's own and to what was asked for.

Why: what the API calls a server is an instance of the directory; who may see it is decided here and nowhere
else, so that another project's instance is as absent from a list as from a console request. An instance without
an owner is the administrators'. Called by the handlers and by :mod:`porthole_api.consoles`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import re2

from porthole_api.directory import Directory, Located
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.model import InstanceState, is_uuid

# As Nova's [api] max_limit.
MAX_LIMIT = 1000
# As Nova's display_name.
_MAX_NAME_LENGTH = 255
# RE2 matches in linear time, and compiles no expression beyond this: nobody's filter stops the others.
_RE2_MAX_BYTES = 1024 * 1024
_STATUSES = {
    InstanceState.RUNNING: "ACTIVE",
    InstanceState.PAUSED: "PAUSED",
    InstanceState.SUSPENDED: "SUSPENDED",
    InstanceState.SHUTOFF: "SHUTOFF",
    InstanceState.CRASHED: "ERROR",
    InstanceState.BUILDING: "BUILD",
    InstanceState.MIGRATING: "MIGRATING",
    # As Nova, where a server stays what it was while its task_state is "deleting".
    InstanceState.DELETING: "ACTIVE",
    InstanceState.UNKNOWN: "UNKNOWN",
}


def get_status(located: Located) -> str:
    """Return Nova's server status of the instance."""
    return _STATUSES[located.instance.state]


@dataclass(frozen=True)
class Filters:
    """What a list is narrowed to; None: not at all. ``limit`` is 1 to MAX_LIMIT, ``marker`` a UUID.

    ``name`` matches anywhere in a name, as text or as a regular expression, capitals or not, like Nova on MySQL;
    the expression is RE2's dialect.
    """

    name: str | None = None
    status: str | None = None
    marker: str | None = None
    limit: int = MAX_LIMIT


def get_server(directory: Directory, context: RequestContext, server_id: str) -> Located:
    """Return the instance that ``server_id`` names in a URL.

    :raises InstanceNotFound: when it is not a UUID, unknown, or not the user's.
    :raises RpcUnavailable: when no compute has answered yet.
    """
    uuid = server_id.lower()
    if not is_uuid(uuid):
        raise errors.InstanceNotFound(server_id)
    located = directory.get(uuid)
    if not _is_visible(located, context):
        raise errors.InstanceNotFound(server_id)
    return located


def list_servers(directory: Directory, context: RequestContext, filters: Filters) -> tuple[list[Located], bool]:
    """Return the user's servers in order, at most ``filters.limit``, and whether there are more.

    :raises RequestInvalid: when the marker is not there, or the name filter is too long.
    :raises RpcUnavailable: when the computes could not be asked yet.
    """
    if filters.marker is not None:
        try:
            get_server(directory, context, filters.marker)
        except errors.InstanceNotFound:
            raise errors.RequestInvalid(f"marker [{filters.marker[:64]}] not found") from None
    has_name = _build_name_filter(filters.name) if filters.name else None
    after = filters.marker.lower() if filters.marker else None
    try:
        matching = (
            located
            for located in directory.list_instances(after)
            if _is_visible(located, context)
            and (filters.status is None or get_status(located) == filters.status)
            and (has_name is None or has_name(located.instance.name))
        )
        found = list(islice(matching, filters.limit + 1))
    except errors.InstanceNotFound:
        raise errors.RequestInvalid(f"marker [{filters.marker}] not found") from None
    return found[: filters.limit], len(found) > filters.limit


def _is_visible(located: Located, context: RequestContext) -> bool:
    if context.is_admin:
        return True
    project_id = located.instance.project_id
    return project_id is not None and project_id == context.project_id


def _build_name_filter(text: str) -> Callable[[str], bool]:
    """Return what says whether a name holds ``text``, or matches it as a regular expression."""
    if len(text) > _MAX_NAME_LENGTH:
        raise errors.RequestInvalid(f"The name filter is longer than {_MAX_NAME_LENGTH} characters.")
    folded = text.casefold()
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = _RE2_MAX_BYTES
    try:
        pattern = re2.compile(text, options)
    except re2.error:
        # A name that is no expression, such as "vm[1", is only that: clients look servers up by name with this.
        return lambda name: folded in name.casefold()
    return lambda name: folded in name.casefold() or pattern.search(name) is not None
