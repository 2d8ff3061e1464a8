# SPDX-License-Identifier: Apache-2.0
"""The options. The handshake itself meets servers on real sockets elsewhere."""

import ssl

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.rfb.negotiation import Policy
from porthole_novncproxy.admission.vencrypt import build_security, name_to_check
from support.cases import naming
from support.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue("proxy.example")


def build(*schemes, **options):
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf([], project="porthole", default_config_files=[])
    conf.set_override("auth_schemes", list(schemes), group="vnc")
    for name, value in options.items():
        conf.set_override(f"vencrypt_{name}", value if isinstance(value, bool) else str(value), group="vnc")
    return build_security(conf)


def test_the_default_is_an_opaque_stream():
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf([], project="porthole", default_config_files=[])
    assert build_security(conf) is None


def test_none_alone_looks_at_no_file():
    assert build("none", ca_certs="/nope", client_key="/nope") is None


def test_the_order_of_the_schemes_is_kept(authority):
    for schemes in (("vencrypt",), ("vencrypt", "none"), ("none", "vencrypt")):
        with naming(schemes):
            assert build(*schemes, ca_certs=authority.cert).policy == Policy(schemes)


def test_a_certificate_is_checked_and_its_name_too(authority):
    context = build("vencrypt", ca_certs=authority.cert).verified
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.hostname_checks_common_name
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    # The authorities of the machine are nobody's here.
    assert len(context.get_ca_certs()) == 1


def test_tls_without_certificates_is_for_those_who_ask_for_it(authority):
    assert not build("vencrypt", ca_certs=authority.cert).policy.anonymous
    security = build("vencrypt", ca_certs=authority.cert, allow_anonymous=True)
    assert security.policy.anonymous
    names = [cipher["name"] for cipher in security.anonymous.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert names
    assert all(name.startswith(("ADH-AES", "AECDH-AES")) for name in names)


def test_a_client_certificate_is_optional_and_its_key_may_stand_with_it(authority, certificate, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.cert.read_bytes() + certificate.key.read_bytes())
    assert build("vencrypt", ca_certs=authority.cert, client_cert=certificate.cert, client_key=certificate.key)
    assert build("vencrypt", ca_certs=authority.cert, client_cert=both)


def test_what_does_not_do_is_named(authority, certificate, tmp_path):
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense", encoding="utf-8")
    good = {"ca_certs": authority.cert}
    for option, schemes, options in (
        ("auth_schemes", (), {}),
        ("vencrypt_ca_certs", ("vencrypt",), {}),
        ("vencrypt_ca_certs", ("vencrypt", "none"), {}),
        ("vencrypt_ca_certs", ("vencrypt",), {"ca_certs": "/nope"}),
        ("vencrypt_ca_certs", ("vencrypt",), {"ca_certs": tmp_path}),
        ("vencrypt_ca_certs", ("vencrypt",), {"ca_certs": nonsense}),
        ("vencrypt_client_key", ("vencrypt",), {**good, "client_key": certificate.key}),
        ("vencrypt_client_cert", ("vencrypt",), {**good, "client_cert": "/nope"}),
        ("vencrypt_client_cert", ("vencrypt",), {**good, "client_cert": nonsense}),
        ("vencrypt_client_cert", ("vencrypt",), {**good, "client_cert": certificate.cert}),
        ("vencrypt_client_key", ("vencrypt",), {**good, "client_cert": certificate.cert, "client_key": "/nope"}),
        (
            "vencrypt_client_key",
            ("vencrypt",),
            {**good, "client_cert": certificate.cert, "client_key": certificate.encrypted_key},
        ),
        (
            "vencrypt_client_cert",
            ("vencrypt",),
            {**good, "client_cert": certificate.cert, "client_key": authority.issue("other").key},
        ),
    ):
        with naming(option, schemes, options):
            with pytest.raises(errors.ConfigInvalid) as caught:
                build(*schemes, **options)
            assert caught.value.option == f"[vnc] {option}"


def test_an_unknown_scheme_is_named():
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf([], project="porthole", default_config_files=[])
    with pytest.raises(ValueError, match="vencript"):
        conf.set_override("auth_schemes", ["vencript"], group="vnc")


def test_the_name_to_check_is_the_host_that_is_dialled():
    cases = [
        ("compute-1.example", "compute-1.example"),
        ("compute-1.example.", "compute-1.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ]
    for host, name in cases:
        with naming(host, name):
            assert name_to_check(host) == name
