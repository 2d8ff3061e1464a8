# SPDX-License-Identifier: Apache-2.0
"""What the daemons of a healthy cloud say of themselves, to be changed by a test in one thing."""

from datetime import UTC, datetime, timedelta
from typing import Any

from porthole_common.diagnosis import (
    ApiDescription,
    CertificateDates,
    Display,
    HostDescription,
    ProxyDescription,
    StoreDescription,
    Vitals,
)
from porthole_common.model import Target

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
INSTANCE = "c0ffee00-0000-4000-8000-000000000001"


def make_vitals(host: str = "controller", **changes: Any) -> Vitals:
    values: dict[str, Any] = {
        "host": host,
        "pid": 100,
        "version": "1.0",
        "now": NOW,
        "descriptor_limit": 65536,
        "descriptors_needed": 256,
        "node": host,
        "boot_id": f"boot-of-{host}",
        "network": "net:[4026531840]",
    }
    return Vitals(**{**values, **changes})


def make_display(listen: str | None = "192.0.2.11", host: str = "192.0.2.11", **changes: Any) -> Display:
    return Display(
        **{"instance_uuid": INSTANCE, "name": "vm1", "listen": listen, "target": Target(host, 5900), **changes}
    )


def make_host(host: str = "compute1", **changes: Any) -> HostDescription:
    values: dict[str, Any] = {
        "vitals": make_vitals(host),
        "driver": "libvirt",
        "hypervisor": "qemu:///system",
        "refusal": "",
        "server_listen": "192.0.2.11",
        "proxyclient_address": "192.0.2.11",
        "novncproxy_base_url": "http://192.0.2.10:6080/console.html",
        "displays": (make_display(),),
    }
    return HostDescription(**{**values, **changes})


def make_store(host: str = "controller", **changes: Any) -> StoreDescription:
    values: dict[str, Any] = {"vitals": make_vitals(host), "servers": {"192.0.2.10:11211": ""}, "token_ttl_s": 600}
    return StoreDescription(**{**values, **changes})


def make_proxy(host: str = "controller", **changes: Any) -> ProxyDescription:
    values: dict[str, Any] = {
        "vitals": make_vitals(host),
        "web": "/usr/share/novnc",
        "novnc": True,
        "novnc_version": "1.3.0",
        "certificate": None,
        "ssl_only": False,
        "trusted_proxies": (),
    }
    return ProxyDescription(**{**values, **changes})


def make_api(host: str = "controller", **changes: Any) -> ApiDescription:
    return ApiDescription(**{"vitals": make_vitals(host), "silent_s": {"compute1": 2.5}, **changes})


def make_certificate(names: tuple[str, ...] = ("console.example",), days: float = 90) -> CertificateDates:
    """Valid since yesterday, and for ``days`` from :data:`NOW` on."""
    return CertificateDates(NOW - timedelta(days=1), NOW + timedelta(days=days), names)
