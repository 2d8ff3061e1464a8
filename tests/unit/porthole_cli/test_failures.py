# SPDX-License-Identifier: Apache-2.0
"""What a user reads when the URL is not a compute API's: real servers on loopback, and the requests that meet them."""

import socket
import ssl
from pathlib import Path

import pytest
from keystoneauth1 import adapter, exceptions, noauth, session

from porthole_cli.client import ComputeClient
from porthole_cli.cloud_session import CloudSession
from porthole_cli.errors import AnswerInvalid, ApiRefused, ApiUnavailable, CloudInvalid
from porthole_cli.failures import build_answer_invalid, map_failure
from support.canned_answers import http, say, serve
from support.cases import naming
from support.certificates import Authority

TIMEOUT_S = 10


def ask(url: str) -> str:
    """Return what the client says when it asks ``url`` for its servers; no request succeeds here."""
    opened = session.Session(auth=noauth.NoAuth(endpoint=url), timeout=TIMEOUT_S)
    with pytest.raises((AnswerInvalid, ApiRefused, ApiUnavailable, CloudInvalid)) as caught:
        list(ComputeClient(adapter.Adapter(opened, service_type="compute")).list_servers())
    return str(caught.value)


def test_servers_that_are_no_compute_api_are_named_and_a_status_is_said_once() -> None:
    plain = "The URL of an API is like http://127.0.0.1:8774/v2.1."
    for answer, expected in (
        (http("404 Not Found"), f"There is no compute API at URL (HTTP 404). {plain}"),
        (http("405 Method Not Allowed"), f"There is no compute API at URL (HTTP 405). {plain}"),
        (http("200 OK"), f"There is no compute API at URL. {plain}"),
        (
            http("404 Not Found", headers="Server: Porthole\r\n"),
            "There is no compute API at URL (HTTP 404). PORT is the port of Porthole's proxy; the API has another "
            "port, usually 8774.",
        ),
        (
            http("400 Bad Request", "The plain HTTP request was sent to HTTPS port"),
            "There is no compute API at URL (HTTP 400). The port speaks TLS: write https://.",
        ),
        (http("502 Bad Gateway"), "URL answers: Bad Gateway. (HTTP 502)"),
        (
            http("502 Bad Gateway", headers="x-openstack-request-id: req-1\r\n"),
            "URL answers: Bad Gateway (Request-ID: req-1). (HTTP 502)",
        ),
        (http("599 Odd"), "URL answers: HTTP Server Error. (HTTP 599)"),
        (http("401 Unauthorized"), "URL answers: Unauthorized. (HTTP 401)"),
        (say("RFB 003.008\n"), "The server at URL does not speak HTTP, so it is no compute API."),
        (say(""), "URL closed the connection without an answer. If it speaks TLS, write https://."),
    ):
        with serve(answer) as port:
            url = f"http://127.0.0.1:{port}"
            assert ask(url) == expected.replace("URL", url, 1).replace("PORT", str(port)), expected


def test_a_url_that_ends_as_an_apis_does() -> None:
    with serve(http("404 Not Found")) as port:
        assert ask(f"http://127.0.0.1:{port}/v2.1/").endswith(". Correct the host or the port of the URL.")
        for path in ("/compute/v2.1", "//v2.1"):
            assert ask(f"http://127.0.0.1:{port}{path}").endswith(
                ". Correct the host, the port or the path of the URL."
            )


