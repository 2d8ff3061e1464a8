# SPDX-License-Identifier: Apache-2.0
"""What every suite stands on: the four daemons with a real broker and memcached, and one cheap VNC server."""

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.peers import VncEnd
from support.console import get_console, token_of, wait_for_instances
from support.daemons import Options, Porthole
from support.memcached import Memcached
from support.rabbitmq import RabbitMQ

# No limit that a benchmark would meet before the machine's.
_NO_LIMITS = {
    "max_sessions": 100000,
    "max_sessions_per_source": 100000,
    "max_sessions_per_token": 100000,
    "max_sessions_per_instance": 100000,
}


@dataclass
class Bed:
    """Running daemons. ``instance_uuid`` is the one instance; its VNC server is ``vnc``."""

    directory: Path
    rabbitmq: RabbitMQ
    porthole: Porthole
    vnc: VncEnd
    instance_uuid: str

    @property
    def proxy_pid(self) -> int:
        """The process of the proxy."""
        return self.porthole.novncproxy.pid

    def token(self) -> str:
        """Return a new token."""
        return token_of(get_console(self.porthole, self.instance_uuid))


@contextlib.contextmanager
def make_bed(options: Options | None = None) -> Iterator[Bed]:
    """Start everything, as operators run it (no DEBUG), and stop it again."""
    given = {group: dict(values) for group, values in (options or {}).items()}
    given["DEFAULT"] = {"debug": False, **given.get("DEFAULT", {})}
    given["novncproxy"] = {**_NO_LIMITS, **given.get("novncproxy", {})}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        rabbitmq = stack.enter_context(RabbitMQ(directory / "rabbitmq"))
        memcached = stack.enter_context(Memcached())
        vnc = VncEnd()
        stack.callback(vnc.stop)
        instance = {"uuid": str(uuid.uuid4()), "name": "bench", "host": "127.0.0.1", "port": vnc.port}
        path = directory / "instances.yaml"
        path.write_text(yaml.safe_dump({"instances": [instance]}), encoding="utf-8")
        porthole = Porthole(directory / "porthole", rabbitmq, memcached, instances_file=path, options=given)
        stack.enter_context(porthole)
        wait_for_instances(porthole, str(instance["uuid"]))
        yield Bed(directory, rabbitmq, porthole, vnc, str(instance["uuid"]))
