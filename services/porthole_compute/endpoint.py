# SPDX-License-Identifier: Apache-2.0
"""The RPC methods of compute: issue a console of an instance, and check that an issued console is still valid.

Why: only the host that runs an instance knows where its VNC server listens now. The api asks for consoles. The proxy
has each console validated before it dials (CVE-2013-0335). :mod:`porthole_compute.rpcapi` is the client.
"""

from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.diagnosis import HostDescription, read_vitals
from porthole_common.log import get_logger
from porthole_common.model import ConnectInfo, ConsoleType, Target, TokenReason, build_token, is_uuid
from porthole_common.rpc import RpcTarget, expected_exceptions
from porthole_compute.access_url import build_access_url
from porthole_compute.drivers import ComputeDriver
from porthole_compute.rpcapi import VERSION

LOG = get_logger(__name__)
# How many displays a description may have; each one takes a call of libvirt.
MAX_DISPLAYS = 200
# For the bus, the hypervisor, and the calls under way.
DESCRIPTORS_NEEDED = 256


class ComputeEndpoint:
    """Methods of topic ``compute``, run from RPC threads; ``on_inventory_wanted`` returns at once."""

    target = RpcTarget(version=VERSION)

    def __init__(self, conf: cfg.ConfigOpts, driver: ComputeDriver, on_inventory_wanted: Callable[[], None]) -> None:
        self._conf = conf
        self._host = conf.host
        self._novnc_base_url = conf.vnc.novncproxy_base_url
        self._xvpvnc_base_url = conf.vnc.xvpvncproxy_base_url
        self._driver = driver
        self._on_inventory_wanted = on_inventory_wanted

    @expected_exceptions(errors.PortholeError)
    def get_vnc_console(self, context: RequestContext, instance_uuid: str, console_type: str) -> dict[str, Any]:
        """Return a new console as ``ConnectInfo.to_primitive`` writes it, with a token that is not stored yet.

        :raises ConsoleTypeInvalid: when ``console_type`` is not one of Porthole's.
        :raises PortholeError: what :meth:`ComputeDriver.get_vnc_target` raises.
        """
        if console_type not in set(ConsoleType):
            raise errors.ConsoleTypeInvalid(console_type)
        known_type = ConsoleType(console_type)
        target = self._get_target(instance_uuid, known_type)
        token = build_token(instance_uuid)
        access_url = build_access_url(
            known_type, token, novnc_base_url=self._novnc_base_url, xvpvnc_base_url=self._xvpvnc_base_url
        )
        connect_info = ConnectInfo(
            instance_uuid=instance_uuid,
            console_type=known_type,
            host=target.host,
            port=target.port,
            access_url=access_url,
            compute_host=self._host,
            token=token,
        )
        LOG.info("Console issued", instance=instance_uuid, console_type=known_type, address=str(target))
        return connect_info.to_primitive()

    @expected_exceptions(errors.PortholeError)
    def validate_console(
        self, context: RequestContext, instance_uuid: str, host: str, port: int | str, console_type: str
    ) -> dict[str, Any]:
        """Return ``{host, port}`` of the instance's VNC server when it still listens at ``host`` and ``port``.

        :raises TokenInvalid: when the VNC server is elsewhere; when the instance is gone, stopped or migrating, or no
            longer offers a console of the type.
        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """
        if console_type not in set(ConsoleType):
            raise errors.TokenInvalid(str(TokenReason.CONSOLE_TYPE))
        try:
            asked = Target.from_primitive({"host": host, "port": port})
            target = self._get_target(instance_uuid, ConsoleType(console_type))
        except (errors.NotFound, errors.Conflict, errors.ConsoleTypeUnavailable, ValueError) as exc:
            LOG.info("Console no longer valid", instance=instance_uuid, console_type=console_type, reason=exc)
            raise errors.TokenInvalid(str(TokenReason.INSTANCE_GONE)) from exc
        if asked != target:
            LOG.info(
                "Console no longer valid",
                instance=instance_uuid,
                console_type=console_type,
                reason="it was issued for another address",
                issued_for=str(asked),
                address=str(target),
            )
            raise errors.TokenInvalid(str(TokenReason.INSTANCE_GONE))
        LOG.info("Console validated", instance=instance_uuid, console_type=console_type, address=str(target))
        return target.to_primitive()

    @expected_exceptions(errors.PortholeError)
    def describe_host(self, context: RequestContext) -> dict[str, Any]:
        """Return what ``HostDescription.to_primitive`` writes: this process, its options and its displays.

        A hypervisor that does not answer is part of the description.
        """
        refusal = ""
        try:
            displays = self._driver.list_displays(MAX_DISPLAYS + 1)
        except errors.HypervisorUnavailable as exc:
            displays, refusal = [], str(exc.__cause__ or exc)
        conf = self._conf
        is_static = conf.compute.driver == "static"
        return HostDescription(
            vitals=read_vitals(self._host, DESCRIPTORS_NEEDED),
            driver=conf.compute.driver,
            hypervisor=conf.static.instances_file if is_static else conf.libvirt.connection_uri,
            refusal=refusal,
            server_listen=conf.vnc.server_listen,
            proxyclient_address=conf.vnc.server_proxyclient_address,
            novncproxy_base_url=self._novnc_base_url,
            overdue=tuple(self._driver.list_overdue()[:MAX_DISPLAYS]),
            displays=tuple(displays[:MAX_DISPLAYS]),
            more_displays=len(displays) > MAX_DISPLAYS,
        ).to_primitive()

    def publish_inventory(self, context: RequestContext) -> None:
        """Have the inventory published soon, since an api has just started."""
        self._on_inventory_wanted()

    def _get_target(self, instance_uuid: str, console_type: ConsoleType) -> Target:
        if not is_uuid(instance_uuid):
            raise errors.InstanceNotFound(instance_uuid)
        return self._driver.get_vnc_target(instance_uuid, console_type)
