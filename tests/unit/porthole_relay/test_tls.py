# SPDX-License-Identifier: Apache-2.0
import ssl

import pytest

from porthole_common import errors
from porthole_relay.tls import Setting, build_server_context, check_readable, load_certificate
from support.certificates import make_certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def build(certificate, ciphers=None, minimum_version=ssl.TLSVersion.TLSv1_2):
    return build_server_context(
        cert=Setting("[gateway] cert", str(certificate.cert)),
        key=Setting("[gateway] key", str(certificate.key)),
        ciphers=Setting("[gateway] ciphers", ciphers),
        minimum_version=minimum_version,
    )


def test_a_server_context_keeps_pythons_safe_defaults(certificate):
    context = build(certificate)
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert all("SHA1" not in cipher["description"] for cipher in context.get_ciphers())


def test_the_minimum_version_is_the_callers(certificate):
    assert build(certificate, minimum_version=ssl.TLSVersion.TLSv1_3).minimum_version is ssl.TLSVersion.TLSv1_3


def test_an_error_names_the_option_of_the_caller(certificate, tmp_path):
    with pytest.raises(errors.ConfigInvalid) as caught:
        build(certificate, ciphers="NONSENSE")
    assert caught.value.option == "[gateway] ciphers"
    with pytest.raises(errors.ConfigInvalid) as caught:
        check_readable(Setting("[gateway] ca", str(tmp_path / "missing.pem")))
    assert caught.value.option == "[gateway] ca"


def test_a_client_context_may_have_a_certificate_too(certificate, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.cert.read_bytes() + certificate.key.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_certificate(context, Setting("[gateway] cert", str(both)), Setting("[gateway] key", None))
    with pytest.raises(errors.ConfigInvalid) as caught:
        load_certificate(context, Setting("[gateway] cert", str(certificate.cert)), Setting("[gateway] key", None))
    assert caught.value.option == "[gateway] cert"
