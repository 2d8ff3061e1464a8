# SPDX-License-Identifier: Apache-2.0
"""A finding, and every id that one can have.

Why a closed list: monitoring matches on ids, and ``doc/source/troubleshooting.rst`` explains each; a test compares that
page with this list. An id is never reused for something else. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """``error``: users get no console, or strangers can get one. ``warning``: that may soon happen."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class FindingId(StrEnum):
    """Everything that can be found; the part before the point is the subject."""

    CONFIG_OK = "config.ok"
    CONFIG_MISSING = "config.missing"
    CONFIG_UNREADABLE = "config.unreadable"
    CONFIG_INVALID = "config.invalid"
    CONFIG_UNKNOWN_OPTION = "config.unknown_option"
    CONFIG_READABLE_BY_ALL = "config.readable_by_all"
    CONFIG_WRITABLE_BY_ALL = "config.writable_by_all"
    CONFIG_KEY_READABLE_BY_ALL = "config.key_readable_by_all"
    BROKER_OK = "broker.ok"
    BROKER_ADDRESS = "broker.address"
    BROKER_TLS = "broker.tls"
    BROKER_PROTOCOL = "broker.protocol"
    BROKER_CREDENTIALS = "broker.credentials"
    BROKER_VHOST = "broker.vhost"
    BROKER_PERMISSIONS = "broker.permissions"
    BROKER_BLOCKED = "broker.blocked"
    DAEMONS_OK = "daemons.ok"
    DAEMONS_UNHEARD = "daemons.unheard"
    DAEMONS_MUTE = "daemons.mute"
    DAEMONS_DUPLICATE = "daemons.duplicate"
    DAEMONS_VERSIONS = "daemons.versions"
    INSTANCES_DUPLICATE = "instances.duplicate"
    STANDALONE_OK = "standalone.ok"
    STANDALONE_NONE = "standalone.none"
    STANDALONE_MUTE = "standalone.mute"
    STANDALONE_INVALID = "standalone.invalid"
    STANDALONE_OTHER_USER = "standalone.other_user"
    API_OK = "api.ok"
    API_UNREACHABLE = "api.unreachable"
    API_NONE = "api.none"
    COMPUTE_NONE = "compute.none"
    COMPUTE_LOST = "compute.lost"
    CONSOLEAUTH_NONE = "consoleauth.none"
    NOVNCPROXY_NONE = "novncproxy.none"
    MEMCACHED_OK = "memcached.ok"
    MEMCACHED_UNREACHABLE = "memcached.unreachable"
    MEMCACHED_EVICTED = "memcached.evicted"
    MEMCACHED_EVICTS = "memcached.evicts"
    MEMCACHED_FULL = "memcached.full"
    MEMCACHED_DIFFERS = "memcached.differs"
    MEMCACHED_NOT_SHARED = "memcached.not_shared"
    HISTORY_OK = "history.ok"
    HISTORY_SCHEMA = "history.schema"
    HISTORY_NOT_SHARED = "history.not_shared"
    HISTORY_UNREACHABLE = "history.unreachable"
    HISTORY_SPOOL_FILLS = "history.spool_fills"
    LIBVIRT_OK = "libvirt.ok"
    LIBVIRT_UNREACHABLE = "libvirt.unreachable"
    LIBVIRT_GUEST_HELD = "libvirt.guest_held"
    VNC_OK = "vnc.ok"
    VNC_UNREACHABLE = "vnc.unreachable"
    VNC_LISTENS_ON_LOOPBACK = "vnc.listens_on_loopback"
    VNC_PROXYCLIENT_LOOPBACK = "vnc.proxyclient_loopback"
    VNC_WILDCARD = "vnc.wildcard"
    VNC_SECURITY = "vnc.security"
    VNC_EXCLUSIVE = "vnc.exclusive"
    URL_OK = "url.ok"
    URL_UNREACHABLE = "url.unreachable"
    URL_NO_PAGE = "url.no_page"
    URL_ORIGIN = "url.origin"
    URL_UPGRADE = "url.upgrade"
    URL_HTTPS_WITHOUT_CERTIFICATE = "url.https_without_certificate"
    URL_HTTP_WITH_CERTIFICATE = "url.http_with_certificate"
    CERTIFICATE_OK = "certificate.ok"
    CERTIFICATE_EXPIRED = "certificate.expired"
    CERTIFICATE_EXPIRES_SOON = "certificate.expires_soon"
    CERTIFICATE_NOT_YET_VALID = "certificate.not_yet_valid"
    CERTIFICATE_NAME = "certificate.name"
    CERTIFICATE_UNTRUSTED = "certificate.untrusted"
    CERTIFICATE_UNREADABLE = "certificate.unreadable"
    NOVNC_OK = "novnc.ok"
    NOVNC_MISSING = "novnc.missing"
    NOVNC_OLD = "novnc.old"
    CLOCK_OK = "clock.ok"
    CLOCK_SKEW = "clock.skew"
    DESCRIPTORS_OK = "descriptors.ok"
    DESCRIPTORS_LOW = "descriptors.low"
    METRICS_OK = "metrics.ok"
    METRICS_OFF_LOOPBACK = "metrics.off_loopback"
    TOKEN_OK = "token.ok"  # noqa: S105 (an id)
    TOKEN_FAILED = "token.failed"  # noqa: S105
    TOKEN_NOT_REVOKED = "token.not_revoked"  # noqa: S105
    DOCTOR_DEADLINE = "doctor.deadline"
    DOCTOR_FAILED = "doctor.failed"


@dataclass(frozen=True)
class Finding:
    """One thing that was examined: ``problem`` in a sentence (or what is in order), ``mend`` what to do about it.

    ``host`` is the ``[DEFAULT] host`` that it concerns, or an address if no host is known; "" for all hosts. Neither
    text holds a password or a token.
    """

    id: FindingId
    severity: Severity
    host: str
    problem: str
    mend: str = ""


def ok(finding_id: FindingId, problem: str, host: str = "") -> Finding:
    """Return a finding that something is in order."""
    return Finding(finding_id, Severity.OK, host, problem)


def warning(finding_id: FindingId, host: str, problem: str, mend: str) -> Finding:
    """Return a finding that something works, or may work, and should be changed."""
    return Finding(finding_id, Severity.WARNING, host, problem, mend)


def error(finding_id: FindingId, host: str, problem: str, mend: str) -> Finding:
    """Return a finding that something does not work, or lets strangers in."""
    return Finding(finding_id, Severity.ERROR, host, problem, mend)
