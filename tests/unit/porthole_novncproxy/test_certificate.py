# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime
from pathlib import Path

from porthole_novncproxy.certificate import read_certificate
from support.cases import naming
from support.certificates import Authority, make_certificate


def test_dates_and_names(tmp_path: Path) -> None:
    dates = read_certificate(str(make_certificate(tmp_path).cert))
    assert dates is not None
    assert dates.not_before < datetime.now(UTC) < dates.not_after
    assert dates.names == ("localhost", "127.0.0.1", "::1")


def test_the_first_of_a_chain_counts(tmp_path: Path) -> None:
    dates = read_certificate(str(Authority(tmp_path).issue("console.example", expired=True).cert))
    assert dates is not None
    assert dates.not_after < datetime.now(UTC)
    assert dates.names == ("console.example",)


def test_a_certificate_without_names(tmp_path: Path) -> None:
    dates = read_certificate(str(Authority(tmp_path).cert))
    assert dates is not None
    assert dates.names == ()


def test_what_is_no_certificate(tmp_path: Path) -> None:
    for content in (b"", b"not PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with naming(content):
            path = tmp_path / "cert.pem"
            path.write_bytes(content)
            assert read_certificate(str(path)) is None


def test_no_file() -> None:
    for path in (None, "", "/nowhere/cert.pem"):
        with naming(path):
            assert read_certificate(path) is None
