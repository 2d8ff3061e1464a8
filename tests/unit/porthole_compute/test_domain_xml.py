# SPDX-License-Identifier: Apache-2.0

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_compute.domain_xml import (
    MAX_TEXT_CHARS,
    MAX_XML_CHARS,
    Domain,
    DomainXmlInvalid,
    VncDisplay,
    get_proxy_host,
    parse_domain,
)
from support.cases import naming

NOVA = """
<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
  <nova:name>web-1</nova:name>
  <nova:creationTime>2026-03-04 05:06:07</nova:creationTime>
  <nova:owner>
    <nova:user uuid="5f4dcc3b5aa765d61d8327deb882cf99">alice</nova:user>
    <nova:project uuid="0cc175b9c0f1b6a831c399e269772661">shop</nova:project>
  </nova:owner>
</nova:instance>
"""
OWN = """
<p:instance xmlns:p="urn:porthole:instance:1"><p:name>db-1</p:name><p:owner project="p1" user="u1"/></p:instance>
"""
VNC = "<graphics type='vnc' port='5901' autoport='yes' listen='127.0.0.1'/>"


def domain(devices: str = "", metadata: str = "", name: str = "<name>instance-01</name>") -> str:
    return f"<domain type='kvm' id='7'>{name}<metadata>{metadata}</metadata><devices>{devices}</devices></domain>"


def test_the_vnc_address_is_read() -> None:
    cases = [
        (VNC, VncDisplay("127.0.0.1", 5901)),
        (
            "<graphics type='vnc' port='5901' listen='0.0.0.0'><listen type='address' address='0.0.0.0'/></graphics>",
            VncDisplay("0.0.0.0", 5901),
        ),
        (
            "<graphics type='vnc' port='5902'><listen type='network' network='lan' address='192.0.2.7'/></graphics>",
            VncDisplay("192.0.2.7", 5902),
        ),
        (
            "<graphics type='vnc' port='5902' listen='::'><listen type='address' address='::'/></graphics>",
            VncDisplay("::", 5902),
        ),
        ("<graphics type='vnc' port='5903'/>", VncDisplay(None, 5903)),
        ("<graphics type='vnc' port='5903' sharePolicy='ignore'/>", VncDisplay(None, 5903, "ignore")),
        ("<graphics type='vnc' port='-1' autoport='yes'/>", VncDisplay(None, None)),
        ("<graphics type='vnc' autoport='yes'/>", VncDisplay(None, None)),
        ("<graphics type='vnc' port='0'/>", VncDisplay(None, None)),
        ("<graphics type='spice' port='5900'/>", None),
        ("", None),
        ("<graphics type='vnc' socket='/run/vnc.sock'/>", None),
        ("<graphics type='vnc'><listen type='socket' socket='/run/vnc.sock'/></graphics>", None),
        ("<graphics type='vnc'><listen type='none'/></graphics>", None),
        ("<graphics type='spice' port='5900'/><!-- two -->" + VNC, VncDisplay("127.0.0.1", 5901)),
        ("<graphics type='vnc' socket='/run/vnc.sock'/>" + VNC, VncDisplay("127.0.0.1", 5901)),
    ]
    for graphics, expected in cases:
        with naming(graphics, expected):
            assert parse_domain(domain(graphics)).vnc == expected


def test_novas_owner_and_name_win() -> None:
    assert parse_domain(domain(metadata=OWN + NOVA)) == Domain(
        name="web-1",
        project_id="0cc175b9c0f1b6a831c399e269772661",
        user_id="5f4dcc3b5aa765d61d8327deb882cf99",
        created_at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        vnc=None,
    )


def test_novas_metadata_in_any_version_1() -> None:
    """A guest from before 2018 has 1.0 until it is rebuilt."""
    latest = parse_domain(domain(metadata=NOVA))
    for minor in ("0", "2", "10"):
        with naming(minor):
            assert parse_domain(domain(metadata=NOVA.replace("nova/1.1", f"nova/1.{minor}"))) == latest
    for version in ("2.0", "1", "1.", "1.x", "1.1/more", "11.1"):
        with naming(version):
            parsed = parse_domain(domain(metadata=NOVA.replace("nova/1.1", f"nova/{version}")))
            assert parsed == Domain("instance-01", None, None, None, None)


def test_of_two_versions_of_novas_metadata_the_newer_one_counts() -> None:
    old = NOVA.replace("nova/1.1", "nova/1.9").replace("web-1", "old")
    new = NOVA.replace("nova/1.1", "nova/1.10").replace("web-1", "new")
    for metadata in (old + new, new + old):
        with naming(metadata):
            assert parse_domain(domain(metadata=metadata)).name == "new"


def test_a_creation_time_in_another_form_is_none() -> None:
    cases = [
        "2026-03-04T05:06:07Z",
        "2026-03-04T05:06:07",
        "2026-03-04 05:06:07.8",
        "yesterday",
        "2026-13-04 05:06:07",
        "",
    ]
    for text in cases:
        with naming(text):
            parsed = parse_domain(domain(VNC, NOVA.replace("2026-03-04 05:06:07", text)))
            assert parsed.created_at is None
            assert (parsed.name, parsed.vnc) == ("web-1", VncDisplay("127.0.0.1", 5901))


