# SPDX-License-Identifier: Apache-2.0
"""``porthole doctor`` on a site of several hosts: all is well, and each fault of a table is found.

It runs on the first controller, as an operator would. How it words a finding is tested elsewhere.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.libvirtd import guest_xml
from support.processes import wait_until
from support.site import Part, Site

# Its own promise is half a minute.
DOCTOR_TIMEOUT_S = 60
Plant = Callable[[Site, Path], contextlib.AbstractContextManager[Path | None]]


@pytest.fixture(scope="module")
def site(doctors_site: Site) -> Site:
    return doctors_site


def examine(site: Site, conf: Path | None = None) -> set[tuple[str, str]]:
    """Return (id, host) of everything that is not in order."""
    controller = site.controllers[0]
    argv = [sys.executable, "-m", "porthole_cli.main", "doctor", "-f", "json"]
    with controller.host.entered():
        result = subprocess.run(
            [*argv, "--config-file", str(conf or controller.porthole.conf_path)],
            capture_output=True,
            text=True,
            timeout=DOCTOR_TIMEOUT_S,
            check=False,
        )
    assert result.returncode in {0, 1, 2}, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)["findings"]
    return {(finding["id"], finding["host"] or "") for finding in found if finding["severity"] != "ok"}


@contextlib.contextmanager
def changed(site: Site, directory: Path, old: str, new: str, mode: int = 0o640) -> Iterator[Path]:
    """Give a copy of the first controller's configuration with one thing changed."""
    text = site.controllers[0].porthole.conf_path.read_text(encoding="utf-8")
    assert old in text
    path = directory / "porthole.conf"
    path.write_text(text.replace(old, new), encoding="utf-8")
    path.chmod(mode)
    yield path


@contextlib.contextmanager
def ended(*parts: Part) -> Iterator[None]:
    for part in parts:
        part.process.kill()
    try:
        yield
    finally:
        for part in parts:
            part.start()


@contextlib.contextmanager
def cut(site: Site) -> Iterator[None]:
    """The second controller's proxy does not reach the first compute; both reach the broker."""
    ends = site.controllers[1].host, site.computes[0].host
    ends[0].cut(ends[1])
    try:
        yield
    finally:
        ends[0].mend(ends[1])


@contextlib.contextmanager
def guest(site: Site, graphics: str) -> Iterator[None]:
    """One more guest on the first compute."""
    libvirtd = site.computes[0].libvirtd
    assert libvirtd
    libvirtd.create(guest_xml("planted", vnc=graphics))
    try:
        yield
    finally:
        libvirtd.destroy("planted")


@contextlib.contextmanager
def other_stores(site: Site) -> Iterator[None]:
    """The second consoleauth is told of one memcached alone."""
    controller, part = site.controllers[1], site.part("consoleauth", 1)
    text = controller.porthole.conf_path.read_text(encoding="utf-8")
    first, second = (one.memcached.address for one in site.controllers)
    part.process.stop()
    controller.porthole.conf_path.write_text(text.replace(f"{first},{second}", second), encoding="utf-8")
    part.start()
    try:
        yield
    finally:
        part.process.stop()
        controller.porthole.conf_path.write_text(text, encoding="utf-8")
        part.start()


def broker(site: Site) -> str:
    return f"{site.controllers[0].host.address}:{site.rabbitmq.port}/"


PLANTED: list[tuple[str, str, Plant]] = [
    ("config.invalid", "", lambda site, path: changed(site, path, "bind_port = 8774", "bind_port = much")),
    ("config.readable_by_all", "", lambda site, path: changed(site, path, "debug", "debug", mode=0o644)),
    ("config.writable_by_all", "", lambda site, path: changed(site, path, "debug", "debug", mode=0o662)),
    ("broker.address", "", lambda site, path: changed(site, path, broker(site), "192.0.2.1:9/")),
    ("broker.credentials", "", lambda site, path: changed(site, path, "porthole:", "porthole:wrong")),
    ("broker.vhost", "", lambda site, path: changed(site, path, broker(site), f"{broker(site)}nowhere")),
    ("memcached.unreachable", "controller-", lambda site, _path: ended(site.part("memcached", 1))),
    ("memcached.differs", "", lambda site, _path: other_stores(site)),
    ("consoleauth.none", "", lambda site, _path: ended(site.part("consoleauth"), site.part("consoleauth", 1))),
    ("api.none", "", lambda site, _path: ended(site.part("api"), site.part("api", 1))),
    ("novncproxy.none", "", lambda site, _path: ended(site.part("novncproxy"), site.part("novncproxy", 1))),
    ("compute.lost", "compute-1", lambda site, _path: ended(site.part("compute"))),
    ("libvirt.unreachable", "compute-1-libvirt", lambda site, _path: ended(site.part("libvirtd"))),
    ("vnc.unreachable", "", lambda site, _path: cut(site)),
    (
        "vnc.wildcard",
        "compute-1-libvirt",
        lambda site, _path: guest(site, "<graphics type='vnc' autoport='yes' listen='0.0.0.0'/>"),
    ),
]


def is_well(site: Site) -> bool:
    """Say whether nothing is found that is planted here."""
    return not {name for name, _host in examine(site)} & {name for name, _host, _plant in PLANTED}


def test_a_site_that_is_well(site: Site) -> None:
    wait_until(lambda: is_well(site), 60, "the doctor to find nothing")


@pytest.mark.parametrize(("name", "host", "plant"), PLANTED, ids=[name for name, _host, _plant in PLANTED])
def test_a_planted_fault_is_found(site: Site, tmp_path: Path, name: str, host: str, plant: Plant) -> None:
    found: set[tuple[str, str]] = set()

    def finds() -> bool:
        found.clear()
        found.update(examine(site, conf))
        return any(one == name and host in where for one, where in found)

    with plant(site, tmp_path) as conf:
        wait_until(finds, 30, f"{name} to be found")


def test_a_site_that_is_well_again(site: Site) -> None:
    """Whatever was found is mended, and is found no longer."""
    wait_until(lambda: is_well(site), 60, "the doctor to find nothing")
