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
        help="Processes that share the ports. One process serves thousands of consoles; more use more processors. "
        "Each process counts the limits below by itself.",
    ),
    cfg.IntOpt(
        "handshake_threads",
        default=64,
        min=1,
        max=256,
        help="Threads that check tokens and dial. A few of them work at a time; the others serve consoles whose "
        "daemons or VNC servers are silent. Dials that take long hold at most half of them. While the message bus is "
        "away, each thread may wait for its return.",
    ),
    cfg.IntOpt(
        "handshake_backlog",
        default=1024,
        min=1,
        max=16384,
        help="Requests that may wait for a handshake thread, and as many for a page. More requests get 503.",
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
        help="Bytes of a request's header, its first line included. A longer one is refused with 431: browsers send "
        "one or two thousand, and a client that sends without end must not fill the memory.",
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
        help="Seconds that a viewer may take for RFB's security handshake, in which its user may type the VNC server's "
        "password. The option has no effect without ``vencrypt`` in ``[vnc] auth_schemes``.",
    ),
    cfg.IntOpt(
        "max_sessions",
        default=9500,
        min=1,
        mutable=True,
        help="Open consoles in total. Each takes two descriptors; compare with the limit of the process.",
    ),
    cfg.IntOpt(
        "max_sessions_per_source",
        default=1000,
        min=1,
        mutable=True,
        help="Open consoles per client address (IPv6: per /64 network).",
    ),
    cfg.IntOpt("max_sessions_per_token", default=10, min=1, mutable=True, help="Open consoles per token."),
    cfg.IntOpt("max_sessions_per_instance", default=50, min=1, mutable=True, help="Open consoles per instance."),
    cfg.IntOpt(
        "max_sessions_per_user",
        default=0,
        min=0,
        mutable=True,
        help="Open consoles per user to whom the URLs were issued; 0: any number. With ``noauth`` everybody is "
        "``admin``.",
    ),
    cfg.IntOpt(
        "max_waiting_connections",
        default=4096,
        min=16,
        mutable=True,
        help="Connections in total that are not admitted: they wait for a request, shake hands, or take an answer. "
        "With more, the oldest one of the address with the most ends. Each takes a descriptor.",
    ),
    cfg.IntOpt(
        "max_waiting_connections_per_source",
        default=256,
        min=8,
        mutable=True,
        help="Connections per client address (IPv6: per /64 network) that are not admitted. With more, the oldest "
        "connection of the same address ends. A browser keeps six, so this serves some forty users behind one address "
        "at a time. ``[console] trusted_proxies`` are exempt: only a request says which client is behind one.",
    ),
    cfg.IntOpt(
        "reserved_descriptors",
        default=64,
        min=8,
        max=4096,
        mutable=True,
        help="Descriptors that are kept back from connections that are not admitted, for dials, pages and the message "
        "bus: at most a quarter of all. When so few are left, each new connection ends one that waits.",
    ),
    cfg.FloatOpt(
        "ping_interval",
        default=45.0,
        min=0,
        max=3600,
        help="Seconds between two WebSocket pings. A console ends when its client does not answer a ping before the "
        "next one. Many middleboxes cut a connection after 60 s of silence. 0: no pings.",
    ),
    cfg.FloatOpt(
        "idle_timeout",
        default=0.0,
        min=0,
        help="Seconds without a byte in either direction after which a console ends. 0: never.",
    ),
    cfg.FloatOpt("max_session_time", default=0.0, min=0, help="Seconds a console may stay open. 0: no limit."),
    cfg.FloatOpt(
        "recheck_interval",
        default=60.0,
        min=1,
        max=3600,
        help="Seconds within which the proxy asks each compute host again which of its open consoles are valid. A "
        "revocation that was lost on the message bus ends its consoles after this time at the latest. With a minute, "
        "9500 consoles cost a proxy about a percent of a processor. It also asks after each new connection to the "
        "message bus, and when a compute has started.",
    ),
    cfg.IntOpt(
        "relay_high_mark",
        default=262144,
        min=4096,
        max=16777216,
        help="The most bytes that are held for a viewer. It is at least ``relay_low_mark``.",
    ),
    cfg.IntOpt(
        "relay_low_mark",
        default=65536,
        min=0,
        max=16777216,
        help="With more bytes than this held for a viewer, the proxy does not read from its VNC server.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]
