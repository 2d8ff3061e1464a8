# SPDX-License-Identifier: Apache-2.0
"""[DEFAULT]: this node, and what Nova keeps in [DEFAULT] for its console proxies."""

import socket

from oslo_config import cfg

OPTS: list[cfg.Opt] = [
    cfg.HostAddressOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<this machine's host name>",
        help="Name of this node on the bus. It must be unique among the nodes, and the same after a restart.",
    ),
    cfg.HostAddressOpt(
        "my_ip",
        default="127.0.0.1",
        help="Address of this node, for other options to refer to as ``$my_ip``. Nothing else uses it.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/porthole",
        help="Folder for what consoleauth and the proxy keep over a restart: the history, and its events that are not "
        "delivered yet. The units make it.",
    ),
    cfg.BoolOpt("ssl_only", default=False, help="Refuse connections to the proxy that are not TLS."),
    cfg.StrOpt("cert", help="PEM file with the proxy's certificate and its chain. Unset: no TLS."),
    cfg.StrOpt("key", help="PEM file with the certificate's key. Unset: the key is in ``cert``."),
    cfg.StrOpt(
        "web",
        default="/usr/share/novnc",
        help="Folder of the noVNC that the proxy serves, 1.3 or later; empty: none. The console page needs core/rfb.js "
        "there. noVNC's own pages (vnc.html, vnc_lite.html) are served where the folder has them.",
    ),
    cfg.IntOpt(
        "graceful_shutdown_timeout",
        default=60,
        min=0,
        max=86400,
        help="Seconds after SIGTERM until the proxy ends the consoles that are still open. 0: at once.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [("DEFAULT", OPTS)]
