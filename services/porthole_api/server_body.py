# SPDX-License-Identifier: Apache-2.0
"""What a server looks like in an answer, at every microversion.

Why: clients and their schemas demand fields that a console service knows nothing of, and refuse fields of later
microversions (compute API reference, "Servers"). Here is the smallest body that satisfies them. Pure; called by
:mod:`porthole_api.handlers.servers`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from porthole_api.directory import Located
from porthole_api.microversions import Version
from porthole_api.servers import get_status
from porthole_common import errors
from porthole_common.model import InstanceState

# (vm_state, power_state): Nova's nova.compute.vm_states and power_state. UNKNOWN has none, as with a cell that is down.
_EXTENDED_STATES = {
    InstanceState.RUNNING: ("active", 1),
    InstanceState.PAUSED: ("paused", 3),
    InstanceState.SUSPENDED: ("suspended", 7),
    InstanceState.SHUTOFF: ("stopped", 4),
    InstanceState.CRASHED: ("error", 6),
    InstanceState.BUILDING: ("building", 0),
    InstanceState.MIGRATING: ("active", 1),
    InstanceState.DELETING: ("active", 1),
}
_TASK_STATES = {
    InstanceState.BUILDING: "spawning",
    InstanceState.MIGRATING: "migrating",
    InstanceState.DELETING: "deleting",
}
FLAVOR_ID = "unknown"
# Keys that Porthole has nothing to say about, by the microversion that brought them; the value is always this one.
_CONSTANTS_SINCE: tuple[tuple[Version, str, Callable[[], Any]], ...] = (
    ((2, 9), "locked", bool),
    ((2, 19), "description", lambda: None),
    ((2, 26), "tags", list),
    ((2, 63), "trusted_image_certificates", lambda: None),
    ((2, 73), "locked_reason", lambda: None),
    ((2, 96), "pinned_availability_zone", lambda: None),
)
_SERVER_GROUPS: Version = (2, 71)
_HOST_STATUS: Version = (2, 16)
_FLAVOR_EMBEDDED: Version = (2, 47)


def build_brief(located: Located, base_url: str, bookmark_url: str) -> dict[str, Any]:
    """Return the server's line in a list: ``{id, name, links}`` and nothing more."""
    uuid = located.instance.uuid
    links = [
        {"rel": "self", "href": f"{base_url}/servers/{uuid}"},
        {"rel": "bookmark", "href": f"{bookmark_url}/servers/{uuid}"},
    ]
    return {"id": uuid, "name": located.instance.name, "links": links}


def build_detail(
    located: Located, version: Version, is_admin: bool, base_url: str, bookmark_url: str
) -> dict[str, Any]:
    """Return the server as it stands in a list with details; administrators see hosts."""
    instance = located.instance
    body = build_brief(located, base_url, bookmark_url) | {
        "status": get_status(located),
        "tenant_id": instance.project_id or "",
        "user_id": instance.user_id or "",
        "metadata": {},
        "hostId": "",
        # As of a server that was booted from a volume: Porthole knows no images.
        "image": "",
        "flavor": _build_flavor(version, bookmark_url),
        "created": _format_time(located.created_at),
        "updated": _format_time(located.updated_at),
        "addresses": {},
        "OS-EXT-STS:task_state": _TASK_STATES.get(instance.state),
    }
    if instance.state in _EXTENDED_STATES:
        body["OS-EXT-STS:vm_state"], body["OS-EXT-STS:power_state"] = _EXTENDED_STATES[instance.state]
    if is_admin:
        body |= _build_host(located, version)
    return body | {key: value() for since, key, value in _CONSTANTS_SINCE if version >= since}


def build_shown(located: Located, version: Version, is_admin: bool, base_url: str, bookmark_url: str) -> dict[str, Any]:
    """Return the server as it is shown alone, which has one key more than in a list."""
    body = build_detail(located, version, is_admin, base_url, bookmark_url)
    return body | {"server_groups": []} if version >= _SERVER_GROUPS else body


def _build_flavor(version: Version, bookmark_url: str) -> dict[str, Any]:
    if version < _FLAVOR_EMBEDDED:
        link = {"rel": "bookmark", "href": f"{bookmark_url}/flavors/{FLAVOR_ID}"}
        return {"id": FLAVOR_ID, "links": [link]}
    sizes = dict.fromkeys(("ram", "vcpus", "disk", "ephemeral", "swap"), 0)
    return {"original_name": FLAVOR_ID, **sizes, "extra_specs": {}}


def _build_host(located: Located, version: Version) -> dict[str, Any]:
    body = {
        "OS-EXT-SRV-ATTR:host": located.host,
        "OS-EXT-SRV-ATTR:hypervisor_hostname": located.host,
        "OS-EXT-SRV-ATTR:instance_name": located.instance.name,
    }
    if version >= _HOST_STATUS:
        body["host_status"] = "UNKNOWN" if isinstance(located.unavailable, errors.HostUnavailable) else "UP"
    return body


def _format_time(moment: datetime) -> str:
    """Return ISO 8601 in UTC, to the second, as Nova writes it: ``2026-01-31T12:00:00Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
