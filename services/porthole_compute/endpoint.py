# SPDX-License-Identifier: Apache-2.0
"""The RPC methods of compute: issue a console of an instance, and check that an issued console is still valid.

Why: only the host that runs an instance knows where its VNC server listens now. The api asks for consoles. The proxy
has each console validated before it dials (CVE-2013-0335). :mod:`porthole_compute.rpcapi` is the client.
"""

from collections.abc import Callable, Sequence
from typing import Any

from oslo_config import cfg

from porthole_common import errors
from porthole_common.conf.metrics import find_host
from porthole_common.context import RequestContext
from porthole_common.diagnosis import HostDescription, read_vitals
from porthole_common.log import get_logger
from porthole_common.model import ConnectInfo, ConsoleType, build_token
from porthole_common.rpc import RpcTarget, expected_exceptions
from porthole_compute.access_url import build_access_url
from porthole_compute.drivers import ComputeDriver
from porthole_compute.rpcapi import MAX_CONSOLES, VERSION
from porthole_compute.validation import ConsoleValidator, IssuedConsole, find_server

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
        self._validator = ConsoleValidator(driver, conf.host)
        self._on_inventory_wanted = on_inventory_wanted

    @expected_exceptions(errors.PortholeError)
    def get_vnc_console(self, context: RequestContext, instance_uuid: str, console_type: str) -> dict[str, Any]:
        """Return a new console as ``ConnectInfo.to_primitive`` writes it, with a token that is not stored yet.

        :raises ConsoleTypeInvalid: when ``console_type`` is not one of Porthole's.
        :raises PortholeError: what :meth:`ComputeDriver.get_vnc_server` raises.
        """
        if console_type not in set(ConsoleType):
            raise errors.ConsoleTypeInvalid(console_type)
        known_type = ConsoleType(console_type)
        server = find_server(self._driver, instance_uuid, known_type)
        token = build_token(instance_uuid)
        access_url = build_access_url(
            known_type, token, novnc_base_url=self._novnc_base_url, xvpvnc_base_url=self._xvpvnc_base_url
        )
        connect_info = ConnectInfo(
            instance_uuid=instance_uuid,
            console_type=known_type,
            host=server.target.host,
            port=server.target.port,
            access_url=access_url,
            compute_host=self._host,
            token=token,
            run=server.run,
            owner=server.owner,
        )
        LOG.info("Console issued", instance=instance_uuid, console_type=known_type, address=str(server.target))
        return connect_info.to_primitive()

    @expected_exceptions(errors.PortholeError)
    def validate_console(
        self,
        context: RequestContext,
        instance_uuid: str,
        host: str,
        port: int | str,
        console_type: str,
        run: str | None = None,
        owner: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return ``{host, port}`` of the instance's VNC server when what the console was issued for is still true.

        The arguments are those of ``Claim.to_primitive``.

        :raises TokenInvalid: when the VNC server is elsewhere, or is that of another run of the guest; when the
            instance is gone, stopped or migrating, has another owner, or no longer offers a console of the type.
        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """
        target = self._validator.validate(IssuedConsole(instance_uuid, host, port, console_type, run, owner))
        LOG.info("Console validated", instance=instance_uuid, console_type=console_type, address=str(target))
        return target.to_primitive()

    @expected_exceptions(errors.PortholeError)
    def validate_consoles(
        self, context: RequestContext, consoles: Sequence[dict[str, Any]], timeout_s: float | None = None
    ) -> list[dict[str, Any]]:
        """Return one answer for each of ``consoles``, in the same order: the same as :meth:`validate_console`'s.

        A console is what ``Claim.to_primitive`` writes. An answer is ``{host, port}``, or the error that
        validate_console would raise, as ``PortholeError.to_primitive`` writes it; but an instance that is not ready has
        InstanceNotReady, since that is no reason to end an open console. ``timeout_s``: how long the other answers may
        wait for one guest; never longer than :data:`.validation.BATCH_TIMEOUT_S`.

        :raises RequestInvalid: when there are more than :data:`porthole_compute.rpcapi.MAX_CONSOLES`, one is not such a
            dictionary, or ``timeout_s`` is not a number from 0 on.
        """
        if len(consoles) > MAX_CONSOLES:
            raise errors.RequestInvalid(f"{len(consoles)} consoles are more than {MAX_CONSOLES}")
        # Compared, so that NaN is refused too.
        if timeout_s is not None and not (isinstance(timeout_s, int | float) and timeout_s >= 0):
            raise errors.RequestInvalid("timeout_s is not a number of seconds")
        try:
            issued = [IssuedConsole.from_primitive(value) for value in consoles]
        except (KeyError, TypeError) as exc:
            raise errors.RequestInvalid("a console is not {instance_uuid, host, port, console_type}") from exc
        answers = [answer.to_primitive() for answer in self._validator.validate_all(issued, timeout_s)]
        LOG.debug("Consoles validated", consoles=len(answers), invalid=sum("error" in answer for answer in answers))
        return answers

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
            vitals=read_vitals(self._host, DESCRIPTORS_NEEDED, find_host(conf, "compute")),
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
