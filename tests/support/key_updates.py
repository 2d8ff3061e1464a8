# SPDX-License-Identifier: Apache-2.0
"""A TLS 1.3 client that changes its keys as often as it likes (RFC 8446 section 4.6.3).

Why own code: Python's ssl cannot send a KeyUpdate. It makes the handshake and logs its secret; from there on this
module encrypts the records itself.
"""

import secrets
import socket
import ssl
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_APPLICATION_DATA, _HANDSHAKE = 23, 22
# The message, without and with the wish for an answer.
_KEY_UPDATE, _KEY_UPDATE_ASKING = b"\x18\0\0\x01\0", b"\x18\0\0\x01\x01"
_CIPHER = "TLS_AES_256_GCM_SHA384"
KEY_UPDATE_BYTES = 27


class RecordWriter:
    """Builds the records of one direction, from its first traffic secret on."""

    def __init__(self, secret: bytes) -> None:
        self._use(secret)

    def build_data(self, payload: bytes) -> bytes:
        """Return a record with ``payload``."""
        return self._encrypt(payload, _APPLICATION_DATA)

    def build_key_update(self, asks: bool = False) -> bytes:
        """Return a record with a KeyUpdate, and go on with the next keys; ``asks``: the peer is to change its own."""
        record = self._encrypt(_KEY_UPDATE_ASKING if asks else _KEY_UPDATE, _HANDSHAKE)
        self._use(_expand(self._secret, b"traffic upd", 48))
        return record

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._gcm = AESGCM(_expand(secret, b"key", 32))
        self._iv = int.from_bytes(_expand(secret, b"iv", 12))
        self._number = 0

    def _encrypt(self, content: bytes, content_type: int) -> bytes:
        header = b"\x17\x03\x03" + (len(content) + 1 + 16).to_bytes(2)
        nonce = (self._iv ^ self._number).to_bytes(12)
        self._number += 1
        return header + self._gcm.encrypt(nonce, content + bytes([content_type]), header)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label without a context (RFC 8446 section 7.1)."""
    label = b"tls13 " + label
    info = size.to_bytes(2) + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(SHA384(), size, info).derive(secret)


def connect_writer(sock: socket.socket) -> tuple[socket.socket, RecordWriter]:
    """Make the handshake on ``sock``, which waits; return the socket without TLS, and the writer of its records.

    :raises OSError: when the handshake fails.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory(prefix=f"keys{secrets.token_hex(2)}") as directory:
        log = Path(directory, "keys")
        context.keylog_filename = str(log)
        timeout_s = sock.gettimeout()
        tls = context.wrap_socket(sock)
        assert (tls.cipher() or ("",))[0] == _CIPHER
        lines = (line.split() for line in log.read_text(encoding="ascii").splitlines())
        (secret,) = (bytes.fromhex(words[2]) for words in lines if words[0] == "CLIENT_TRAFFIC_SECRET_0")
    bare = socket.socket(fileno=tls.detach())
    bare.settimeout(timeout_s)
    return bare, RecordWriter(secret)
