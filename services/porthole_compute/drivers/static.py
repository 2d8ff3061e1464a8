# SPDX-License-Identifier: Apache-2.0
"""VNC servers that libvirt does not know, listed in a YAML file.

Why: a hypervisor without libvirt, an Xvnc, a BMC: every server that speaks RFB on TCP can have a console if the file
lists it. Made by :mod:`porthole_compute.main` when ``[compute] driver`` is ``static``.

The file: ``instances: [{uuid, name, host, port, project_id, user_id}]``. Without the last two, the instance is open to
administrators only. Every instance counts as running, since there is no hypervisor to ask. The runs of its entries are
those of :mod:`porthole_compute.drivers.static_runs`.
"""

import uuid as uuidlib
from pathlib import Path
from typing import Any

import yaml
from oslo_config import cfg

from porthole_common import errors
from porthole_common.diagnosis import Display
from porthole_common.log import get_logger
from porthole_common.model import ConsoleType, Instance, InstanceState, Owner, RevocationReason, Target
from porthole_compute.drivers import DriverEvents, VncServer, get_offered_types, require_vnc_type
from porthole_compute.drivers.static_runs import StaticRuns, find_file

LOG = get_logger(__name__)
OPTION = "[static] instances_file"
REQUIRED = ("uuid", "name", "host", "port")
OPTIONAL = ("project_id", "user_id")
# A guard against a wrong file (a disk image, a log): 100 000 instances take some 15 MiB.
MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_TEXT_CHARS = 255

Entries = dict[str, tuple[Instance, Target]]


def parse_instances(text: str, offered: tuple[ConsoleType, ...]) -> Entries:
    """Return ``{uuid: (instance, target)}`` of the file's text; UUIDs come out lower-case and canonical.

    :raises ConfigInvalid: when the text is not YAML or not of the file's shape; it names the entry and the key.
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise _invalid(f"not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(document, dict) or set(document) != {"instances"}:
        raise _invalid("it must hold one key, instances")
    if not isinstance(document["instances"], list):
        raise _invalid("instances must be a list")
    entries: Entries = {}
    for number, value in enumerate(document["instances"], 1):
        instance, target = _parse_entry(f"entry {number}", value, offered)
        if instance.uuid in entries:
            raise _invalid(f"entry {number}: uuid {instance.uuid} is there twice")
        entries[instance.uuid] = instance, target
    return entries


def _parse_entry(where: str, value: Any, offered: tuple[ConsoleType, ...]) -> tuple[Instance, Target]:
    if not isinstance(value, dict):
        raise _invalid(f"{where}: it must be a mapping with {', '.join(REQUIRED)}")
    for key in value:
        if key not in REQUIRED + OPTIONAL:
            raise _invalid(f"{where}: unknown key {str(key)[:MAX_TEXT_CHARS]!r}")
    for key in REQUIRED:
        if value.get(key) is None:
            raise _invalid(f"{where}: {key} is missing")
    for key in ("uuid", "name", "host", *(key for key in OPTIONAL if value.get(key) is not None)):
        if not isinstance(value[key], str) or not 0 < len(value[key]) <= MAX_TEXT_CHARS:
            raise _invalid(f"{where}: {key} must be text of 1 to {MAX_TEXT_CHARS} characters (quote a number)")
    port = value["port"]
    # YAML's true is an int to Python.
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise _invalid(f"{where}: port must be a number from 1 to 65535")
    try:
        uuid = str(uuidlib.UUID(value["uuid"]))
    except ValueError as exc:
        raise _invalid(f"{where}: uuid is not a UUID") from exc
    instance = Instance(
        uuid=uuid,
        name=value["name"],
        state=InstanceState.RUNNING,
        project_id=value.get("project_id"),
        user_id=value.get("user_id"),
        console_types=offered,
    )
    return instance, Target(value["host"], port)


def _invalid(reason: str) -> errors.ConfigInvalid:
    return errors.ConfigInvalid(OPTION, reason)


class StaticDriver:
    """A :class:`porthole_compute.drivers.ComputeDriver` over the file."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._path = Path(conf.static.instances_file)
        self._offered = get_offered_types(conf)
        self._runs = StaticRuns(find_file(conf.static.runs_directory, conf.host))
        self._entries: dict[str, tuple[Instance, VncServer]] = {}
        self._events: DriverEvents | None = None

    def start(self, events: DriverEvents) -> None:
        """Read the file.

        :raises ConfigInvalid: when it cannot be read or does not hold instances.
        """
        self._events = events
        self._entries = self._read()

    def waits_for(self) -> str:
        """Return "": there is no hypervisor."""
        return ""

    def is_alive(self) -> bool:
        """Return True: the driver has no thread that could be stuck."""
        return True

    def reload(self) -> None:
        """Read the file again; end the consoles of entries that vanished or moved. A bad file changes nothing."""
        before, refusal = self._entries, ""
        try:
            self._entries = self._read()
        except errors.ConfigInvalid as exc:
            refusal = str(exc)
        if refusal:
            LOG.error("Instances not reread; the old ones stay in use", reason=refusal)
            return
        LOG.info("Instances reread", file=self._path, instances=len(self._entries))
        if self._events is None:
            return
        for uuid, (_, server) in before.items():
            if uuid not in self._entries or self._entries[uuid][1].run != server.run:
                self._events.consoles_ended(uuid, RevocationReason.ENDED)
        self._events.inventory_changed()

    def stop(self) -> None:
        """Do nothing: no resource is held."""

    def list_instances(self) -> list[Instance]:
        """Return the instances in the file's order."""
        return [instance for instance, _ in self._entries.values()]

    def get_vnc_server(self, instance_uuid: str, console_type: ConsoleType) -> VncServer:
        """Return the address and the owner in the file, and the run of the entry.

        :raises InstanceNotFound: when the file does not list it.
        :raises ConsoleTypeUnavailable: when this host does not offer the type.
        """
        entry = self._entries.get(instance_uuid)
        if entry is None:
            raise errors.InstanceNotFound(instance_uuid)
        require_vnc_type(console_type, self._offered)
        return entry[1]

    def list_overdue(self) -> list[str]:
        """Return none: a file has no questions."""
        return []

    def list_displays(self, limit: int) -> list[Display]:
        """Return the addresses in the file, of the first ``limit`` entries."""
        entries = list(self._entries.values())[:limit]
        return [
            Display(instance.uuid, instance.name, server.target.host, server.target) for instance, server in entries
        ]

    def _read(self) -> dict[str, tuple[Instance, VncServer]]:
        entries = parse_instances(self._read_text(), self._offered)
        runs = self._runs.update({uuid: target for uuid, (_, target) in entries.items()})
        return {
            uuid: (instance, VncServer(target, runs[uuid], Owner(instance.project_id, instance.user_id)))
            for uuid, (instance, target) in entries.items()
        }

    def _read_text(self) -> str:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            text = data.decode()
        except OSError as exc:
            raise _invalid(f"{self._path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise _invalid(f"{self._path}: not UTF-8") from exc
        if len(data) > MAX_FILE_BYTES:
            raise _invalid(f"{self._path}: larger than {MAX_FILE_BYTES} bytes")
        return text
