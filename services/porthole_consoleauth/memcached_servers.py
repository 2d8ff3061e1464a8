# SPDX-License-Identifier: Apache-2.0
"""The store in memcached as the options of [memcache] describe it: its servers, their TLS and login.

Why apart from :mod:`porthole_consoleauth.memcached_store`: the rules of the store need no option, and no library.
Called by :mod:`porthole_consoleauth.main`.
"""

from oslo_config import cfg, types
from oslo_utils import netutils

from porthole_common import errors
from porthole_consoleauth.memcached_node import MemcachedNode, build_tls_context
from porthole_consoleauth.memcached_store import MemcachedStore

OPTION = "[memcache] servers"


def build_store(conf: cfg.ConfigOpts) -> MemcachedStore:
    """Build the store from the options of [memcache]; nothing is connected yet.

    :raises ConfigInvalid: when ``servers`` is empty, names a server twice, or has one that is not host:port; when an
        option of TLS or of the login is not valid.
    """
    addresses = [parse_server(text) for text in conf.memcache.servers]
    if not addresses:
        raise errors.ConfigInvalid(OPTION, "at least one server is needed")
    if len(set(addresses)) != len(addresses):
        raise errors.ConfigInvalid(OPTION, "a server is listed twice")
    tls = build_tls_context(conf.memcache)
    return MemcachedStore(
        {
            f"{netutils.escape_ipv6(host)}:{port}": MemcachedNode(host, port, conf.memcache, tls)
            for host, port in addresses
        }
    )


def parse_server(text: str) -> tuple[str, int]:
    """Return (host, port) of ``host:port``, ``[IPv6]:port``.

    :raises ConfigInvalid: when it is neither.
    """
    try:
        host, port = netutils.parse_host_port(text)
        types.HostAddress()(host or "")
        if port is None or not 0 < port < 65536:
            raise ValueError("the port is missing or out of range")
    except ValueError as exc:
        raise errors.ConfigInvalid(OPTION, f"{text!r} is not host:port ({exc})") from None
    return host.lower(), port
