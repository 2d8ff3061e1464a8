# SPDX-License-Identifier: Apache-2.0
"""[metrics]: where each daemon serves its metrics for Prometheus."""

from oslo_config import cfg

GROUP = "metrics"
# By daemon. They differ, so that the four daemons of one host can share a file. 9774 is the api's 8774 and a thousand.
DEFAULT_PORTS = {"api": 9774, "compute": 9775, "consoleauth": 9776, "novncproxy": 9777}
OPTS: list[cfg.Opt] = [
    cfg.HostAddressOpt(
        "bind_host",
        default="127.0.0.1",
        help="Address to listen on. The default is loopback: the metrics have no login and no TLS, and name the "
        "compute hosts. A Prometheus on another host needs an address that only the monitoring network reaches.",
    ),
    cfg.PortOpt(
        "bind_port",
        help="TCP port of ``/metrics``; 0: off. Unset: 9774 for the api, 9775 for compute, 9776 for consoleauth, 9777 "
        "for novncproxy, and off for ``porthole standalone``. Set another port only in a file that one daemon of the "
        "host reads. A port that is in use does not stop the daemon, which tries it again every few seconds.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]


def find_port(conf: cfg.ConfigOpts, daemon: str) -> int:
    """Return the port of ``daemon`` ("api", ..., "standalone"); 0 when it serves no metrics."""
    port = conf.metrics.bind_port
    return DEFAULT_PORTS.get(daemon, 0) if port is None else int(port)


def find_host(conf: cfg.ConfigOpts, daemon: str) -> str:
    """Return the address at which ``daemon`` serves its metrics; "" when it serves none."""
    return str(conf.metrics.bind_host) if find_port(conf, daemon) else ""
