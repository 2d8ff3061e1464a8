# SPDX-License-Identifier: Apache-2.0
import ssl

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_novncproxy.tls_options import build_context
from support.cases import naming
from support.certificates import make_certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def build(**options):
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf([], project="porthole", default_config_files=[])
    for name, value in options.items():
        group = "console" if name.startswith("ssl_") and name != "ssl_only" else None
        conf.set_override(name, str(value) if name in ("cert", "key") else value, group=group)
    return build_context(conf)


def test_without_a_certificate_there_is_no_tls():
    assert build() is None


def test_the_oldest_version_is_tls_1_2(certificate):
    """Nobody has to ask for it (S13)."""
    context = build(cert=certificate.cert, key=certificate.key)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION


def test_it_may_be_tls_1_3(certificate):
    context = build(cert=certificate.cert, key=certificate.key, ssl_minimum_version="tlsv1_3")
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_ciphers_are_those_of_the_option(certificate):
    """And no others (S13)."""
    context = build(cert=certificate.cert, key=certificate.key, ssl_ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
    names = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
    assert names == {"ECDHE-ECDSA-AES256-GCM-SHA384"}


def test_the_key_may_stand_in_the_certificates_file(certificate, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.cert.read_bytes() + certificate.key.read_bytes())
    assert build(cert=both) is not None


def test_what_does_not_do_is_named():
    cases = [
        ({"ssl_only": True}, "[DEFAULT] ssl_only"),
        ({"key": "any"}, "[DEFAULT] key"),
        ({"cert": "missing.pem"}, "[DEFAULT] cert"),
    ]
    for options, named in cases:
        with naming(options, named):
            with pytest.raises(errors.ConfigInvalid) as caught:
                build(**options)
            assert caught.value.option == named


def test_a_missing_key_is_named(certificate, tmp_path):
    with pytest.raises(errors.ConfigInvalid) as caught:
        build(cert=certificate.cert, key=tmp_path / "missing.key")
    assert caught.value.option == "[DEFAULT] key"


def test_ciphers_that_nobody_knows_are_named(certificate):
    with pytest.raises(errors.ConfigInvalid) as caught:
        build(cert=certificate.cert, key=certificate.key, ssl_ciphers="NONSENSE")
    assert caught.value.option == "[console] ssl_ciphers"


def test_a_key_with_a_passphrase_is_named_and_nobody_is_asked_for_it(certificate):
    with pytest.raises(errors.ConfigInvalid) as caught:
        build(cert=certificate.cert, key=certificate.encrypted_key)
    assert caught.value.option == "[DEFAULT] key"
    assert "passphrase" in caught.value.reason


def test_a_key_of_another_certificate_is_refused(certificate, tmp_path):
    with pytest.raises(errors.ConfigInvalid):
        build(cert=certificate.cert, key=make_certificate(tmp_path, "other").key)


def test_a_file_that_is_no_certificate_is_refused(certificate, tmp_path):
    for content in (b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with naming(content):
            broken = tmp_path / "broken.pem"
            broken.write_bytes(content)
            with pytest.raises(errors.ConfigInvalid):
                build(cert=broken, key=certificate.key)
