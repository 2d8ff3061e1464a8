# SPDX-License-Identifier: Apache-2.0
"""[novncproxy]: limits and deadlines of the proxy."""

from oslo_config import cfg

GROUP = "novncproxy"
OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        "workers",
        default=1,
        min=1,
        max=64,
        help="Processes that share the ports. One holds thousands of consoles; more are for more processors. "
        "Each counts the limits below for itself.",
    ),
    cfg.IntOpt(
        "handshake_threads",
        default=64,
        min=1,
        max=256,
        help="Threads that check tokens and dial. A few of them work at a time; the others are for consoles whose "
        "daemons or VNC servers are silent, and with the message bus away each may be held until it is back.",
    ),
    cfg.IntOpt(
        "handshake_backlog",
        default=1024,
        min=1,
        max=16384,
        help="Requests that wait for a handshake thread, and as many for pages. Above it: 503.",
    ),
    cfg.FloatOpt(
        "request_timeout",
        default=10.0,
        min=0.1,
        max=120,
        help="Seconds from accept to the end of the request's header, TLS included (slowloris).",
    ),
    cfg.IntOpt(
        "max_header_bytes",
        default=16384,
        min=1024,
        max=65536,
        help="Bytes of a request's header, its first line included. More is 431, and is not read: browsers send one or "
        "two thousand, and whoever sends without end is not to fill the memory.",
    ),
    cfg.FloatOpt(
        "dial_timeout",
        default=5.0,
        min=0.1,
        max=120,
        help="Seconds to reach the VNC server, its CONNECT reply and its security handshake included.",
    ),
    cfg.FloatOpt(
        "security_timeout",
        default=120.0,
        min=1,
        max=3600,
        help="Seconds a viewer that was let in may take for RFB's security handshake, in which its user may have to "
        "type the VNC server's password. Without ``vencrypt`` in ``[vnc] auth_schemes`` that is between those two "
        "alone.",
    ),
    cfg.IntOpt(
        "max_sessions",
        default=9500,
        min=1,
        mutable=True,
        help="Open consoles in all. Each takes two descriptors; compare with the process's limit.",
    ),
    cfg.IntOpt("max_sessions_per_source", default=1000, min=1, mutable=True, help="Open consoles per client address."),
    cfg.IntOpt("max_sessions_per_token", default=10, min=1, mutable=True, help="Open consoles per token."),
    cfg.IntOpt("max_sessions_per_instance", default=50, min=1, mutable=True, help="Open consoles per instance."),
    cfg.FloatOpt(
        "ping_interval",
        default=45.0,
        min=0,
        max=3600,
        help="Seconds between two WebSocket pings; a client that does not answer one before the next is gone. "
        "Below the 60 s after which many middleboxes cut a silent connection. 0: none.",
    ),
    cfg.FloatOpt(
        "idle_timeout",
        default=0.0,
        min=0,
        help="Seconds after which a console over which nothing has moved, in either direction, ends. 0: never.",
    ),
    cfg.FloatOpt("max_session_time", default=0.0, min=0, help="Seconds a console may stay open. 0: no limit."),
    cfg.IntOpt(
        "relay_high_mark",
        default=262144,
        min=4096,
        max=16777216,
        help="Bytes held for a peer that does not read before the other side is no longer read.",
    ),
    cfg.IntOpt(
        "relay_low_mark",
        default=65536,
        min=0,
        max=16777216,
        help="Bytes held at which the other side is read again.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]
