# SPDX-License-Identifier: Apache-2.0
"""The facts about a console in the XML of a libvirt domain: the VNC address, the owner, the name.

Why: only the live XML has the true address, and only the XML has the owner. Pure: text in, values out. Called
by :mod:`porthole_compute.drivers.libvirt_host`.

The owner is read from the first of these that the domain's ``<metadata>`` has:

* Nova's element, ``<instance xmlns="http://openstack.org/xmlns/libvirt/nova/1.1">``, with ``<name>``,
  ``<creationTime>`` and ``<owner><user uuid=""/><project uuid=""/></owner>``. Any version 1.x is read, and of two the
  newer one: a guest from before 2018 has 1.0 until it is rebuilt;
* Porthole's element, for domains that no Nova made::

    <instance xmlns="urn:porthole:instance:1">
      <name>web-1</name>
      <owner project="the project's id" user="the user's id"/>
    </instance>

Without either, the instance has the domain's name and no owner: it is open to administrators only.

Only the root, the name and the VNC address must be valid. Any other field that cannot be used counts as missing, since
a field for display must not cost the console.
"""

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from lxml import etree

from porthole_common import errors

_NOVA_INSTANCE = re.compile(r"\{(http://openstack\.org/xmlns/libvirt/nova/1\.([0-9]{1,9}))\}instance")
PORTHOLE_NAMESPACE = "urn:porthole:instance:1"
# libvirt's RPC carries strings up to 4 MiB; a domain's XML is some 10 KiB.
MAX_XML_CHARS = 4 * 1024 * 1024
# Nova's own columns end at 255.
MAX_TEXT_CHARS = 255
MAX_PORT = 65535


@dataclass(eq=False)
class DomainXmlInvalid(errors.ProtocolError):
    """The text is not a domain's XML (formatdomain of libvirt); ``reason`` says where it fails."""

    reason: str

    def __str__(self) -> str:
        return f"The domain's XML is not valid: {self.reason}."


@dataclass(frozen=True)
class VncDisplay:
    """A VNC server on TCP. ``listen`` is None when the XML names no address; ``port`` None while it has none.

    ``share_policy`` is its ``sharePolicy``, None when there is none.
    """

    listen: str | None
    port: int | None
    share_policy: str | None = None


@dataclass(frozen=True)
class Domain:
    """What Porthole reads of a domain. ``vnc`` is None without a VNC server on TCP: no display, or a socket only."""

    name: str
    project_id: str | None
    user_id: str | None
    created_at: datetime | None
    vnc: VncDisplay | None


def parse_domain(xml: str) -> Domain:
    """Return what ``xml``, the answer of virDomainGetXMLDesc, says.

    :raises DomainXmlInvalid: when it is not well-formed, not a domain, has a DTD or no name, or when the address or
        the port of the VNC server is out of range.
    """
    root = _parse(xml)
    if root.tag != "domain":
        raise DomainXmlInvalid("its root is not <domain>")
    name = (root.findtext("name") or "").strip()[:MAX_TEXT_CHARS]
    if not name:
        raise DomainXmlInvalid("<name> is missing")
    vnc = _read_vnc(root)
    nova = _find_nova(root)
    if nova is not None:
        return _read_nova(*nova, name, vnc)
    own = root.find(f"metadata/{{{PORTHOLE_NAMESPACE}}}instance")
    if own is not None:
        return _read_own(own, name, vnc)
    return Domain(name, None, None, None, vnc)


def get_proxy_host(listen: str | None, proxyclient_address: str) -> str:
    """Return the host under which the proxy reaches a VNC server that listens on ``listen``.

    For a wildcard or no address it is ``proxyclient_address``, since no client can dial "0.0.0.0". For loopback it is
    the loopback address when ``proxyclient_address`` is one too, else ``proxyclient_address``, where the operator must
    have a forwarder. Any other address is returned as it is.
    """
    if not listen:
        return proxyclient_address
    address = _parse_address(listen)
    if address is not None and address.is_unspecified:
        return proxyclient_address
    if _is_loopback(listen) and not _is_loopback(proxyclient_address):
        return proxyclient_address
    return listen


