# SPDX-License-Identifier: Apache-2.0
"""The proxy's TLS context, with Python's safe defaults kept.

Why own code for six lines: websockify builds a context per connection and overwrites ``options``, which drops
the defaults. Called by :mod:`porthole_novncproxy.daemon` at start and at SIGHUP.
"""

import ssl

from oslo_config import cfg

from porthole_common import errors

_VERSIONS = {"tlsv1_2": ssl.TLSVersion.TLSv1_2, "tlsv1_3": ssl.TLSVersion.TLSv1_3}


def build_context(conf: cfg.ConfigOpts) -> ssl.SSLContext | None:
    """Return the server's context, or None when no certificate is configured.

    :raises ConfigInvalid: when a file cannot be read, does not fit, or ``ssl_only`` has no certificate.
    """
    if not conf.cert:
        if conf.ssl_only:
            raise errors.ConfigInvalid("[DEFAULT] ssl_only", "it needs [DEFAULT] cert")
        if conf.key:
            raise errors.ConfigInvalid("[DEFAULT] key", "it needs [DEFAULT] cert")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[conf.console.ssl_minimum_version]
    if conf.console.ssl_ciphers:
        try:
            context.set_ciphers(conf.console.ssl_ciphers)
        except ssl.SSLError as exc:
            raise errors.ConfigInvalid("[console] ssl_ciphers", "OpenSSL knows none of them") from exc
    for option, path in (("cert", conf.cert), ("key", conf.key)):
        _check_readable(option, path)
    try:
        context.load_cert_chain(conf.cert, conf.key or None, password=_refuse_passphrase)
    except ssl.SSLError as exc:
        raise errors.ConfigInvalid("[DEFAULT] cert", f"{conf.cert}: not a PEM certificate with its key") from exc
    return context


def _refuse_passphrase() -> str:
    """Stand in for OpenSSL's own question on the terminal, for which a daemon would wait for ever."""
    raise errors.ConfigInvalid("[DEFAULT] key", "it has a passphrase, and there is nobody to ask for it")


def _check_readable(option: str, path: str | None) -> None:
    if not path:
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as exc:
        raise errors.ConfigInvalid(f"[DEFAULT] {option}", f"{path}: {exc.strerror}") from exc
