# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys

from support.nova_api import NovaApi

UUID = "7b1de0c6-93f0-4a63-b6a8-2f2f0f9f7a10"

SESSION = {
    "id": "018bcfe5-6800-7abc-9def-0123456789ab",
    "server": {"id": UUID, "name": "web"},
    "type": "novnc",
    "mode": "view",
    "user_id": "rita",
    "project_id": "red",
    "client": {"address": "192.0.2.7", "user_agent": "Firefox"},
    "opened_at": "2026-07-01T12:00:00+00:00",
    "last_input_at": None,
    "ended_at": None,
    "end": None,
    "bytes_to_client": 12,
    "bytes_from_client": 7,
}
KEY = "GET /porthole/v1/sessions"
ONE = f"/porthole/v1/sessions/{SESSION['id']}"


def run(api: NovaApi, *words: str) -> tuple[int, str, str]:
    # A process of its own: cliff sets up the log of the whole process.
    argv = [sys.executable, "-m", "porthole_cli.main", "--os-auth-type", "none", "--os-endpoint", api.url]
    done = subprocess.run([*argv, "session", *words], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_list_names_who_is_on_and_which_proxy_is_silent() -> None:
    with NovaApi() as api:
        api.answers[KEY] = (200, {"sessions": [SESSION], "unreachable": ["node2-6080-0"]})
        status, out, err = run(api, "list", "-f", "json", "--user-id", "rita")
        assert (status, err) == (0, "Not complete: no answer from node2-6080-0.\n")
        (row,) = json.loads(out)
        assert (row["ID"], row["Server"], row["Mode"], row["Client"]) == (SESSION["id"], "web", "view", "192.0.2.7")
        assert row["Last input"] == ""
        (request,) = [sent for sent in api.sent("GET") if "sessions" in sent.path]
        assert request.query == {"user_id": "rita", "limit": "500"}


def test_a_server_is_found_by_its_name_and_ended_ones_have_an_end() -> None:
    ended = SESSION | {"ended_at": "2026-07-01T13:00:00+00:00", "end": {"code": 4403, "reason": "why", "by": "otto"}}
    with NovaApi() as api:
        api.add_server(UUID, "web")
        api.answers[KEY] = (200, {"sessions": [ended], "unreachable": []})
        status, out, err = run(api, "list", "-f", "json", "--ended", "--server", "web")
        assert (status, err) == (0, "")
        (row,) = json.loads(out)
        assert (row["Code"], row["Reason"], row["By"]) == (4403, "why", "otto")
        (request,) = [sent for sent in api.sent("GET") if sent.path.endswith("/sessions")]
        assert request.query == {"server": UUID, "state": "ended", "limit": "500"}


def test_an_empty_list_says_so() -> None:
    with NovaApi() as api:
        api.answers[KEY] = (200, {"sessions": [], "unreachable": []})
        assert run(api, "list", "-f", "value") == (0, "", "There are no such console sessions.\n")


def test_one_is_shown() -> None:
    with NovaApi() as api:
        api.answers[f"GET {ONE}"] = (200, {"session": SESSION})
        status, out, _ = run(api, "show", str(SESSION["id"]), "-f", "json")
        assert status == 0
        assert json.loads(out)["User agent"] == "Firefox"


def test_one_is_ended_with_a_reason() -> None:
    with NovaApi() as api:
        api.answers[f"DELETE {ONE}"] = (204, {})
        status, out, err = run(api, "end", str(SESSION["id"]), "--reason", "maintenance")
        assert (status, out, err) == (0, f"Session {SESSION['id']} has been ended.\n", "")
        (request,) = api.sent("DELETE")
        assert request.body == {"reason": "maintenance"}


def test_all_of_a_server_are_ended() -> None:
    with NovaApi() as api:
        api.add_server(UUID, "web")
        api.answers[f"DELETE /porthole/v1/servers/{UUID}/sessions"] = (
            200,
            {"ended": 2, "revoked": 3, "unreachable": ["node2-6080-0"]},
        )
        status, out, err = run(api, "end", "--server", "web")
        assert (status, out) == (0, "2 sessions ended, 3 URLs revoked.\n")
        assert err == "Not complete: no answer from node2-6080-0.\n"


def test_what_the_api_refuses_is_one_line() -> None:
    with NovaApi() as api:
        message = f"Session {SESSION['id']} could not be found."
        api.answers[f"DELETE {ONE}"] = (404, {"itemNotFound": {"code": 404, "message": message}})
        assert run(api, "end", str(SESSION["id"])) == (1, "", f"{message} (HTTP 404)\n")
        assert run(api, "end")[0] == 2


def test_what_others_have_written_cannot_rewrite_the_terminal() -> None:
    hostile = SESSION | {"server": {"id": UUID, "name": "a\x9b2J\u202eb"}}
    with NovaApi() as api:
        api.answers[KEY] = (200, {"sessions": [hostile], "unreachable": ["node\x1b[31m"]})
        _, out, err = run(api, "list", "-f", "value", "-c", "Server")
        assert (out, err) == ("a?2J?b\n", "Not complete: no answer from node?[31m.\n")
