# SPDX-License-Identifier: Apache-2.0
"""Console sessions: listing thousands of them, also beside a frozen proxy, and how soon an end reaches its client."""

import contextlib
import http.client
import json
import resource
import signal
import time
from typing import Any

from benchmarks import peers
from benchmarks.bed import Bed, make_bed
from benchmarks.idle import open_consoles
from benchmarks.table import Row, median, percentile
from porthole_relay.frames import CloseCode
from support.ports import free_port

CONSOLES = 9500
ROUNDS = 5
ENDS = 200
PATH = "/porthole/v1/sessions"


def run() -> list[Row]:
    """Return the time of a whole list, of one beside a frozen proxy, and from the end of a session to its close."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with make_bed() as bed:
            return _rows(bed)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _rows(bed: Bed) -> list[Row]:
    ports = {"novncproxy_port": free_port(), "xvpvncproxy_port": free_port()}
    second = bed.porthole.add("novncproxy", "second", {"vnc": ports})
    bed.porthole.start_daemon("second")
    with contextlib.ExitStack() as stack:
        open_consoles(stack, bed, CONSOLES)
        whole = median([_time(bed)[0] for _ in range(ROUNDS)])
        page = median([_time(bed, pages=1)[0] for _ in range(ROUNDS)])
        second.signal(signal.SIGSTOP)
        try:
            frozen, unreachable = _time(bed)
        finally:
            second.signal(signal.SIGCONT)
        assert unreachable, "the frozen proxy was not named"
        ends = _time_ends(bed)
    return [
        Row(f"list of {CONSOLES} sessions, page by page", whole, "s", bar="at most 2"),
        Row("its first page", page, "s"),
        Row("the list beside a frozen proxy", frozen, "s", bar="at most 2"),
        Row("an end to its close frame, p50", percentile(ends, 50), "s"),
        Row("an end to its close frame, p99", percentile(ends, 99), "s", bar="at most 1"),
    ]


def _ask(bed: Bed, method: str, path: str) -> Any:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", bed.porthole.api_port, timeout=60)) as client:
        client.request(method, path)
        answer = client.getresponse()
        body = answer.read()
        assert answer.status in (200, 204), body
        return json.loads(body) if body else None


def _time(bed: Bed, pages: int | None = None) -> tuple[float, list[str]]:
    """Return how long the whole list takes, or its first ``pages``, in seconds; and who did not answer."""
    begun, count, marker, unreachable = time.perf_counter(), 0, "", []
    while pages is None or pages > count:
        page = _ask(bed, "GET", f"{PATH}?limit=1000{marker}")
        count += 1
        unreachable += page["unreachable"]
        if "sessions_links" not in page:
            break
        marker = f"&marker={page['sessions'][-1]['id']}"
    return time.perf_counter() - begun, unreachable


def _time_ends(bed: Bed) -> list[float]:
    """Open sessions and end them, one by one; return the seconds from each request to the close frame at its client."""
    token, times = bed.token(), []
    for _ in range(ENDS):
        with peers.connect(bed.porthole.novnc_port, token) as sock:
            sock.settimeout(60)
            (newest,) = _ask(bed, "GET", f"{PATH}?limit=1")["sessions"]
            begun = time.perf_counter()
            _ask(bed, "DELETE", f"{PATH}/{newest['id']}")
            data = sock.recv(4096)
            times.append(time.perf_counter() - begun)
            # FIN and the opcode of a close frame (RFC 6455 section 5.2), and its code.
            assert data[0] == 0x88, data
            assert int.from_bytes(data[2:4], "big") == CloseCode.ENDED_BY_USER, data
    return times
