# SPDX-License-Identifier: Apache-2.0
"""A real Keystone as a process, unmodified OpenStack clients, and schemathesis, out of an environment of their own.

Why: the API is Nova's for clients nobody here wrote, and tokens are Keystone's. "tox -e openstack" makes the
environment of tests/openstack-requirements.txt, and ``PORTHOLE_OPENSTACK_PYTHON`` names its interpreter.
"""

import json
import os
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.ports import free_port
from support.processes import Process

VARIABLE = "PORTHOLE_OPENSTACK_PYTHON"
_DEFAULT_PYTHON = Path(__file__).resolve().parents[2] / ".tox" / "openstack" / "bin" / "python"
START_TIMEOUT_S = 120
COMMAND_TIMEOUT_S = 180
# One process for all commands: most of a command's time is its imports.
_DRIVER = """
import contextlib, importlib, io, json, sys
main, answers = importlib.import_module(sys.argv[1]).main, []
for argv in json.loads(sys.argv[2]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(argv)
        except SystemExit as exc:
            status = exc.code
    answers.append([status or 0, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""
# Its argument goes before Keystone reads the command line.
_SERVER = """
import sys
from wsgiref.simple_server import make_server
port = int(sys.argv.pop())
from keystone.wsgi.api import application
make_server("127.0.0.1", port, application).serve_forever()
"""
# keystone-manage, several commands of it in one process.
_MANAGE = """
import json, sys
from keystone.cmd import cli
from keystone.conf import CONF
for argv in json.loads(sys.argv[2]):
    cli.main(["keystone-manage", "--config-file", sys.argv[1], *argv])
    CONF.clear()
