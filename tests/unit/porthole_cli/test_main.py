# SPDX-License-Identifier: Apache-2.0
import contextlib
import fcntl
import json
import os
import pty
import select
import socket
import ssl
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from support.canned_answers import http, serve
from support.certificates import Authority
from support.nova_api import CONSOLE_URL, TOKEN, NovaApi

UUID = "2a5a0a3e-7c5f-4c8e-9d0a-0c1d2e3f4a5b"
Done = subprocess.CompletedProcess[str]
# Runs the command, then prints which modules the process has imported.
_PROGRAM = """
import sys
from porthole_cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as exc:
    status = exc.code
print("imported:", *sorted(sys.modules))
sys.exit(status)
"""


def run(*argv: str, program: tuple[str, str] = ("-m", "porthole_cli.main"), **environment: str) -> Done:
    """Run the command in a process of its own, since it sets up the log of the process it is in."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    return subprocess.run(
        [sys.executable, *program, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean | {"PYTHONWARNINGS": "", "COLUMNS": "200", **environment},
    )


class TestImports:
    @pytest.mark.parametrize("argv", [("--help",), ("list",), ("list", "--help"), ("get-vnc-console", UUID, "novnc")])
    def test_a_client_command_imports_nothing_heavy(self, argv: tuple[str, ...]) -> None:
        with NovaApi() as api:
            api.add_server(UUID, "web")
            done = run(*argv, program=("-c", _PROGRAM), OS_ENDPOINT=api.url)

        assert done.returncode == 0, done.stderr
        imported = set(done.stdout.split("imported:")[1].split())
        assert "porthole_cli.main" in imported
        heavy = (
            "porthole_api",
            "porthole_compute",
            "porthole_consoleauth",
            "porthole_novncproxy",
            "porthole_cli.wiring",
            "porthole_cli.doctor.examination",
        )
        heavy += ("oslo_messaging", "oslo_service", "oslo_log", "oslo_config", "eventlet", "openstack")
        heavy += (
            "cmd2",
            "numpy",
            "libvirt",
            "lxml",
            "jsonschema",
            "waitress",
            "websockify",
            "pymemcache",
            "kombu",
            "webob",
        )
        assert [name for name in heavy if name in imported] == []


class TestCommandLine:
    def test_nothing_is_the_help_and_not_a_shell(self) -> None:
        done = run()

        assert done.returncode == 0
        assert "http://127.0.0.1:8774/v2.1" in done.stdout
        assert "get-vnc-console" in done.stdout

    def test_an_unknown_cloud_is_one_line(self) -> None:
        done = run("--os-auth-type", "magic", "list")

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "magic" in done.stderr

    def test_the_doctor_says_what_it_was_given(self, tmp_path: os.PathLike[str]) -> None:
        path = os.path.join(tmp_path, "gone.conf")
        words = run("doctor", "--config-file", path)
        report = run("doctor", "--config-file", path, "-f", "json")

        assert (words.returncode, report.returncode) == (2, 2)
        assert words.stdout.startswith("porthole doctor: 1 error (")
        assert "config.unreadable" in words.stdout
        assert [each["id"] for each in json.loads(report.stdout)["findings"]] == ["config.unreadable"]
        assert (words.stderr, report.stderr) == ("", "")

    def test_an_unknown_console_type(self) -> None:
        done = run("get-vnc-console", "web", "spice-html5")

        assert done.returncode == 2
        assert "spice-html5" in done.stderr


def run_in_shell(line: str, *argv: str, **environment: str) -> Done:
    """Run a line of the shell, in which ``"$@"`` is the command with ``argv``."""
    # tox sets PYTHONIOENCODING.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHONIO", "LC_"))}
    return subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "porthole_cli.main", *argv],
        capture_output=True,
        encoding="latin-1",
        timeout=60,
        check=False,
        env=clean | {"PYTHONWARNINGS": "", "COLUMNS": "200", **environment},
    )


def run_in_terminal(columns: int, *argv: str, **environment: str) -> str:
    """Run the command with a terminal of that width as its stdout, and return what it printed there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "COLUMNS", "CLIFF_"))}
    program = [sys.executable, "-m", "porthole_cli.main", *argv]
    with subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=clean | environment) as run:
        os.close(theirs)
        printed = b""
        try:
            # The kernel says EIO when the last writer has gone.
            with contextlib.suppress(OSError):
                while select.select([ours], [], [], 60)[0] and (chunk := os.read(ours, 65536)):
                    printed += chunk
        finally:
            run.kill()
            os.close(ours)
    return printed.decode()


