# SPDX-License-Identifier: Apache-2.0
"""The JSON of a server, at every microversion.

Why: clients and their schemas require fields that a console service does not know, and refuse fields of later
microversions (compute API reference, "Servers"). This is the smallest body that satisfies them. Pure; called by
:mod:`porthole_api.handlers.servers`.
"""

import json
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from porthole_api.directory import Located
from porthole_api.microversions import Version
from porthole_api.servers import get_status
from porthole_common import errors
from porthole_common.model import InstanceState

# (vm_state, power_state): Nova's nova.compute.vm_states and power_state. UNKNOWN has neither, as in a cell that is off.
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
# The times of so many servers are cached as text, since a client that shows a list fetches it again and again.
_TIMES = 4096
# Keys for which Porthole has no information, with the microversion that added them and their constant value.
_CONSTANTS_SINCE: tuple[tuple[Version, str, Any], ...] = (
    ((2, 9), "locked", False),
    ((2, 19), "description", None),
    ((2, 26), "tags", []),
    ((2, 63), "trusted_image_certificates", None),
    ((2, 73), "locked_reason", None),
    ((2, 96), "pinned_availability_zone", None),
)
_SERVER_GROUPS: Version = (2, 71)
_HOST_STATUS: Version = (2, 16)
_FLAVOR_EMBEDDED: Version = (2, 47)


class _Texts(NamedTuple):
    """The texts that differ between servers; everything else is the same in all servers of one state."""

    uuid: str
    name: str
    project_id: str
    user_id: str
    created: str
    updated: str
    host: str


# Placeholders for the texts while a template is made. No text that comes over HTTP holds a NUL, so no URL is like one.
_MARKS = _Texts(*(f"\0{field}\0" for field in _Texts._fields))


class View:
    """Writes servers for one request: at its microversion, with its URLs, for its user.

    A page has up to a thousand servers. So for a list, a JSON template is made once for each state, and only the texts
    are filled in. That takes a fifth of the time of building and encoding each server.
    """

    def __init__(self, version: Version, is_admin: bool, base_url: str, bookmark_url: str) -> None:
        """Prepare; ``base_url`` and ``bookmark_url`` are :class:`porthole_api.request.Request`'s."""
        self._version = version
        self._is_admin = is_admin
        self._base_url = base_url
        self._bookmark_url = bookmark_url
        self._templates: dict[tuple[InstanceState, type], str] = {}
        self._brief_template = _make_template(self._build_brief(_MARKS))

    def build_shown(self, located: Located) -> dict[str, Any]:
        """Return a single server, which has one key more than in a list."""
        body = self._build_detail(_collect(located), located)
        return body | {"server_groups": []} if self._version >= _SERVER_GROUPS else body

    def encode_brief(self, located: Located) -> str:
        """Return the JSON of the server in a list without details: ``{id, name, links}``."""
        return _fill(self._brief_template, located)

    def encode_detail(self, located: Located) -> str:
        """Return the JSON of the server in a list with details; administrators see hosts."""
        kind = located.instance.state, type(located.unavailable)
        template = self._templates.get(kind)
        if template is None:
            template = self._templates[kind] = _make_template(self._build_detail(_MARKS, located))
        return _fill(template, located)

    def _build_brief(self, texts: _Texts) -> dict[str, Any]:
        links = [
            {"rel": "self", "href": f"{self._base_url}/servers/{texts.uuid}"},
            {"rel": "bookmark", "href": f"{self._bookmark_url}/servers/{texts.uuid}"},
        ]
        return {"id": texts.uuid, "name": texts.name, "links": links}

    def _build_detail(self, texts: _Texts, located: Located) -> dict[str, Any]:
        """Return the server with ``texts``; of ``located``, only the state is used."""
        state = located.instance.state
        body = self._build_brief(texts) | {
            "status": get_status(located),
            "tenant_id": texts.project_id,
            "user_id": texts.user_id,
            "metadata": {},
            "hostId": "",
            # As for a server that was booted from a volume: Porthole does not know images.
            "image": "",
            "flavor": _build_flavor(self._version, self._bookmark_url),
            "created": texts.created,
            "updated": texts.updated,
            "addresses": {},
            "OS-EXT-STS:task_state": _TASK_STATES.get(state),
        }
        if state in _EXTENDED_STATES:
            body["OS-EXT-STS:vm_state"], body["OS-EXT-STS:power_state"] = _EXTENDED_STATES[state]
        if self._is_admin:
            body |= self._build_host(texts, located.unavailable)
        return body | {key: value for since, key, value in _CONSTANTS_SINCE if self._version >= since}

    def _build_host(self, texts: _Texts, unavailable: errors.Unavailable | None) -> dict[str, Any]:
        body = {
            "OS-EXT-SRV-ATTR:host": texts.host,
            "OS-EXT-SRV-ATTR:hypervisor_hostname": texts.host,
            "OS-EXT-SRV-ATTR:instance_name": texts.name,
        }
        if self._version >= _HOST_STATUS:
            body["host_status"] = "UNKNOWN" if isinstance(unavailable, errors.HostUnavailable) else "UP"
        return body


def _collect(located: Located) -> _Texts:
    instance = located.instance
    return _Texts(
        instance.uuid,
        instance.name,
        instance.project_id or "",
        instance.user_id or "",
        _format_time(located.created_at),
        _format_time(located.updated_at),
        located.host,
    )


def _make_template(body: dict[str, Any]) -> str:
    """Return the JSON of ``body`` as a template for the % operator."""
    template = json.dumps(body, separators=(",", ":")).replace("%", "%%")
    for field, mark in zip(_Texts._fields, _MARKS, strict=True):
        template = template.replace(encode_basestring_ascii(mark)[1:-1], f"%({field})s")
    return template


def _fill(template: str, located: Located) -> str:
    texts = zip(_Texts._fields, _collect(located), strict=True)
    return template % {field: encode_basestring_ascii(text)[1:-1] for field, text in texts}


def _build_flavor(version: Version, bookmark_url: str) -> dict[str, Any]:
    if version < _FLAVOR_EMBEDDED:
        link = {"rel": "bookmark", "href": f"{bookmark_url}/flavors/{FLAVOR_ID}"}
        return {"id": FLAVOR_ID, "links": [link]}
    sizes = dict.fromkeys(("ram", "vcpus", "disk", "ephemeral", "swap"), 0)
    return {"original_name": FLAVOR_ID, **sizes, "extra_specs": {}}


@lru_cache(_TIMES)
def _format_time(moment: datetime) -> str:
    """Return ISO 8601 in UTC, to the second, as in Nova: ``2026-01-31T12:00:00Z``."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")[: -len("+00:00")] + "Z"
