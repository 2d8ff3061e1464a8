# SPDX-License-Identifier: Apache-2.0
"""What every suite stands on: the four daemons with a real broker and memcached, and one cheap VNC server."""

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.peers import VncEnd
from support.console import get_console, token_of, wait_for_instances
from support.daemons import Options, Porthole
from support.memcached import Memcached
from support.rabbitmq import RabbitMQ

_INSTANCES = 500
# No limit that a benchmark would meet before the machine's.
_NO_LIMITS = {
    "max_sessions": 100000,
    "max_sessions_per_source": 100000,
    "max_sessions_per_token": 100000,
    "max_sessions_per_instance": 100000,
    "max_sessions_per_user": 100000,
}


@dataclass
class Bed:
    """Running daemons. ``instances`` all have the VNC server ``vnc``; that they are many is as it is in life: one
    instance does not collect hundreds of tokens.
    """

    directory: Path
    rabbitmq: RabbitMQ
    porthole: Porthole
    vnc: VncEnd
    instances: list[str]

    @property
    def proxy_pid(self) -> int:
        """The process of the proxy."""
        return self.porthole.novncproxy.pid

    def token(self, instance_uuid: str | None = None) -> str:
        """Return a new token, of the first instance unless another is named."""
        return token_of(get_console(self.porthole, instance_uuid or self.instances[0]))


@contextlib.contextmanager
def make_bed(options: Options | None = None, others: Mapping[str, int] | None = None) -> Iterator[Bed]:
    """Start everything, as operators run it (no DEBUG), and stop it again.

    ``others``: further instances by UUID, each with the port of its own VNC server.
    """
    given = {group: dict(values) for group, values in (options or {}).items()}
    given["DEFAULT"] = {"debug": False, **given.get("DEFAULT", {})}
    given["novncproxy"] = {**_NO_LIMITS, **given.get("novncproxy", {})}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        rabbitmq = stack.enter_context(RabbitMQ(directory / "rabbitmq"))
        memcached = stack.enter_context(Memcached())
        vnc = VncEnd()
        stack.callback(vnc.stop)
        uuids = [str(uuid.uuid4()) for _ in range(_INSTANCES)]
        instances = [
            {"uuid": name, "name": f"bench-{index}", "host": "127.0.0.1", "port": vnc.port}
            for index, name in enumerate(uuids)
        ]
        instances += [
            {"uuid": name, "name": name, "host": "127.0.0.1", "port": port} for name, port in (others or {}).items()
        ]
        path = directory / "instances.yaml"
        path.write_text(yaml.safe_dump({"instances": instances}), encoding="utf-8")
        porthole = Porthole(directory / "porthole", rabbitmq, memcached, instances_file=path, options=given)
        stack.enter_context(porthole)
        wait_for_instances(porthole, *uuids)
        yield Bed(directory, rabbitmq, porthole, vnc, uuids)