"""
_MAKE_TOKEN = """
import datetime, sys
import keystone.conf
from keystone.conf import CONF
from keystone.token import token_formatters
conf, user, project, minutes = sys.argv[1:]
keystone.conf.configure()
CONF(["--config-file", conf], project="keystone")
ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=int(minutes))
print(token_formatters.TokenFormatter().create_token(
    user, ends.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), ["0123456789abcdefghijkA"], token_formatters.ProjectScopedPayload,
    methods=["password"], project_id=project,
))
"""


def find_python() -> Path:
    """Return the interpreter of the environment; a missing one is a failure."""
    python = Path(os.environ.get(VARIABLE) or _DEFAULT_PYTHON)
    assert python.exists(), f"{python} is not there: run 'tox -e openstack', or name another one in {VARIABLE}"
    return python


def build_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without what would lead a client elsewhere, and with ``variables``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON"))}
    return {**kept, "PYTHONWARNINGS": "ignore", "NO_PROXY": "*", "no_proxy": "*", **variables}


@dataclass(frozen=True)
class Done:
    """What one command of a client gave: exit status and what it wrote."""

    status: int
    out: str
    err: str


def run_client(module: str, commands: Sequence[Sequence[str]], variables: Mapping[str, str]) -> list[Done]:
    """Run ``commands`` of the client whose ``main(argv)`` is in ``module``, one after the other."""
    answers = json.loads(run_script(_DRIVER, variables, module, json.dumps(commands)))
    return [Done(*answer) for answer in answers]


def run_script(script: str, variables: Mapping[str, str], *arguments: str) -> str:
    """Run a Python script in the environment of the clients; return what it printed."""
    # novaclient remembers servers in files, in the user's home unless told otherwise.
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [find_python(), "-c", script, *arguments],
            env=build_environment({"NOVACLIENT_UUID_CACHE_DIR": cache, **variables}),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_schemathesis(url: str, directory: Path, *arguments: str) -> str:
    """Have schemathesis test the API whose document is at ``url``; return its report.

    :raises AssertionError: when it found fault with an answer.
    """
    config = directory / "schemathesis.toml"
    # Whether valid data is accepted depends on what there is: a marker is, or is not, the id of a server.
    # Of a source with several wrong passwords the next one is 429, which the check of wrong ones does not expect.
    config.write_text(
        "[checks.positive_data_acceptance]\nenabled = false\n[checks.ignored_auth]\nenabled = false\n", encoding="ascii"
    )
    command = [str(find_python().with_name("schemathesis")), "--config-file", str(config), "--no-color", "run", url]
    done = subprocess.run(
        # What hypothesis remembers of earlier runs is not to decide over this one.
        [*command, *arguments, "--generation-database", "none"],
        cwd=directory,
        env=build_environment({"COLUMNS": "120"}),
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Keystone:
    """A Keystone on sqlite with fernet tokens. Every password is the user's name.

    Its administrator is ``admin`` of project ``admin``; ``porthole`` of project ``service`` is who checks tokens.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v3"
        self._conf = directory / "keystone.conf"
        self._token: str | None = None
        self.process = Process(
            [str(find_python()), "-c", _SERVER, str(self.port)],
            directory / "keystone.log",
            build_environment({"OS_KEYSTONE_CONFIG_FILES": str(self._conf)}),
            name="keystone",
        )

    def start(self) -> None:
        """Make the database when there is none, start, and return once it answers."""
        if not self._conf.exists():
            self._set_up()
        self.process.start()
        self.process.wait_for(self._is_up, START_TIMEOUT_S, "Keystone to answer")

    def stop(self) -> None:
        """Stop it; it can be started again."""
        self.process.stop()

    def create_user(self, name: str, project: str, *roles: str) -> None:
        """Create a user with the roles on the project, which is made when it is not there."""
        project_id = self._find("projects", project) or self._create("project", {"name": project})
        user_id = self._create("user", {"name": name, "password": name})
        for role in roles:
            role_id = self._find("roles", role) or self._create("role", {"name": role})
            self._send("PUT", f"/projects/{project_id}/users/{user_id}/roles/{role_id}")

    def get_project_id(self, name: str) -> str:
        """Return the project's id."""
        found = self._find("projects", name)
        assert found, name
        return found

    def create_compute_endpoint(self, url: str) -> None:
        """Put the compute API into the catalog."""
        service_id = self._create("service", {"name": "nova", "type": "compute"})
        self._create(
            "endpoint", {"service_id": service_id, "interface": "public", "url": url, "region_id": "RegionOne"}
        )

    def issue_token(self, user: str, project: str | None) -> str:
        """Return a token of the user for the project, or one that is for none."""
        domain = {"id": "default"}
        auth: dict[str, Any] = {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": user, "password": user, "domain": domain}},
            },
            "scope": {"project": {"name": project, "domain": domain}} if project else "unscoped",
        }
        _, headers = self._request("POST", "/auth/tokens", {"auth": auth}, {})
        return headers["X-Subject-Token"]

    def make_token(self, user: str, project: str, minutes: int) -> str:
        """Return a token of the user for the project that runs out in ``minutes``, or did so long ago.

        Made with Keystone's own keys, since it issues none that is not good for an hour.
        """
        user_id = self._find("users", user)
        assert user_id, user
        return run_script(_MAKE_TOKEN, {}, str(self._conf), user_id, self.get_project_id(project), str(minutes)).strip()

    def revoke(self, token: str) -> None:
        """Make the token invalid."""
        self._request("DELETE", "/auth/tokens", None, {"X-Auth-Token": token, "X-Subject-Token": token})

    def build_options(self) -> dict[str, str]:
        """Return what porthole-api needs under ``[keystone_authtoken]``."""
        return {
            "auth_type": "password",
            "auth_url": self.url,
            "www_authenticate_uri": self.url,
            "username": "porthole",
            "password": "porthole",
            "project_name": "service",
            "user_domain_id": "default",
            "project_domain_id": "default",
        }

    def build_variables(self, user: str, project: str) -> dict[str, str]:
        """Return the environment variables by which clients are this user."""
        return {
            "OS_AUTH_URL": self.url,
            "OS_USERNAME": user,
            "OS_PASSWORD": user,
            "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_IDENTITY_API_VERSION": "3",
        }

    def _set_up(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "fernet").mkdir(mode=0o700)
        self._conf.write_text(
            f"[database]\nconnection = sqlite:///{self.directory}/keystone.db\n"
            "[token]\nprovider = fernet\n"
            f"[fernet_tokens]\nkey_repository = {self.directory}/fernet\n"
            f"[credential]\nkey_repository = {self.directory}/fernet\n"
            "[identity]\npassword_hash_rounds = 4\n"
        )
        owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
        bootstrap = ["--bootstrap-password", "admin", "--bootstrap-public-url", self.url]
        # This is the one that auth_token looks for.
        bootstrap += ["--bootstrap-internal-url", self.url]
        commands = [
            ["db_sync"],
            ["fernet_setup", *owner],
            ["bootstrap", *bootstrap, "--bootstrap-region-id", "RegionOne"],
        ]
        run_script(_MANAGE, {}, str(self._conf), json.dumps(commands))

    def _is_up(self) -> bool:
        try:
            self._request("GET", "", None, {})
        except OSError:
            return False
        return True

    def _find(self, collection: str, name: str) -> str | None:
        found = self._send("GET", f"/{collection}?name={name}")[collection]
        return str(found[0]["id"]) if found else None

    def _create(self, kind: str, value: dict[str, Any]) -> str:
        return str(self._send("POST", f"/{kind}s", {kind: value})[kind]["id"])

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        self._token = self._token or self.issue_token("admin", "admin")
        answer, _ = self._request(method, path, body, {"X-Auth-Token": self._token})
        return answer

    def _request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[Any, Mapping[str, str]]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            text = answer.read()
            return (json.loads(text) if text else None), dict(answer.headers)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