def test_the_port_for_vnc_viewers_on_another_number() -> None:
    with serve(say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")) as port:
        said = ask(f"http://127.0.0.1:{port}/v2.1")
    assert said.endswith(
        f" {port} looks like the port for VNC viewers (xvpvnc); the API has another port, usually 8774."
    )


def test_what_keystoneauth_cannot_replace_in_an_endpoint() -> None:
    hint = "write '%%' for the character '%', and '%(project_id)s' for the project"
    for path in ("%(tenant_id)s", "100%", "%20"):
        url = f"http://127.0.0.1:1/{path}"
        assert ask(url) == f"The endpoint '{url}' has a '%' that cannot be replaced: {hint}."
    for name in ("project_id", "user_id"):
        url = f"http://127.0.0.1:1/%({name})s"
        assert ask(url) == f"This login has no {name} for the endpoint '{url}'."


def test_nothing_listens() -> None:
    # Bound and not listening: nobody else can take it meanwhile.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v2.1"
        assert ask(url) == f"Nothing listens at {url}: start the API, or correct the URL."


def test_an_answer_that_does_not_come() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        opened = session.Session(auth=noauth.NoAuth(endpoint=url), timeout=0.2)
        with pytest.raises(ApiUnavailable, match=f"^The API at {url} does not answer in time\\.$"):
            list(ComputeClient(adapter.Adapter(opened, service_type="compute")).list_servers())
        # Waiting once is enough: no other question follows the first.
        silent.accept()[0].close()
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_tls_where_there_is_none_and_tls_of_a_stranger(tmp_path: Path) -> None:
    with serve(http("400 Bad Request")) as port:
        said = ask(f"https://127.0.0.1:{port}")
    assert said.startswith(f"The TLS handshake with https://127.0.0.1:{port} failed (")
    assert said.endswith("If it is plain HTTP, write http://.")

    files = Authority(tmp_path).issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)

    def shake_hands(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    with serve(shake_hands) as port:
        said = ask(f"https://127.0.0.1:{port}")
    assert said.startswith(f"The certificate at https://127.0.0.1:{port} is not trusted: ")
    assert said.endswith(". Give the authority's file by --os-cacert.")


def test_certificates_of_another_name_and_files_of_authorities(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("example.org")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)

    def shake_hands(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    words = tmp_path / "words"
    words.write_text("no certificate", encoding="utf-8")
    gone = tmp_path / "gone"
    with serve(shake_hands) as port:
        url = f"https://127.0.0.1:{port}"
        for trusted, expected in (
            (authority.cert, f"The certificate at {url} is for another name: "),
            (words, f"The file of --os-cacert (OS_CACERT, cacert) is {words}: it has no certificate in PEM."),
            (gone, f"The file of --os-cacert (OS_CACERT, cacert) is {gone}: No such file or directory."),
        ):
            opened = CloudSession(auth=noauth.NoAuth(endpoint=url), timeout=TIMEOUT_S, verify=str(trusted))
            with pytest.raises((ApiUnavailable, CloudInvalid)) as caught:
                list(ComputeClient(adapter.Adapter(opened, service_type="compute")).list_servers())
            assert str(caught.value).startswith(expected)
            assert "--os-cacert." not in str(caught.value)


def test_a_name_that_nobody_knows() -> None:
    url = "http://no-such-host.invalid:8774"
    failed = exceptions.ConnectFailure("long")
    failed.__cause__ = socket.gaierror(-2, "Name or service not known")
    assert str(map_failure(failed, url)) == f"The host name 'no-such-host.invalid' of {url} cannot be resolved."


def test_what_is_no_url_is_not_asked() -> None:
    for text in (
        "127.0.0.1:8774",
        "http://127.0.0.1:1 /v2.1",
        "http://127.0.0.1:99999",
        "http://:8774",
        "ftp://127.0.0.1/v2.1",
        "http://[::1",
    ):
        assert ask(text) == f"The endpoint '{text}' is not a URL: http://127.0.0.1:8774/v2.1 would be one."


def test_keystone_is_named_by_its_own_url() -> None:
    refused = exceptions.NotFound(url="http://keystone.example/v3")
    assert str(map_failure(refused)) == "http://keystone.example/v3 answers: Not Found. (HTTP 404)"
    unknown = exceptions.ConnectFailure("Unable to establish connection to http://keystone.example/v3")
    assert str(map_failure(unknown)) == "Unable to establish connection to http://keystone.example/v3"


def test_a_cause_that_is_not_known_is_the_librarys_to_say() -> None:
    assert str(map_failure(exceptions.ConnectFailure("It failed."), "http://127.0.0.1:8774")) == "It failed."
    unreachable = exceptions.ConnectFailure("long")
    unreachable.__cause__ = OSError(113, "No route to host")
    said = str(map_failure(unreachable, "http://192.0.2.1:8774"))
    assert said == "The API at http://192.0.2.1:8774 cannot be reached: No route to host."


def test_the_proxys_usual_ports_are_known_without_its_answer() -> None:
    for port in (6080, 6081):
        said = str(build_answer_invalid(f"http://127.0.0.1:{port}/v2.1"))
        assert said == (
            f"There is no compute API at http://127.0.0.1:{port}/v2.1. {port} is usually the port of Porthole's proxy; "
            "the API has another port, usually 8774."
        )


def test_a_refusal_calls_the_server_as_the_user_did() -> None:
    uuid = "2a5a0a3e-7c5f-4c8e-9d0a-0c1d2e3f4a5b"
    for typed, message, expected in (
        ("web", f"Instance {uuid} is not running.", "Instance 'web' is not running. (HTTP 409)"),
        (uuid.upper(), f"Instance {uuid} is not running.", f"Instance {uuid.upper()} is not running. (HTTP 409)"),
        ("web", "Unavailable console type novnc.", "web: Unavailable console type novnc. (HTTP 409)"),
    ):
        assert str(ApiRefused(409, message).about(uuid, typed)) == expected


def test_a_status_in_the_servers_own_message_is_said_once() -> None:
    cases = {
        "It is stopped.": "It is stopped. (HTTP 409)",
        "It is stopped. (HTTP 409)": "It is stopped. (HTTP 409)",
        "It is stopped (HTTP 409) (Request-ID: req-1)": "It is stopped (Request-ID: req-1) (HTTP 409)",
        "Keystone said no (HTTP 401)": "Keystone said no (HTTP 401) (HTTP 409)",
    }
    for message, said in cases.items():
        with naming(message):
            assert str(ApiRefused(409, message)) == said
