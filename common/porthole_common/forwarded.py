# SPDX-License-Identifier: Apache-2.0
"""What reverse proxies say about a request, in X-Forwarded-* and Forwarded (RFC 7239), as pure functions.

Why here: the api and the noVNC proxy must read these headers by one rule. Anyone can write such a header, so the rule
counts from the end of a list, where the nearest proxy writes:

* A proxy adds the address of its client at the end of X-Forwarded-For. The list is read from its end for as long as the
  address read before is a trusted proxy's. The first address that is not trusted is the client's.
* So it is known how many trusted proxies the request has passed. In the list of another header, the element of the
  outermost of them counts: the second from the end after two proxies, or the first when the list is shorter.
"""

import functools
import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# WebSocket's schemes (RFC 6455 section 3) name the same port and TLS as those of HTTP.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_HOST = re.compile(r"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
# RFC 3986 section 3.3: segments of a path; no empty one, which a browser would take for a host.
_PREFIX = re.compile(r"(/[A-Za-z0-9._~!$&'()*+;=:@%-]+)+", re.ASCII)
# An address with a port, as Azure's gateways write it: 203.0.113.5:50001, [2001:db8::1]:4711.
_WITH_PORT = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[0-9.]+))(?::[0-9]{1,5})?", re.ASCII)
# Many proxies' worth; it guards the time to parse.
_MAX_FORWARDED_CHARS = 4096
# RFC 7239 section 4: an element ends at a comma, and a pair at a semicolon, that is not in quotes.
_COMMA = re.compile(r'((?:[^,"]|"(?:[^"\\]|\\.)*+"?+)*+)(?:,|$)')
_PAIR = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;"]*)\s*(?:;|$)')


@dataclass(frozen=True)
class Client:
    """The client of a request: its address, and how many trusted proxies are between it and this server."""

    address: str
    proxies: int


def find_client(peer: str, forwarded_for: Sequence[str], trusted_proxies: Collection[str]) -> Client:
    """Return the client of a request that came from ``peer``.

    ``forwarded_for``: every value of X-Forwarded-For, in order. ``peer`` and ``trusted_proxies`` are as
    :func:`normalize_address` returns them. An entry that is no address ends the search.
    """
    address, proxies = peer, 0
    named = split_list(forwarded_for) if address in trusted_proxies else []
    while address in trusted_proxies:
        proxies += 1
        if not named:
            break
        try:
            address = parse_address(named.pop())
        except ValueError:
            break
    return Client(address, proxies)


def pick_element(values: Sequence[str], proxies: int) -> str | None:
    """Return the element of a list header that the outermost of ``proxies`` trusted proxies wrote.

    ``values``: every value of the header, in order. None without a proxy or without an element.
    """
    elements = split_list(values)
    return elements[-min(proxies, len(elements))] if proxies and elements else None


def split_list(values: Sequence[str]) -> list[str]:
    """Return the elements of a list header (RFC 9110 section 5.6.1), in order, without empty ones."""
    return [element for value in values for part in value.split(",") if (element := part.strip())]


def parse_address(text: str) -> str:
    """Return the normalized address of an entry, which may have brackets and a port.

    :raises ValueError: when it is no IP address.
    """
    match = _WITH_PORT.fullmatch(text.strip())
    return normalize_address((match["bracketed"] or match["plain"]) if match else text.strip())


@functools.lru_cache(maxsize=1024)
def normalize_address(address: str) -> str:
    """Return an IP address as it is compared: lower case, shortest form, IPv4 also where IPv6 carries it (RFC 4291).

    The last answers are kept, since each request asks several times.

    :raises ValueError: when it is no IP address.
    """
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def parse_scheme(text: str | None) -> str | None:
    """Return ``http`` or ``https``, also for ``ws`` and ``wss``; None for anything else."""
    return _SCHEMES.get(text.strip().lower()) if text is not None else None


def parse_host(text: str | None) -> str | None:
    """Return ``text`` when it is ``host[:port]`` (RFC 9110 section 7.2), else None."""
    return text if text is not None and _HOST.fullmatch(text) else None


def parse_prefix(text: str | None) -> str | None:
    """Return a path without its final slash when ``text`` is one, else None."""
    return text.rstrip("/") if text is not None and _PREFIX.fullmatch(text.rstrip("/")) else None


def parse_forwarded(header: str) -> list[dict[str, str]]:
    """Return the elements of Forwarded (RFC 7239 section 4), in order: ``{parameter in lower case: value}``.

    A malformed pair is left out, and so is everything in a header that is too long.
    """
    if len(header) > _MAX_FORWARDED_CHARS:
        return []
    elements = []
    for match in _COMMA.finditer(header):
        if match[1].strip():
            pairs = _PAIR.finditer(match[1])
            elements.append({pair[1].lower(): _unquote(pair[2].strip()) for pair in pairs})
    return elements


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
