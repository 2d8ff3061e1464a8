# SPDX-License-Identifier: Apache-2.0
import json
from http import HTTPStatus

from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.front.responses import (
    Response,
    Upgrade,
    build_bare,
    build_error,
    build_head,
    build_reason,
    build_refused_upgrade,
    discard,
)


def lines_of(response):
    head = build_head(response).decode("latin-1")
    assert head.endswith("\r\n\r\n")
    status, *fields = head[:-4].split("\r\n")
    return status, dict(field.split(": ", 1) for field in fields)


def test_a_head_names_the_server_and_the_time():
    status, fields = lines_of(Response(HTTPStatus.NOT_FOUND, (("X-A", "b"),)))
    assert status == "HTTP/1.1 404 Not Found"
    assert fields.pop("Date").endswith(" GMT")
    assert fields == {"Server": "Porthole", "X-A": "b"}


def test_a_last_answer_says_so():
    assert lines_of(Response(HTTPStatus.OK, is_last=True))[1]["Connection"] == "close"
    assert "Connection" not in lines_of(Response(HTTPStatus.OK))[1]


def test_a_bare_refusal_has_what_it_needs_and_nothing_else():
    """``porthole`` tells the port of native viewers by that."""
    response = build_bare(HTTPStatus.SERVICE_UNAVAILABLE, ("Retry-After", "1"))
    assert build_head(response) == (
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert response.body == b""


def test_a_native_viewer_is_let_in_with_a_status_line_and_a_blank_line():
    assert build_head(Response(HTTPStatus.OK, is_bare=True)) == b"HTTP/1.1 200 OK\r\n\r\n"


def test_a_refused_upgrade_has_no_body_and_the_id_that_the_log_has():
    response = build_refused_upgrade(HTTPStatus.UNAUTHORIZED, "req-1")
    status, fields = lines_of(response)
    assert (status, response.body) == ("HTTP/1.1 401 Unauthorized", b"")
    assert (fields["Content-Length"], fields["Connection"]) == ("0", "close")
    assert fields["X-OpenStack-Request-ID"] == "req-1"


def test_an_error_is_words_and_the_end_of_the_connection():
    response = build_error(HTTPStatus.BAD_REQUEST, "A header line has no colon, or its name is invalid.")
    assert response.body == b"400 A header line has no colon, or its name is invalid.\n"
    assert lines_of(response)[1]["Content-Length"] == str(len(response.body))
    assert response.is_last


def test_a_reason_is_json_that_no_cache_keeps():
    response = build_reason(HTTPStatus.UNAUTHORIZED, "No.", "req-1")
    assert json.loads(response.body) == {"code": 401, "reason": "No."}
    fields = lines_of(response)[1]
    assert (fields["Content-Length"], fields["Cache-Control"]) == (str(len(response.body)), "no-store")
    assert fields["X-OpenStack-Request-ID"] == "req-1"
    assert not response.is_last


def test_an_upgrade_that_is_not_sent_gives_its_console_back():
    closed = []

    class Admitted(Admission):
        def __init__(self):
            pass

        def close(self):
            closed.append(self)

    admission = Admitted()
    discard(Response(HTTPStatus.OK))
    assert closed == []
    discard(Upgrade(Response(HTTPStatus.SWITCHING_PROTOCOLS), admission))
    assert closed == [admission]
