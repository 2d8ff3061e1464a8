# SPDX-License-Identifier: Apache-2.0
"""[console]: which browser pages may open a console, and over what TLS."""

from oslo_config import cfg, types

GROUP = "console"
OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "allowed_origins",
        mutable=True,
        default=[],
        deprecated_opts=[cfg.DeprecatedOpt("console_allowed_origins", group="DEFAULT")],
        item_type=types.HostAddress(),
        help="Host names besides the request's own Host whose pages may open a console (RFC 6454).",
    ),
    cfg.ListOpt(
        "trusted_proxies",
        mutable=True,
        default=[],
        item_type=types.IPAddress(),
        help="Addresses of reverse proxies whose X-Forwarded-Proto and X-Forwarded-For are trusted: the scheme of a "
        "page, and the client for ``[novncproxy] max_sessions_per_source``.",
    ),
    cfg.ListOpt(
        "frame_ancestors",
        default=["'self'"],
        help="CSP frame-ancestors of the console pages: which sites may embed them.",
    ),
    cfg.BoolOpt(
        "force_shared",
        default=True,
        help="Whether the proxy sets the shared flag of each viewer (RFC 6143, section 7.3.1). Without it, a viewer "
        "that asks for the screen alone has the VNC server throw out all others, who do not learn why.",
    ),
    cfg.StrOpt("ssl_ciphers", help="OpenSSL cipher list of the proxy for TLS 1.2. Unset: Python's default."),
    cfg.StrOpt(
        "ssl_minimum_version",
        default="tlsv1_2",
        choices=["tlsv1_2", "tlsv1_3"],
        help="Oldest TLS version the proxy speaks.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]