class TestTerminal:
    def test_a_url_is_never_broken(self) -> None:
        with NovaApi() as api:
            api.add_server(UUID, "web")
            for columns, argv, more in (
                (80, (), {}),
                (40, (), {}),
                (80, ("--fit-width",), {}),
                (80, (), {"CLIFF_MAX_TERM_WIDTH": "60"}),
            ):
                printed = run_in_terminal(columns, "get-vnc-console", "web", *argv, OS_ENDPOINT=api.url, **more)
                assert CONSOLE_URL in printed, (columns, argv, more, printed)


class TestDebug:
    def test_requests_and_traces_are_shown_and_the_token_is_not(self) -> None:
        with NovaApi() as api:
            api.add_server(UUID, "web")
            url = f"http://x/?path=%3Ftoken%3D{TOKEN}"
            fault = {"badRequest": {"code": 400, "message": f"Not {url}"}}
            good = run("--debug", "get-vnc-console", "web", "novnc", OS_ENDPOINT=api.url)
            api.answers[f"POST /v2.1/servers/{UUID}/remote-consoles"] = (400, fault)
            bad = run("--debug", "get-vnc-console", "web", "novnc", OS_ENDPOINT=api.url)

        assert TOKEN in good.stdout
        assert "RESP BODY" in good.stderr
        assert "token%3D***" in good.stderr
        assert TOKEN not in good.stderr
        assert bad.returncode == 1
        assert "Traceback" in bad.stderr
        assert TOKEN not in bad.stderr

    def test_a_log_file_is_no_leak_either(self, tmp_path: os.PathLike[str]) -> None:
        log = os.path.join(tmp_path, "log")
        with NovaApi() as api:
            api.add_server(UUID, "web")
            run("--log-file", log, "get-vnc-console", "web", "novnc", OS_ENDPOINT=api.url)

        with open(log, encoding="utf-8") as lines:
            text = lines.read()
        assert "RESP BODY" in text
        assert TOKEN not in text

    def test_a_password_in_the_endpoint_is_not_shown(self, tmp_path: os.PathLike[str]) -> None:
        log = os.path.join(tmp_path, "log")
        with NovaApi() as api:
            for url in (
                api.url.replace("//", "//user:s3cret@"),
                api.root.replace("//", "//user:s3cret@") + "/nowhere",
                "http://user:s3cret@127.0.0.1:1/v2.1",
                "http://user:s3/cret@127.0.0.1:1/v2.1",
                "user:s3cret@127.0.0.1:1/v2.1",
            ):
                done = run("--debug", "--log-file", log, "list", OS_ENDPOINT=url)
                quiet = run("list", OS_ENDPOINT=url)
                with open(log, encoding="utf-8") as lines:
                    text = lines.read()
                for said in (done.stderr, quiet.stderr, text):
                    assert "cret" not in said, (url, said)
                assert "***@" in done.stderr, url


