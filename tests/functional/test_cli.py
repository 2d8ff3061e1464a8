# SPDX-License-Identifier: Apache-2.0
"""The command against the daemons: from a name to a URL that opens the screen, and what a user reads when not."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.client import connect

from support.daemons import Porthole
from support.libvirtd import Libvirtd, guest_xml
from support.processes import wait_until
from support.programs import run_program

TIMEOUT_S = 30
UUID = "2a5a0a3e-7c5f-4c8e-9d0a-0c1d2e3f4a5b"


def run(porthole: Porthole, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    environment |= {"NO_PROXY": "*", "PYTHONWARNINGS": "", "COLUMNS": "200"}
    return run_program("porthole_cli.main", "--os-endpoint", f"{porthole.api_url}/v2.1", *argv, env=environment)


def fail(porthole: Porthole, *argv: str) -> str:
    """Run what must fail; return its one line on stderr."""
    done = run(porthole, *argv)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def wait_for_server(porthole: Porthole, name: str) -> None:
    wait_until(lambda: name in run(porthole, "list", "-f", "value").stdout.split(), TIMEOUT_S, f"server {name}")


@pytest.fixture
def guests(libvirtd: Libvirtd) -> Libvirtd:
    """One guest that runs, one that is shut off, and one without a screen."""
    libvirtd.create(guest_xml("running", UUID))
    libvirtd.define(guest_xml("stopped"))
    libvirtd.create(guest_xml("headless", vnc=None))
    return libvirtd


def test_a_guests_screen_and_what_forbids_it(make_porthole: Callable[..., Porthole], guests: Libvirtd) -> None:
    porthole = make_porthole(libvirt_uri=guests.uri)
    for name in ("running", "stopped", "headless"):
        wait_for_server(porthole, name)

    rows = {line.split()[1]: line.split()[2] for line in run(porthole, "list", "-f", "value").stdout.splitlines()}
    assert rows == {"running": "ACTIVE", "stopped": "SHUTOFF", "headless": "ACTIVE"}
    assert re.search(rf"\bid\b.*{UUID}", run(porthole, "show", "running").stdout)

    done = run(porthole, "get-vnc-console", "running", "novnc", "-f", "value", "-c", "Url")
    assert (done.returncode, done.stderr) == (0, "")
    token = re.fullmatch(
        rf"http://127\.0\.0\.1:{porthole.novnc_port}/console\.html\?path=%3Ftoken%3D([0-9a-f-]{{36}})\n", done.stdout
    )
    assert token, done.stdout
    address = f"ws://127.0.0.1:{porthole.novnc_port}/?token={token[1]}"
    with connect(address, subprotocols=["binary"], open_timeout=TIMEOUT_S, proxy=None) as console:
        assert console.recv(timeout=TIMEOUT_S) == b"RFB 003.008\n"
    native = run(porthole, "get-vnc-console", UUID, "xvpvnc", "-f", "value").stdout
    assert re.fullmatch(rf"xvpvnc http://127\.0\.0\.1:{porthole.xvp_port}/console\?token=[0-9a-f-]{{36}}\n", native)
    # The action, for a user who asks for the API of before remote-consoles.
    old = run(porthole, "--os-compute-api-version", "2.5", "get-vnc-console", "running", "novnc", "-f", "value")
    assert old.stdout.startswith("novnc http://")

    assert run(porthole, "get-vnc-console", "running", "-f", "value").stdout.startswith("novnc http://")
    said = fail(porthole, "get-vnc-console", "stopped", "novnc")
    assert said == "Instance 'stopped' is not running: it is shutoff. (HTTP 409)"
    said = fail(porthole, "get-vnc-console", "headless", "novnc")
    assert said == "headless: Unavailable console type novnc. (HTTP 400)"
    said = fail(porthole, "get-vnc-console", "nosuch", "novnc")
    assert said == "No server with a name or ID of 'nosuch' exists."
    assert "(HTTP 406)" in fail(porthole, "--os-compute-api-version", "2.999", "get-vnc-console", "running", "novnc")


def test_more_servers_than_a_page_and_two_of_one_name(make_porthole: Callable[..., Porthole], tmp_path: Path) -> None:
    count = 1100
    ids = "00000000-0000-4000-8000-"
    rows = [
        f"- {{uuid: {ids}{number:012d}, name: vm{number % (count - 1)}, host: 127.0.0.1, port: 5900}}"
        for number in range(count)
    ]
    path = tmp_path / "instances.yaml"
    path.write_text("instances:\n" + "\n".join(rows) + "\n", encoding="utf-8")
    porthole = make_porthole(instances_file=path)
    wait_for_server(porthole, "vm1")

    listed = run(porthole, "list", "-f", "value", "-c", "ID").stdout.split()
    assert len(listed) == len(set(listed)) == count
    assert fail(porthole, "get-vnc-console", "vm0", "novnc").startswith("2 servers are named 'vm0'")

    porthole.api.stop()

    assert fail(porthole, "list") == f"Nothing listens at {porthole.api_url}/v2.1: start the API, or correct the URL."


def test_no_servers_and_the_proxys_port(make_porthole: Callable[..., Porthole], tmp_path: Path) -> None:
    path = tmp_path / "instances.yaml"
    path.write_text("instances: []\n", encoding="utf-8")
    porthole = make_porthole(instances_file=path)

    done = run(porthole, "list", "-f", "json")
    assert (done.returncode, done.stdout.strip()) == (0, "[]")
    assert done.stderr == (
        "There are no servers whose console you may open. "
        f"{sys.executable} -m porthole_cli.main doctor says whether the hypervisor answers.\n"
    )

    proxy = f"http://127.0.0.1:{porthole.novnc_port}"
    for arguments in (("list",), ("show", "vm1"), ("get-vnc-console", "vm1")):
        # The last of two flags counts.
        said = fail(porthole, "--os-endpoint", proxy, *arguments)
        assert said == (
            f"There is no compute API at {proxy} (HTTP 404). {porthole.novnc_port} is the port of Porthole's proxy; "
            "the API has another port, usually 8774."
        )
