# SPDX-License-Identifier: Apache-2.0
"""The proxy's TLS context for its clients, with Python's safe defaults kept.

Why own code for six lines: websockify builds a context per connection and overwrites ``options``, which drops
the defaults. Called by :mod:`porthole_novncproxy.daemon` at start and at SIGHUP;
:mod:`porthole_novncproxy.admission.vencrypt`, which has the context for VNC servers, loads its files the same way.
"""

import ssl

from oslo_config import cfg

from porthole_common import errors

# Python's own default (Modules/_ssl.c), said once more: Debian builds its Python with OpenSSL's instead, which takes
# SHA-1 and key exchange without forward secrecy.
_CIPHERS = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
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
    try:
        context.set_ciphers(conf.console.ssl_ciphers or _CIPHERS)
    except ssl.SSLError as exc:
        raise errors.ConfigInvalid("[console] ssl_ciphers", "OpenSSL knows none of them") from exc
    load_certificate(context, ("[DEFAULT] cert", conf.cert), ("[DEFAULT] key", conf.key))
    return context


def load_certificate(context: ssl.SSLContext, cert: tuple[str, str], key: tuple[str, str | None]) -> None:
    """Have ``context`` show a certificate; ``cert`` and ``key`` are (option, path), the key's path None where it stands
    in the same file.

    :raises ConfigInvalid: when a file cannot be read, the key has a passphrase, or the two do not fit.
    """  # noqa: D205
    for option, path in (cert, key):
        if path:
            check_readable(option, path)

    def refuse_passphrase() -> str:
        # OpenSSL itself would ask for it on the terminal, where a daemon waits for ever.
        raise errors.ConfigInvalid(key[0], "it has a passphrase, and there is nobody to ask for it")

    try:
        context.load_cert_chain(cert[1], key[1] or None, password=refuse_passphrase)
    except ssl.SSLError as exc:
        raise errors.ConfigInvalid(cert[0], f"{cert[1]}: not a PEM certificate with its key") from exc


def check_readable(option: str, path: str) -> None:
    """Open the file that ``option`` names, and close it again.

    :raises ConfigInvalid: when that cannot be done.
    """
    try:
        with open(path, "rb"):
            pass
    except OSError as exc:
        raise errors.ConfigInvalid(option, f"{path}: {exc.strerror}") from exc
