# SPDX-License-Identifier: Apache-2.0
"""Certificates that tests make for themselves: self-signed for localhost, or of an authority and its intermediate."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

_HOUR = datetime.timedelta(hours=1)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Certificate:
    """PEM files: the certificate, its key, and the same key under the passphrase ``secret``."""

    cert: Path
    key: Path
    encrypted_key: Path


def make_certificate(directory: Path, name: str = "localhost", rsa_bits: int | None = None) -> Certificate:
    """Write a certificate for ``name``, 127.0.0.1 and ::1 into ``directory``.

    Its key is ECDSA's, or RSA's of ``rsa_bits``.
    """
    key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
    builder = _for_authority(_builder(name, name, key, key)).add_extension(_alternative_names(name), critical=False)
    return _write(directory, name, key, [builder.sign(key, hashes.SHA256())])


class Authority:
    """A certificate authority: :attr:`cert` is the PEM file that a client trusts."""

    def __init__(self, directory: Path, name: str = "root", issuer: Self | None = None) -> None:
        """Make an authority of its own, or an intermediate one that ``issuer`` signs."""
        self._directory = directory
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        signer = issuer or self
        builder = _for_authority(_builder(name, signer._name, self._key, signer._key))
        self._certificate = builder.sign(signer._key, hashes.SHA256())
        self.cert = directory / f"{name}.pem"
        self.cert.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str = "localhost",
        *,
        expired: bool = False,
        chain: bool = True,
        alternative_names: Sequence[str] | None = None,
    ) -> Certificate:
        """Write a server's certificate for ``name``; 127.0.0.1 and ::1 are its names only with localhost.

        ``alternative_names`` are the names and addresses it is for instead; ``name`` is then its common name alone.
        ``expired``: since an hour. ``chain``: with this authority's own certificate behind it in the same file, as a
        server has to send it when its clients know only who signed that one.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, self._name, key, self._key, ends_in=-_HOUR if expired else 24 * _HOUR)
        names = _alternative_names(name) if alternative_names is None else _build_names(alternative_names)
        if alternative_names is None or alternative_names:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return _write(self._directory, name, key, [certificate, *([self._certificate] if chain else [])])


def _builder(
    name: str,
    issuer: str,
    key: PrivateKey,
    issuer_key: PrivateKey,
    ends_in: datetime.timedelta = 24 * _HOUR,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 24 * _HOUR)
        .not_valid_after(now + ends_in)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _for_authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    """Add what newer clients want to see of a certificate that signs others (RFC 5280 section 4.2.1.3)."""
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    usage = dict.fromkeys((*names, "decipher_only"), False)
    usage |= dict.fromkeys(("digital_signature", "key_cert_sign", "crl_sign"), True)
    builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)


def _alternative_names(name: str) -> x509.SubjectAlternativeName:
    return _build_names((name, "127.0.0.1", "::1") if name == "localhost" else (name,))


def _build_names(texts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for text in texts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            names.append(x509.DNSName(text))
    return x509.SubjectAlternativeName(names)


def _write(directory: Path, name: str, key: PrivateKey, certificates: list[x509.Certificate]) -> Certificate:
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key", directory / f"{name}.encrypted.key")
    pem = serialization.Encoding.PEM
    made.cert.write_bytes(b"".join(certificate.public_bytes(pem) for certificate in certificates))
    made.key.write_bytes(_key_bytes(key, serialization.NoEncryption()))
    made.encrypted_key.write_bytes(_key_bytes(key, serialization.BestAvailableEncryption(b"secret")))
    return made


def _key_bytes(key: PrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