class TestOutput:
    def test_a_full_disk_and_a_closed_stdout_have_a_line_and_a_status_of_their_own(self, tmp_path: Path) -> None:
        doctor = ("doctor", "--config-file", str(tmp_path / "gone.conf"))
        with NovaApi() as api:
            api.add_server(UUID, "web")
            for argv in (("list",), ("get-vnc-console", "web"), doctor, (*doctor, "-f", "json"), ("--help",)):
                for redirection, reason in (
                    (">/dev/full", "No space left on device"),
                    (">&-", "standard output is closed"),
                ):
                    done = run_in_shell(f'"$@" {redirection}', *argv, OS_ENDPOINT=api.url)
                    said = (done.returncode, done.stderr)
                    assert said == (3, f"The output cannot be written: {reason}.\n"), (argv, redirection)

    def test_a_list_that_is_longer_than_the_buffer(self) -> None:
        with NovaApi() as api:
            for number in range(400):
                api.add_server(UUID, f"{number} " + "x" * 100)
            done = run_in_shell('"$@" >/dev/full', "list", OS_ENDPOINT=api.url)
        assert (done.returncode, done.stderr) == (3, "The output cannot be written: No space left on device.\n")

    def test_a_reader_that_leaves_is_no_failure_to_speak_of(self) -> None:
        with NovaApi() as api:
            for number in range(400):
                api.add_server(UUID, f"{number} " + "x" * 100)
            done = run_in_shell('("$@"; echo "$?" >&2) | true', "list", OS_ENDPOINT=api.url)
        assert done.stderr == "141\n"

    def test_a_closed_stderr_does_not_take_the_console_away(self) -> None:
        with NovaApi() as api:
            api.add_server(UUID, "web")
            api.expires_at = "2026-01-02T04:04:05+01:00"
            done = run_in_shell('"$@" 2>&-', "get-vnc-console", "web", "-f", "value", "-c", "Url", OS_ENDPOINT=api.url)
        assert (done.returncode, done.stdout) == (0, f"{CONSOLE_URL}\n")

    def test_a_locale_that_is_not_utf_8(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        with NovaApi() as api:
            api.add_server(UUID, "web")
            api.add_server("7b1de0c6-93f0-4a63-b6a8-2f2f0f9f7a10", "g\u00e4st \u4e2d")
            for locale, shown in ((plain, "g\\xe4st \\u4e2d"), ({"PYTHONIOENCODING": "latin-1"}, "\\u4e2d")):
                done = run_in_shell('"$@"', "list", "-f", "value", OS_ENDPOINT=api.url, **locale)
                assert (done.returncode, done.stderr) == (0, "")
                assert "web" in done.stdout
                assert shown in done.stdout
            # The bytes of the name are UTF-8, whatever the locale.
            found = run_in_shell('"$@"', "show", "g\u00e4st \u4e2d", OS_ENDPOINT=api.url, **plain)
            logged = run_in_shell('"$@"', "--log-file", str(log), "list", OS_ENDPOINT=api.url, **plain)
            unknown = run_in_shell('"$@" "$(printf "\\377")"', "show", OS_ENDPOINT=api.url)

        assert (found.returncode, found.stderr) == (0, "")
        assert (logged.returncode, logged.stderr) == (0, "")
        assert unknown.returncode == 1
        assert unknown.stderr.startswith("No server with a name or ID of '")


class TestInsecure:
    def test_urllib3_does_not_repeat_what_the_user_has_said(self, tmp_path: Path) -> None:
        files = Authority(tmp_path).issue("localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)

        def refuse(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as secured:
                http("503 Service Unavailable")(secured)

        with serve(refuse) as port:
            url = f"https://127.0.0.1:{port}/v2.1"
            done = run("--insecure", "list", OS_ENDPOINT=url)
        assert done.stderr == f"{url} answers: Service Unavailable. (HTTP 503)\n"


class TestServers:
    def test_an_empty_list_is_said_on_stderr_and_is_a_list_on_stdout(self) -> None:
        with NovaApi() as api:
            words, rows, report = (
                run("list", *format_, OS_ENDPOINT=api.url) for format_ in ((), ("-f", "value"), ("-f", "json"))
            )
            api.add_server(UUID, "web")
            full = run("list", OS_ENDPOINT=api.url)

        assert {done.stderr for done in (words, rows, report)} == {
            "There are no servers whose console you may open. "
            f"{sys.executable} -m porthole_cli.main doctor says whether the hypervisor answers.\n"
        }
        assert [words.returncode, rows.stdout.strip(), json.loads(report.stdout)] == [0, "", []]
        assert full.stderr == ""

    def test_a_console_without_a_type_is_novnc(self) -> None:
        with NovaApi() as api:
            api.add_server(UUID, "web")
            done = run("get-vnc-console", "web", "-f", "value", OS_ENDPOINT=api.url)

            assert api.sent("POST")[0].body == {"remote_console": {"protocol": "vnc", "type": "novnc"}}
        assert done.stdout.startswith("novnc http://")
