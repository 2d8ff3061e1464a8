# SPDX-License-Identifier: Apache-2.0
"""porthole-compute: the process that knows the instances of one host.

Why one per hypervisor: only there the address of a VNC server is known. The daemon answers RPC under the host's name,
publishes the inventory, and revokes tokens. ``porthole standalone`` builds the same service.
"""

import porthole_common.early_sighup  # noqa: F401 - before the imports that take a second

# isort: split
import sys
from collections.abc import Sequence

from oslo_config import cfg

from porthole_common import errors, service
from porthole_common.discovery import DiscoveryEndpoint
from porthole_common.log import get_logger
from porthole_common.model import RevocationReason
from porthole_common.notifications import HostStartPublisher, InventoryPublisher
from porthole_common.rpc import Rpc
from porthole_compute.drivers import ComputeDriver
from porthole_compute.drivers.static import StaticDriver
from porthole_compute.endpoint import ComputeEndpoint
from porthole_compute.inventory import InventoryReporter
from porthole_compute.revocation import Revoker
from porthole_compute.rpcapi import TOPIC
from porthole_consoleauth.rpcapi import ConsoleAuthAPI

LOG = get_logger(__name__)
PROGRAM = "porthole-compute"
# A publication or revocation that is under way at the end has this long.
STOP_TIMEOUT_S = 5.0


class ComputeService:
    """Compute inside a process (:class:`porthole_common.service.Service`); also its driver's DriverEvents."""

    name = PROGRAM
    stop_timeout_s = service.STOP_TIMEOUT_S

    def __init__(self, conf: cfg.ConfigOpts, rpc: Rpc, driver: ComputeDriver, owns_rpc: bool) -> None:
        """Prepare; ``owns_rpc`` says whether :meth:`stop` closes ``rpc`` too."""
        self._rpc = rpc
        self._owns_rpc = owns_rpc
        self._driver = driver
        self._reporter = InventoryReporter(
            conf.host,
            driver,
            InventoryPublisher(rpc),
            conf.compute.inventory_interval,
            report_start=HostStartPublisher(rpc, conf.host).publish,
            on_owner_changed=self._end_for_owner,
        )
        self._revoker = Revoker(conf.host, ConsoleAuthAPI(rpc))
        endpoint = ComputeEndpoint(conf, driver, self._reporter.request)
        discovery = DiscoveryEndpoint(rpc, "compute", conf.host, conf.host)
        self._server = rpc.get_server(TOPIC, conf.host, [endpoint, discovery])

    def start(self) -> None:
        """Try the hypervisor once, serve the topic, and publish the first inventory.

        :raises ConfigInvalid: when the driver cannot start with its options.
        """
        self._revoker.start()
        self._driver.start(self)
        self._server.start()
        self._reporter.start()

    def waits_for(self) -> str:
        """Return what the driver waits for: the hypervisor, which may start later than this daemon."""
        return self._driver.waits_for()

    def is_alive(self) -> bool:
        """Whether the inventory and the revocations have their threads, and the driver its events."""
        return self._reporter.is_alive() and self._revoker.is_alive() and self._driver.is_alive()

    def reload(self) -> None:
        """Reread what the driver can reread."""
        self._driver.reload()

    def stop(self) -> None:
        """Finish the calls under way, then leave the hypervisor and the bus."""
        self._server.stop()
        self._driver.stop()
        self._reporter.stop(STOP_TIMEOUT_S)
        self._revoker.stop(STOP_TIMEOUT_S)
        if self._owns_rpc:
            self._rpc.close()

    def inventory_changed(self) -> None:
        """Have the inventory published."""
        self._reporter.request()

    def consoles_ended(self, instance_uuid: str, reason: RevocationReason) -> None:
        """Have the instance's tokens for this host revoked."""
        self._revoker.revoke(instance_uuid, reason)

    def _end_for_owner(self, instance_uuid: str) -> None:
        LOG.info("Owner of an instance changed; its consoles end", instance=instance_uuid)
        self._revoker.revoke(instance_uuid, RevocationReason.OWNER_CHANGED)


def build_driver(conf: cfg.ConfigOpts) -> ComputeDriver:
    """Return the driver that [compute] driver names, not started yet.

    :raises ConfigInvalid: when it is libvirt and the Python bindings are not installed.
    """
    if conf.compute.driver == "static":
        return StaticDriver(conf)
    try:
        # Imported here, since only hosts with libvirt install the extra with libvirt-python.
        from porthole_compute.drivers.libvirt_host import LibvirtDriver  # noqa: PLC0415
    except ImportError as exc:
        raise errors.ConfigInvalid(
            "[compute] driver", f"libvirt needs libvirt-python; install porthole[compute] ({exc})"
        ) from exc
    return LibvirtDriver(conf)


def build_standalone(conf: cfg.ConfigOpts, rpc: Rpc) -> ComputeService:
    """Build the service of ``porthole standalone``: ``rpc`` is shared with the other services.

    :raises ConfigInvalid: when an option is not valid.
    """
    return ComputeService(conf, rpc, build_driver(conf), owns_rpc=False)


def build(conf: cfg.ConfigOpts) -> Sequence[ComputeService]:
    """Build the daemon's service.

    :raises ConfigInvalid: when an option is not valid.
    """
    driver = build_driver(conf)
    return [ComputeService(conf, Rpc(conf, conf.rpc.call_timeout), driver, owns_rpc=True)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status."""
    return service.main(PROGRAM, build, argv, cfg.CONF)


if __name__ == "__main__":
    sys.exit(main())
