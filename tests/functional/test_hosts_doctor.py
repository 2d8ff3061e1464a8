# SPDX-License-Identifier: Apache-2.0
"""``porthole doctor`` between hosts: what only shows where a daemon, memcached or VNC server is on another machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.daemons import Options
from support.deadlines import MACHINE_SLACK_S
from support.hosts import Host
from support.libvirtd import guest_xml
from support.memcached import Memcached
from support.ports import free_port
from support.site import Site

PROMISE_S = 30
Findings = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def site(doctors_site: Site) -> Site:
    return doctors_site


def examine(host: Host, conf_path: Path) -> Findings:
    """Run the command on ``host``, and return the findings by id."""
    argv = [sys.executable, "-m", "porthole_cli.main", "doctor", "--config-file", str(conf_path), "-f", "json"]
    environment = os.environ | {"PYTHONWARNINGS": "", "NO_PROXY": "*", "no_proxy": "*"}
    with host.entered():
        done = subprocess.run(argv, capture_output=True, text=True, timeout=2 * PROMISE_S, check=False, env=environment)
    report = json.loads(done.stdout)
    assert report["seconds"] < PROMISE_S + MACHINE_SLACK_S
    assert done.returncode == {"ok": 0, "warning": 1, "error": 2}[report["severity"]], report
    found: Findings = {}
    for each in report["findings"]:
        found.setdefault(each["id"], []).append(each)
    return found


def troubles(found: Findings) -> set[str]:
    return {finding_id for finding_id in found if not finding_id.endswith(".ok")}


def hosts_of(found: Findings, finding_id: str) -> set[str]:
    return {each["host"] for each in found[finding_id]}


def test_a_site_in_order_looks_so_from_every_host(site: Site) -> None:
    for node in (site.controllers[0], site.computes[1]):
        found = examine(node.host, node.porthole.conf_path)
        assert troubles(found) == set(), node.host.name
        assert found["daemons.ok"][0]["problem"].startswith("2 api, 4 compute, 2 consoleauth, 2 novncproxy on 6 hosts")
        # Two stand-ins and two guests, each dialled by two proxies.
        assert found["vnc.ok"][0]["problem"] == "4 screens on 4 hosts; all 8 dials were answered"


def test_a_guest_on_loopback_of_another_host(site: Site) -> None:
    compute = site.computes[1]
    assert compute.libvirtd
    hidden = guest_xml("hidden", vnc="<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>")
    compute.libvirtd.create(hidden)
    try:
        found = examine(compute.host, compute.porthole.conf_path)
    finally:
        compute.libvirtd.destroy("hidden")
    assert "vnc.listens_on_loopback" in troubles(found)
    assert hosts_of(found, "vnc.listens_on_loopback") == {f"{compute.host.name}-libvirt"}
    assert compute.host.address in found["vnc.listens_on_loopback"][0]["problem"]


def test_one_proxy_is_cut_off_from_one_compute(site: Site) -> None:
    """The other proxy and the doctor's own host reach it: only the proxy itself can say that it does not."""
    proxy, compute = site.controllers[1].host, site.computes[0].host
    proxy.cut(compute)
    try:
        found = examine(site.controllers[0].host, site.controllers[0].porthole.conf_path)
    finally:
        proxy.mend(compute)
    assert troubles(found) == {"vnc.unreachable"}
    assert hosts_of(found, "vnc.unreachable") == {compute.name, f"{compute.name}-libvirt"}
    assert all("The proxy on controller-2 gets no answer" in each["problem"] for each in found["vnc.unreachable"])


def test_the_same_words_for_two_memcacheds(site: Site) -> None:
    """Both consoleauths list 127.0.0.1, which is another place on each host."""
    port = free_port()
    stores = [Memcached(port=port) for _ in site.controllers]
    options: Options = {"memcache": {"servers": f"127.0.0.1:{port}"}}
    for controller in site.controllers:
        controller.porthole.add("consoleauth", "stranger", options)
    try:
        for controller, store in zip(site.controllers, stores, strict=True):
            controller.porthole.consoleauth.stop()
            with controller.host.entered():
                store.start()
                controller.porthole.start_daemon("stranger")
        found = examine(site.controllers[0].host, site.controllers[0].porthole.conf_path)
        for controller, store in zip(site.controllers, stores, strict=True):
            with controller.host.entered():
                assert store.stats()["curr_items"] == 0, "a token was left behind"
    finally:
        for controller, store in zip(site.controllers, stores, strict=True):
            controller.porthole.processes["stranger"].stop()
            store.close()
            with controller.host.entered():
                controller.porthole.start_daemon("consoleauth")
    assert troubles(found) == {"memcached.not_shared"}
    assert len(found["memcached.not_shared"]) == 1


def test_a_proxyclient_address_that_is_every_proxys_own(site: Site) -> None:
    """O14: 127.0.0.1 works on one machine only."""
    compute = site.computes[0]
    assert compute.libvirtd
    options: Options = {
        "DEFAULT": {"host": "misled"},
        "compute": {"driver": "libvirt"},
        "libvirt": {"connection_uri": compute.libvirtd.uri},
        "vnc": {"server_proxyclient_address": "127.0.0.1"},
    }
    everywhere = guest_xml("everywhere", vnc="<graphics type='vnc' autoport='yes' listen='0.0.0.0'/>")
    with compute.host.entered():
        compute.libvirtd.create(everywhere)
        process = compute.porthole.add("compute", "misled", options)
        compute.porthole.start_daemon("misled")
    try:
        found = examine(site.controllers[0].host, site.controllers[0].porthole.conf_path)
    finally:
        process.stop()
        compute.libvirtd.destroy("everywhere")
    # Two computes of one libvirt have its guests twice.
    assert troubles(found) == {"vnc.proxyclient_loopback", "vnc.wildcard", "instances.duplicate"}
    assert [(each["severity"], each["host"]) for each in found["vnc.proxyclient_loopback"]] == [("error", "misled")]
    assert "controller-1, controller-2" in found["vnc.proxyclient_loopback"][0]["problem"]


def test_a_compute_whose_host_has_lost_its_network(site: Site) -> None:
    compute = site.computes[0].host
    controller = site.controllers[0]
    # The apis know of the compute by then.
    examine(controller.host, controller.porthole.conf_path)
    compute.set_link(False)
    try:
        found = examine(controller.host, controller.porthole.conf_path)
    finally:
        compute.set_link(True)
    # The broker has not noticed yet, and the apis remember; so they do of the second compute of the test before, with
    # that one's guests, where that has run.
    assert troubles(found) - {"instances.duplicate"} == {"compute.lost"}
    assert hosts_of(found, "compute.lost") - {"misled"} == {compute.name, f"{compute.name}-libvirt"}
