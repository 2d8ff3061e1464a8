# SPDX-License-Identifier: Apache-2.0
"""The TLS context for the proxy's clients, from the options.

Why: :mod:`porthole_relay.tls` takes plain values; this module knows the options that hold them. Called by
:mod:`porthole_novncproxy.daemon` at start and at SIGHUP.
"""

import ssl

from oslo_config import cfg

from porthole_common import errors
from porthole_relay.tls import Setting, build_server_context

_VERSIONS = {"tlsv1_2": ssl.TLSVersion.TLSv1_2, "tlsv1_3": ssl.TLSVersion.TLSv1_3}


def build_context(conf: cfg.ConfigOpts) -> ssl.SSLContext | None:
    """Return the server's context, or None when no certificate is configured.

    :raises ConfigInvalid: when a file cannot be read, the files do not fit, or ``ssl_only`` has no certificate.
    """
    if not conf.cert:
        if conf.ssl_only:
            raise errors.ConfigInvalid("[DEFAULT] ssl_only", "it needs [DEFAULT] cert")
        if conf.key:
            raise errors.ConfigInvalid("[DEFAULT] key", "it needs [DEFAULT] cert")
        return None
    return build_server_context(
        cert=Setting("[DEFAULT] cert", conf.cert),
        key=Setting("[DEFAULT] key", conf.key),
        ciphers=Setting("[console] ssl_ciphers", conf.console.ssl_ciphers),
        minimum_version=_VERSIONS[conf.console.ssl_minimum_version],
    )