def _parse(xml: str) -> etree._Element:
    if len(xml) > MAX_XML_CHARS:
        raise DomainXmlInvalid(f"it is longer than {MAX_XML_CHARS} characters")
    # Nothing is fetched or expanded: with entities a description could grow, or read files.
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True
    )
    try:
        root = etree.fromstring(xml.encode(), parser)
    except (etree.XMLSyntaxError, UnicodeEncodeError) as exc:
        raise DomainXmlInvalid(f"it does not parse ({exc})") from exc
    if root.getroottree().docinfo.doctype:
        raise DomainXmlInvalid("it has a document type declaration")
    return root


def _read_vnc(root: etree._Element) -> VncDisplay | None:
    for graphics in root.iterfind("devices/graphics"):
        if graphics.get("type") != "vnc" or graphics.get("socket") is not None:
            continue
        listens = graphics.findall("listen")
        if any(listen.get("type") in {"socket", "none"} for listen in listens):
            continue
        address = next((listen.get("address") for listen in listens if listen.get("address")), graphics.get("listen"))
        share_policy = _read_text(graphics.get("sharePolicy"))
        return VncDisplay(_read_address(address), _read_port(graphics.get("port")), share_policy)
    return None


def _read_port(text: str | None) -> int | None:
    """Return the port; libvirt writes -1, or nothing, while autoport has not chosen one."""
    if text is None:
        return None
    # int() also takes digits of other scripts, signs and blanks; libvirt writes none of them.
    if not text.isascii() or not text.removeprefix("-").isdecimal() or len(text) > len("-65535"):
        raise DomainXmlInvalid("a VNC port is not a number")
    port = int(text)
    if port > MAX_PORT:
        raise DomainXmlInvalid(f"the VNC port {port} is out of range")
    return port if port > 0 else None


def _find_nova(root: etree._Element) -> tuple[etree._Element, str] | None:
    """Return Nova's element and its namespace, in the newest version that the metadata has."""
    found = [
        (int(match[2]), number, element, match[1])
        for number, element in enumerate(root.iterfind("metadata/{*}instance"))
        if (match := _NOVA_INSTANCE.fullmatch(str(element.tag)))
    ]
    if not found:
        return None
    _version, _number, element, namespace = max(found)
    return element, namespace


def _read_nova(element: etree._Element, namespace: str, domain_name: str, vnc: VncDisplay | None) -> Domain:
    def find(path: str) -> etree._Element | None:
        return element.find(path, namespaces={"nova": namespace})

    project, user, name, created = (
        find(path) for path in ("nova:owner/nova:project", "nova:owner/nova:user", "nova:name", "nova:creationTime")
    )
    return Domain(
        name=_read_text(name.text if name is not None else None) or domain_name,
        project_id=_read_text(project.get("uuid") if project is not None else None),
        user_id=_read_text(user.get("uuid") if user is not None else None),
        created_at=_read_time(created.text if created is not None else None),
        vnc=vnc,
    )


def _read_own(element: etree._Element, domain_name: str, vnc: VncDisplay | None) -> Domain:
    owner = element.find(f"{{{PORTHOLE_NAMESPACE}}}owner")
    return Domain(
        name=_read_text(element.findtext(f"{{{PORTHOLE_NAMESPACE}}}name")) or domain_name,
        project_id=_read_text(owner.get("project") if owner is not None else None),
        user_id=_read_text(owner.get("user") if owner is not None else None),
        created_at=None,
        vnc=vnc,
    )


def _read_text(text: str | None) -> str | None:
    """Return ``text`` without the blanks around it; None when it is empty, or longer than Nova's columns."""
    text = (text or "").strip()
    return text if 0 < len(text) <= MAX_TEXT_CHARS else None


def _read_address(text: str | None) -> str | None:
    address = (text or "").strip()
    if len(address) > MAX_TEXT_CHARS:
        raise DomainXmlInvalid(f"the VNC address is longer than {MAX_TEXT_CHARS} characters")
    return address or None


def _read_time(text: str | None) -> datetime | None:
    """Return Nova's creationTime, ``YYYY-MM-DD HH:MM:SS`` in UTC; None for any other text."""
    try:
        return datetime.strptime((text or "").strip(), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that ``text`` is; None when it is a host name."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_loopback(text: str) -> bool:
    address = _parse_address(text)
    return text == "localhost" if address is None else address.is_loopback
