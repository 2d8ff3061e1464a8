# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys

from support.nova_api import NovaApi

EVENT = {
    "id": "2a5a0a3e-7c5f-4c8e-9d0a-0c1d2e3f4a5b",
    "at": "2026-07-01T12:00:00+00:00",
    "kind": "session_closed",
    "server": {"id": "7b1de0c6-93f0-4a63-b6a8-2f2f0f9f7a10"},
    "session": None,
    "user_id": "rita",
    "project_id": "red",
    "client": {"address": "192.0.2.7"},
    "code": 1000,
    "reason": "the client left",
    "by": None,
}
KEY = "GET /porthole/v1/audit"


def run(api: NovaApi, *words: str) -> tuple[int, str, str]:
    # A process of its own: cliff sets up the log of the whole process.
    argv = [sys.executable, "-m", "porthole_cli.main", "--os-auth-type", "none", "--os-endpoint", api.url]
    done = subprocess.run([*argv, "audit", "list", *words], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_each_format() -> None:
    with NovaApi() as api:
        api.answers[KEY] = (200, {"audit": [EVENT]})
        status, out, _ = run(api, "-f", "json", "--kind", "session_closed", "--project-id", "red")
        assert status == 0
        (row,) = json.loads(out)
        assert (row["Kind"], row["Client"], row["Server"]) == ("session_closed", "192.0.2.7", EVENT["server"]["id"])  # type: ignore[index]
        assert (row["Session"], row["By"], row["Code"]) == ("", "", 1000)
        (request,) = [sent for sent in api.sent("GET") if "audit" in sent.path]
        assert request.query == {"kind": "session_closed", "project_id": "red", "limit": "100"}
        assert "rita" in run(api, "-f", "value", "-c", "User")[1]
        assert "| session_closed |" in run(api, "-c", "Kind", "-c", "User")[1]


def test_a_limit_bounds_the_pages() -> None:
    with NovaApi() as api:
        api.answers[KEY] = (200, {"audit": [EVENT] * 3, "audit_links": [{"rel": "next", "href": "x"}]})
        _, out, _ = run(api, "-f", "json", "--limit", "5")
        assert len(json.loads(out)) == 5


def test_what_the_api_refuses_is_one_line() -> None:
    with NovaApi() as api:
        message = "The history of consoles is not available: it cannot be read now."
        api.answers[KEY] = (503, {"serviceUnavailable": {"code": 503, "message": message}})
        assert run(api) == (1, "", f"{message} (HTTP 503)\n")