def test_a_field_for_display_never_costs_the_console() -> None:
    """One that is too long counts as missing; a domain's own name is cut."""
    long = "n" * (MAX_TEXT_CHARS + 1)
    vnc = VncDisplay("127.0.0.1", 5901)
    owner = "0cc175b9c0f1b6a831c399e269772661"
    cases = [
        (domain(VNC, NOVA.replace("web-1", long)), "instance-01", owner),
        (domain(VNC, NOVA.replace(owner, long)), "web-1", None),
        (domain(VNC, OWN.replace("db-1", long)), "instance-01", "p1"),
        (domain(VNC, OWN.replace("p1", long)), "db-1", None),
        (domain(VNC, name=f"<name>{long}</name>"), long[:MAX_TEXT_CHARS], None),
        (domain(VNC.replace("type", f"sharePolicy='{long}' type", 1)), "instance-01", None),
    ]
    for xml, name, project_id in cases:
        with naming(xml):
            parsed = parse_domain(xml)
            assert (parsed.name, parsed.project_id, parsed.vnc) == (name, project_id, vnc)


def test_portholes_own_metadata() -> None:
    assert parse_domain(domain(metadata=OWN)) == Domain("db-1", "p1", "u1", None, None)


def test_without_an_owner_the_domains_name_and_nobody() -> None:
    cases = [
        "",
        "<x:instance xmlns:x='urn:somebody:else'><x:owner project='p1' user='u1'/></x:instance>",
        "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'/>",
        "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name> </nova:name>"
        "<nova:owner><nova:project uuid=''/><nova:user/></nova:owner></nova:instance>",
        "<p:instance xmlns:p='urn:porthole:instance:1'><p:owner/></p:instance>",
    ]
    for metadata in cases:
        with naming(metadata):
            assert parse_domain(domain(metadata=metadata)) == Domain("instance-01", None, None, None, None)


def test_what_is_no_domain_is_refused() -> None:
    cases = [
        ("", "does not parse"),
        ("<domain", "does not parse"),
        ("\ud800", "does not parse"),
        ("<network><name>n</name></network>", "root"),
        (domain(name=""), "<name> is missing"),
        (domain(name="<name> </name>"), "<name> is missing"),
        (domain("<graphics type='vnc' port='65536'/>"), "out of range"),
        (domain("<graphics type='vnc' port='five'/>"), "not a number"),
        (domain("<graphics type='vnc' port='٥٩٠٠'/>"), "not a number"),
        (domain("<graphics type='vnc' port='" + "9" * 5000 + "'/>"), "not a number"),
        (domain(f"<graphics type='vnc' port='5900' listen='{'1' * (MAX_TEXT_CHARS + 1)}'/>"), "longer"),
        (" " * MAX_XML_CHARS + "<domain/>", "longer"),
        ("<!DOCTYPE domain><domain><name>n</name></domain>", "document type"),
    ]
    for xml, reason in cases:
        with naming(xml, reason), pytest.raises(DomainXmlInvalid, match=reason):
            parse_domain(xml)


def test_an_entity_reads_no_file() -> None:
    xml = '<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/hostname">]><domain><name>&e;</name></domain>'
    with pytest.raises(DomainXmlInvalid):
        parse_domain(xml)


@given(st.text())
def test_any_text_gives_a_domain_or_the_declared_error(text: str) -> None:
    try:
        parse_domain(text)
    except DomainXmlInvalid:
        return


_names = st.sampled_from(["domain", "name", "metadata", "devices", "graphics", "listen", "n:instance", "n:owner", "x"])
_values = st.text(st.characters(exclude_characters="<>&'\x00", codec="utf-8"), max_size=12) | st.sampled_from(
    ["vnc", "socket", "none", "address", "-1", "5900", "99999"]
)
_attributes = st.dictionaries(
    st.sampled_from(["type", "port", "listen", "address", "socket", "uuid", "project", "user"]), _values, max_size=4
).map(lambda pairs: "".join(f" {key}='{value}'" for key, value in pairs.items()))
_elements = st.recursive(
    st.builds(lambda name, attributes: f"<{name}{attributes}/>", _names, _attributes) | _values,
    lambda inner: st.builds(
        lambda name, attributes, parts: f"<{name}{attributes}>{''.join(parts)}</{name}>",
        _names,
        _attributes,
        st.lists(inner, max_size=4),
    ),
)


@given(st.lists(_elements, max_size=4), st.lists(_elements, max_size=4))
def test_any_xml_gives_a_domain_or_the_declared_error(metadata: list[str], devices: list[str]) -> None:
    xml = (
        "<domain xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'><name>n</name>"
        f"<metadata>{''.join(metadata)}</metadata><devices>{''.join(devices)}</devices></domain>"
    )
    try:
        vnc = parse_domain(xml).vnc
    except DomainXmlInvalid:
        return
    assert vnc is None or vnc.port is None or 0 < vnc.port < 65536


def test_the_host_that_the_proxy_dials() -> None:
    cases = [
        (None, "192.0.2.1", "192.0.2.1"),
        ("0.0.0.0", "192.0.2.1", "192.0.2.1"),
        ("::", "192.0.2.1", "192.0.2.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.1", "127.0.0.2"),
        ("::1", "127.0.0.1", "::1"),
        ("::1", "localhost", "::1"),
        ("localhost", "127.0.0.1", "localhost"),
        ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("localhost", "node1.example", "node1.example"),
        ("198.51.100.9", "192.0.2.1", "198.51.100.9"),
        ("198.51.100.9", "127.0.0.1", "198.51.100.9"),
        ("2001:db8::9", "192.0.2.1", "2001:db8::9"),
        ("node1.example", "192.0.2.1", "node1.example"),
    ]
    for listen, proxyclient_address, expected in cases:
        with naming(listen, proxyclient_address, expected):
            assert get_proxy_host(listen, proxyclient_address) == expected
