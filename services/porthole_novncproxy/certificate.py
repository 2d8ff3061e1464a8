# SPDX-License-Identifier: Apache-2.0
"""The dates and names of a certificate, from its PEM file.

Why: an operator wants to hear before Sunday that the certificate ends on Sunday, and the ssl module shows nothing of a
certificate that it uses. Called by :mod:`porthole_novncproxy.endpoint` and ``porthole doctor``.
"""

from pathlib import Path

from cryptography import x509

from porthole_common.diagnosis import CertificateDates

# A chain of ten has 20 KiB.
_MAX_PEM_BYTES = 1024 * 1024


def read_certificate(path: str | None) -> CertificateDates | None:
    """Return dates and names of the first certificate in the file at ``path``; None when none can be read."""
    if not path:
        return None
    try:
        with Path(path).open("rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read(_MAX_PEM_BYTES))
    except (OSError, ValueError):
        return None
    return parse_certificate(certificate)


def parse_certificate(certificate: x509.Certificate) -> CertificateDates:
    """Return its dates, and the DNS names and addresses of its subjectAltName (RFC 5280 section 4.2.1.6)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [*extension.get_values_for_type(x509.DNSName)]
        names += [str(address) for address in extension.get_values_for_type(x509.IPAddress)]
    except (x509.ExtensionNotFound, ValueError):
        names = []
    return CertificateDates(certificate.not_valid_before_utc, certificate.not_valid_after_utc, tuple(names))
