# SPDX-License-Identifier: Apache-2.0
"""TLS contexts from plain values, with Python's safe defaults kept.

Why own code for a few lines: websockify builds a context per connection and overwrites ``options``, which drops the
defaults. The caller reads the options and names them, so that an error can say which option is wrong. Called by
:mod:`porthole_novncproxy.tls_options` (the proxy's clients) and :mod:`porthole_novncproxy.admission.vencrypt` (the VNC
servers).
"""

import ssl
from dataclasses import dataclass

from porthole_common import errors

# Python's own default (Modules/_ssl.c). Debian builds its Python with OpenSSL's default instead, which accepts SHA-1
# and key exchange without forward secrecy.
_CIPHERS = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"


@dataclass(frozen=True)
class Setting:
    """A value, and the option that it comes from, as an error names it. An unset value is None or empty."""

    option: str
    value: str | None


def build_server_context(
    *, cert: Setting, key: Setting, ciphers: Setting, minimum_version: ssl.TLSVersion
) -> ssl.SSLContext:
    """Return the context of a TLS server; ``cert`` and ``key`` are paths, and unset ``ciphers`` are Python's default.

    :raises ConfigInvalid: when a file cannot be read, the key does not fit, or OpenSSL knows none of the ciphers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum_version
    try:
        context.set_ciphers(ciphers.value or _CIPHERS)
    except ssl.SSLError as exc:
        raise errors.ConfigInvalid(ciphers.option, "OpenSSL knows none of them") from exc
    load_certificate(context, cert, key)
    return context


def load_certificate(context: ssl.SSLContext, cert: Setting, key: Setting) -> None:
    """Load a certificate into ``context``; an unset ``key`` is in the certificate's file.

    :raises ConfigInvalid: when a file cannot be read, the key has a passphrase, or the key does not fit.
    """
    for setting in (cert, key):
        if setting.value:
            check_readable(setting)

    def refuse_passphrase() -> str:
        # OpenSSL itself would ask for the passphrase on the terminal, and a daemon would hang.
        raise errors.ConfigInvalid(key.option, "the key has a passphrase; give a key without one")

    try:
        context.load_cert_chain(cert.value or "", key.value or None, password=refuse_passphrase)
    except ssl.SSLError as exc:
        raise errors.ConfigInvalid(cert.option, f"{cert.value}: not a PEM certificate with its key") from exc


def check_readable(path: Setting) -> None:
    """Open the file, and close it again.

    :raises ConfigInvalid: when that fails.
    """
    try:
        with open(path.value or "", "rb"):
            pass
    except OSError as exc:
        raise errors.ConfigInvalid(path.option, f"{path.value}: {exc.strerror}") from exc
