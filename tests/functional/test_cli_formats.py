# SPDX-License-Identifier: Apache-2.0
"""The command as a user types it: what it prints, where, and how it ends. The compute API answers from memory."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from support.nova_api import CONSOLE_URL, NovaApi
from support.ports import free_port
from support.programs import run_program

UUID = "2a5a0a3e-7c5f-4c8e-9d0a-0c1d2e3f4a5b"
OTHER = "7b1de0c6-93f0-4a63-b6a8-2f2f0f9f7a10"


@pytest.fixture
def api() -> Iterator[NovaApi]:
    with NovaApi() as running:
        running.add_server(UUID, "web", tenant_id="p1", created="2026-01-01T00:00:00Z", locked=False)
        yield running


class Shell:
    """Runs the command in a directory of its own with no cloud set."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *argv: str, stderr: BinaryIO | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        kept |= {"HOME": str(self.directory), "XDG_CONFIG_HOME": str(self.directory), "PYTHONWARNINGS": ""}
        whole = kept | {"COLUMNS": "200"} | environment
        return run_program("porthole_cli.main", *argv, env=whole, cwd=self.directory, stderr=stderr)

    def fail(self, *argv: str, **environment: str) -> str:
        """Run what must fail; return its one line on stderr."""
        done = self.run(*argv, **environment)
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.strip()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


class TestGetVncConsole:
    def test_the_table_has_novas_shape(self, api: NovaApi, shell: Shell) -> None:
        done = shell.run("get-vnc-console", "web", "novnc", OS_ENDPOINT=api.url)

        assert (done.returncode, done.stderr) == (0, "")
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "|" in line
        ]
        assert rows == [["Type", "Url"], ["novnc", CONSOLE_URL]]

    def test_value(self, api: NovaApi, shell: Shell) -> None:
        done = shell.run("get-vnc-console", UUID, "xvpvnc", "-f", "value", OS_ENDPOINT=api.url)

        assert done.stdout == f"xvpvnc {CONSOLE_URL}\n"

    def test_the_url_alone(self, api: NovaApi, shell: Shell) -> None:
        done = shell.run("get-vnc-console", "web", "novnc", "-f", "value", "-c", "Url", OS_ENDPOINT=api.url)

        assert done.stdout == f"{CONSOLE_URL}\n"

    def test_json(self, api: NovaApi, shell: Shell) -> None:
        done = shell.run("get-vnc-console", "web", "novnc", "-f", "json", OS_ENDPOINT=api.url)

        assert json.loads(done.stdout) == [{"Type": "novnc", "Url": CONSOLE_URL}]

    def test_the_end_of_the_url_is_shown_to_who_sits_at_a_terminal(self, api: NovaApi, shell: Shell) -> None:
        """stdout stays what scripts parse, and a stderr that is no terminal stays empty (O13)."""
        api.expires_at = "2026-01-02T04:04:05+01:00"
        argv = ("get-vnc-console", "web", "novnc", "-f", "value")

        read_fd, terminal_fd = pty.openpty()
        with open(read_fd, "rb", buffering=0) as screen:
            with open(terminal_fd, "wb", buffering=0) as terminal:
                shown = shell.run(*argv, stderr=terminal, OS_ENDPOINT=api.url)
            said = screen.read(1000)
        assert (shown.returncode, shown.stdout) == (0, f"novnc {CONSOLE_URL}\n")
        assert said == b"This URL opens the console until 2026-01-02 03:04:05 UTC.\r\n"
        piped = shell.run(*argv, OS_ENDPOINT=api.url)
        assert (piped.stdout, piped.stderr) == (shown.stdout, "")

    def test_a_cloud_of_clouds_yaml_in_the_working_directory(self, api: NovaApi, shell: Shell) -> None:
        content = f"clouds:\n  lab: {{auth_type: none, auth: {{endpoint: '{api.root}'}}}}\n"
        (shell.directory / "clouds.yaml").write_text(content, encoding="utf-8")

        done = shell.run("--os-cloud", "lab", "get-vnc-console", "web", "novnc", "-f", "value")

        assert (done.returncode, done.stderr, done.stdout) == (0, "", f"novnc {CONSOLE_URL}\n")


class TestServers:
    def test_list(self, api: NovaApi, shell: Shell) -> None:
        api.add_server(OTHER, "db", status="SHUTOFF")

        done = shell.run("list", "-f", "json", OS_ENDPOINT=api.url)

        assert json.loads(done.stdout) == [
            {"ID": UUID, "Name": "web", "Status": "ACTIVE"},
            {"ID": OTHER, "Name": "db", "Status": "SHUTOFF"},
        ]

    def test_show(self, api: NovaApi, shell: Shell) -> None:
        done = shell.run("show", "web", "-f", "json", OS_ENDPOINT=api.url)

        shown = {"id": UUID, "name": "web", "status": "ACTIVE", "project_id": "p1", "created": "2026-01-01T00:00:00Z"}
        assert json.loads(done.stdout) == shown


class TestErrors:
    def test_an_unknown_server(self, api: NovaApi, shell: Shell) -> None:
        said = shell.fail("get-vnc-console", "nosuch", "novnc", OS_ENDPOINT=api.url)

        assert said == "No server with a name or ID of 'nosuch' exists."

    def test_a_stopped_server(self, api: NovaApi, shell: Shell) -> None:
        fault = {"conflictingRequest": {"code": 409, "message": f"Instance {UUID} is not running: it is shutoff."}}
        api.answers[f"POST /v2.1/servers/{UUID}/remote-consoles"] = (409, fault)

        said = shell.fail("get-vnc-console", "web", "novnc", OS_ENDPOINT=api.url)

        assert said == "Instance 'web' is not running: it is shutoff. (HTTP 409)"

    def test_not_logged_in(self, api: NovaApi, shell: Shell) -> None:
        api.basic = ("demo", "s3cret")

        assert "requires authentication" in shell.fail("list", OS_ENDPOINT=api.url)

    def test_no_api_there(self, shell: Shell) -> None:
        url = f"http://127.0.0.1:{free_port()}/v2.1"

        assert shell.fail("list", OS_ENDPOINT=url) == f"Nothing listens at {url}: start the API, or correct the URL."

    def test_no_host_of_that_name(self, shell: Shell) -> None:
        url = "http://no-such-host.invalid:8774/v2.1"

        said = shell.fail("list", OS_ENDPOINT=url)

        assert said == f"The host name 'no-such-host.invalid' of {url} cannot be resolved."

    def test_an_endpoint_that_is_no_url(self, shell: Shell) -> None:
        assert "'127.0.0.1:8774' is not a URL" in shell.fail("list", OS_ENDPOINT="127.0.0.1:8774")

    def test_an_unknown_cloud(self, shell: Shell) -> None:
        assert shell.fail("--os-cloud", "moon", "list").startswith("Cloud moon was not found.")

    def test_a_clouds_yaml_that_is_no_yaml(self, shell: Shell) -> None:
        (shell.directory / "clouds.yaml").write_text("clouds: [", encoding="utf-8")

        assert "not YAML is ignored" in shell.fail("--os-cloud", "lab", "list")
