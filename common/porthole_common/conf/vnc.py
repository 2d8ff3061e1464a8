# SPDX-License-Identifier: Apache-2.0
"""[vnc]: VNC consoles: where the proxies listen and what URL the user gets."""

from oslo_config import cfg, types

GROUP = "vnc"
# Where Nova had its options of today's group.
_OLD_GROUP = "DEFAULT"


def _list_old_names(name: str) -> list[cfg.DeprecatedOpt]:
    """Return ``name`` in both groups in which Nova had it."""
    return [cfg.DeprecatedOpt(name, group=_OLD_GROUP), cfg.DeprecatedOpt(name, group=GROUP)]


OPTS: list[cfg.Opt] = [
    cfg.BoolOpt(
        "enabled",
        default=True,
        deprecated_opts=[cfg.DeprecatedOpt("vnc_enabled", group=_OLD_GROUP)],
        help="Offer VNC consoles on this host.",
    ),
    cfg.HostAddressOpt(
        "server_listen",
        default="127.0.0.1",
        deprecated_opts=_list_old_names("vncserver_listen"),
        help="Address the VNC servers of this host listen on. Nova writes it into the domain; Porthole reads it there.",
    ),
    cfg.HostAddressOpt(
        "server_proxyclient_address",
        default="127.0.0.1",
        deprecated_opts=_list_old_names("vncserver_proxyclient_address"),
        help="Address under which the proxy reaches a VNC server of this host that listens on a wildcard address, "
        "or on loopback when this is not loopback.",
    ),
    cfg.HostAddressOpt(
        "novncproxy_host",
        default="0.0.0.0",  # noqa: S104
        deprecated_group=_OLD_GROUP,
        help="Address the noVNC proxy listens on.",
    ),
    cfg.PortOpt("novncproxy_port", default=6080, deprecated_group=_OLD_GROUP, help="TCP port of the noVNC proxy."),
    cfg.URIOpt(
        "novncproxy_base_url",
        default="http://127.0.0.1:6080/console.html",
        deprecated_group=_OLD_GROUP,
        schemes=["http", "https"],
        help="Where a user's browser finds the noVNC page; the token is added as ``path=%3Ftoken%3D<uuid>``.",
    ),
    cfg.BoolOpt("xvpvncproxy_enabled", default=True, help="Listen for native VNC viewers (CONNECT with a token)."),
    cfg.HostAddressOpt(
        "xvpvncproxy_host",
        default="0.0.0.0",  # noqa: S104
        deprecated_group=_OLD_GROUP,
        help="Address the xvpvnc proxy listens on.",
    ),
    cfg.PortOpt("xvpvncproxy_port", default=6081, deprecated_group=_OLD_GROUP, help="TCP port of the xvpvnc proxy."),
    cfg.URIOpt(
        "xvpvncproxy_base_url",
        default="http://127.0.0.1:6081/console",
        deprecated_group=_OLD_GROUP,
        schemes=["http", "https"],
        help="Where a native viewer connects; the token is added as ``token=<uuid>``.",
    ),
    cfg.ListOpt(
        "auth_schemes",
        default=["none"],
        item_type=types.String(choices=["none", "vencrypt"]),
        help="How the proxy secures its connections to VNC servers: schemes, the preferred one first. ``none`` alone: "
        "plain TCP, and the RFB stream is opaque to the proxy. ``vencrypt``: TLS, and the server's certificate is "
        "checked. ``vencrypt, none``: TLS where a VNC server offers it. An attacker on the network can prevent that "
        "TLS, so use it only while the hypervisors get their certificates one by one.",
    ),
    cfg.StrOpt(
        "vencrypt_ca_certs",
        help="PEM file with the authorities that sign the certificates of VNC servers. ``vencrypt`` needs it. A "
        "certificate must have the dialled address among its subject alternative names.",
    ),
    cfg.StrOpt(
        "vencrypt_client_cert",
        help="PEM file with the proxy's certificate for VNC servers that ask for one (QEMU's ``verify-peer=yes``). "
        "Unset: no certificate.",
    ),
    cfg.StrOpt(
        "vencrypt_client_key",
        help="PEM file with the key of ``vencrypt_client_cert``. Unset: the key is in that file.",
    ),
    cfg.BoolOpt(
        "vencrypt_allow_anonymous",
        default=False,
        help="Accept VNC servers that offer only TLS without a certificate (TLSNone). It protects against an "
        "eavesdropper, but not against an attacker who can pretend to be the VNC server.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]
