# SPDX-License-Identifier: Apache-2.0
"""The examination of one process of the proxy; :mod:`porthole_novncproxy.rpcapi` is the other end.

Why: only the process itself sees its descriptors, pages and certificate, and which VNC servers it reaches. A caller on
the bus may authorize consoles too, so dialling an address for a caller gives away no new power; it is bounded all the
same. Called by oslo.messaging's threads.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from oslo_config import cfg

from porthole_common import errors
from porthole_common.conf.metrics import find_host
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.diagnosis import ProxyDescription, Reach, read_vitals
from porthole_common.log import get_logger
from porthole_common.model import Target
from porthole_common.rpc import RpcTarget, expected_exceptions
from porthole_novncproxy.admission.dial import dial
from porthole_novncproxy.admission.probe import read_security_types
from porthole_novncproxy.admission.vencrypt import Security, build_security
from porthole_novncproxy.certificate import read_certificate
from porthole_novncproxy.novnc import find_version, is_there
from porthole_novncproxy.rpcapi import VERSION

LOG = get_logger(__name__)
# How many VNC servers one call dials, all at once, and how long each of the two dials may take: the call waits longer.
MAX_TARGETS = 32
DIAL_TIMEOUT_S = 1.5
# Security types that are TLS's: TLS itself, and VeNCrypt (the registry of RFC 6143 section 8.4.2).
TLS_TYPES = frozenset({18, 19})
# The loop, the ports, the bus and the log, and a descriptor for each request in flight.
_DESCRIPTORS_BESIDE_SESSIONS = 256

Probe = Callable[[Target, float], tuple[int, ...]]
Secure = Callable[[Target, Security, float], None]


def secure_once(target: Target, security: Security, timeout_s: float) -> None:
    """Go through the security handshake with ``target`` as a console does, and hang up.

    :raises PortholeError: what :func:`porthole_novncproxy.admission.dial.dial` raises.
    """
    dial(target, None, timeout_s, security, Deadline()).sock.close()


class ProxyEndpoint:
    """Methods beside the revocations of topic :data:`porthole_novncproxy.rpcapi.TOPIC`."""

    target = RpcTarget(version=VERSION)

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        probe: Probe = read_security_types,
        secure: Secure = secure_once,
        find_spool_fill: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``find_spool_fill`` returns how full the process's spool of events is, 0 to 1."""
        self._find_spool_fill = find_spool_fill
        self._conf = conf
        self._probe = probe
        self._secure = secure

    @expected_exceptions(errors.PortholeError)
    def describe_proxy(self, context: RequestContext) -> dict[str, Any]:
        """Return what ``ProxyDescription.to_primitive`` writes."""
        conf = self._conf
        needed = 2 * conf.novncproxy.max_sessions + _DESCRIPTORS_BESIDE_SESSIONS
        return ProxyDescription(
            vitals=read_vitals(conf.host, needed, find_host(conf, "novncproxy")),
            web=conf.web or "",
            novnc=is_there(conf.web),
            novnc_version=find_version(conf.web),
            certificate=read_certificate(conf.cert),
            ssl_only=conf.ssl_only,
            trusted_proxies=tuple(map(str, conf.console.trusted_proxies)),
            spool_fill=self._find_spool_fill(),
        ).to_primitive()

    @expected_exceptions(errors.PortholeError)
    def dial_targets(self, context: RequestContext, targets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Dial each ``{host, port}`` and return what ``Reach.to_primitive`` writes, in the same order.

        :raises RequestInvalid: when there are too many targets, or one is not {host, port}.
        :raises ConfigInvalid: when a file of [vnc] vencrypt_... has become unusable since the start.
        """
        if len(targets) > MAX_TARGETS:
            raise errors.RequestInvalid(f"{len(targets)} targets are more than {MAX_TARGETS}")
        try:
            wanted = [Target.from_primitive(value) for value in targets]
        except (KeyError, TypeError, ValueError) as exc:
            raise errors.RequestInvalid("a target is not {host, port}") from exc
        LOG.info("VNC servers dialled for an examination", servers=len(wanted))
        security = build_security(self._conf)
        with ThreadPoolExecutor(MAX_TARGETS, thread_name_prefix="probe") as pool:
            return [reach.to_primitive() for reach in pool.map(lambda each: self._reach(each, security), wanted)]

    def _reach(self, target: Target, security: Security | None) -> Reach:
        types: tuple[int, ...] = ()
        try:
            types = self._probe(target, DIAL_TIMEOUT_S)
            if security is not None:
                self._secure(target, security, DIAL_TIMEOUT_S)
            elif types and TLS_TYPES.issuperset(types):
                return Reach(target, "security", types, "it takes TLS alone, and the proxy's option has no vencrypt")
        except errors.VncServerTimeout:
            return Reach(target, "silent", types)
        except errors.VncSecurityUnsuitable as exc:
            return Reach(target, "security", types, exc.reason)
        except (errors.VncServerUnavailable, errors.ProtocolError):
            return Reach(target, "refused", types)
        return Reach(target, "", types)
