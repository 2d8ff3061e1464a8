# SPDX-License-Identifier: Apache-2.0
"""[api]: the address of the REST API, and its authentication."""

from oslo_config import cfg

GROUP = "api"
OPTS: list[cfg.Opt] = [
    cfg.HostAddressOpt("bind_host", default="127.0.0.1", help="Address to listen on. The default is loopback."),
    cfg.PortOpt("bind_port", default=8774, help="TCP port to listen on: that of nova-api."),
    cfg.IntOpt(
        "workers", default=10, min=1, max=1000, help="Threads that answer requests; each serves one request at a time."
    ),
    cfg.IntOpt(
        "max_consoles_per_minute",
        default=600,
        min=0,
        max=1000000,
        help="New console URLs that one user may ask for in one project, at once and then in each minute, before the "
        "answer is 429; 0: any number. Each URL takes about 1 KiB of the token store until it expires: with the "
        "default, one user takes at most a tenth of memcached's usual 64 MiB. Administrators are not counted. Each api "
        "process counts for itself.",
    ),
    cfg.URIOpt(
        "public_endpoint",
        schemes=["http", "https"],
        help="URL of the API as its users see it, such as https://cloud.example/compute, for the links in its answers. "
        "Without it, each request's Host is used and, with [oslo_middleware] enable_proxy_headers_parsing, the headers "
        "of a reverse proxy.",
    ),
    cfg.StrOpt(
        "auth_strategy",
        default="noauth",
        deprecated_group="DEFAULT",
        choices=[
            ("noauth", "Every caller is an administrator; only on a loopback address."),
            ("http_basic", "User and password of [api] http_basic_auth_user_file; each user is a project of its own."),
            ("keystone", "Keystone's tokens, checked by the options of [keystone_authtoken]."),
        ],
        help="How callers authenticate.",
    ),
    cfg.StrOpt(
        "http_basic_auth_user_file",
        default="/etc/porthole/htpasswd",
        help="For http_basic: Apache's user file with bcrypt passwords (htpasswd -B), read at each request.",
    ),
    cfg.ListOpt(
        "admin_users",
        default=[],
        help="For http_basic: the users who are administrators. With keystone, the users with the role admin are.",
    ),
    cfg.BoolOpt(
        "allow_noauth_anywhere",
        default=False,
        help="Allow noauth on an address beyond this machine: every client of the port is an administrator then.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]
