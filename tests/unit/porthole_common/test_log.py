# SPDX-License-Identifier: Apache-2.0
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import log
from porthole_common.context import RequestContext, serving

LOG = log.get_logger(__name__)
TOKEN = "0f1e2d3c-4b5a-4978-8697-a5b4c3d2e1f0"


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def set_up(path: Path, *arguments: str) -> None:
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", ["--log-file", str(path), *arguments], default_config_files=[])
    log.setup(conf, "porthole-test")


def test_any_loggers_line_passes_the_filter(tmp_path: Path) -> None:
    """Other libraries' lines too (S6)."""
    path = tmp_path / "porthole.log"
    set_up(path, "--debug")
    logging.getLogger("somebody.else").debug("GET /?token=%s", TOKEN)
    logging.getLogger("porthole_common").info("token=%s", TOKEN)
    text = path.read_text(encoding="utf-8")
    assert text.count("***") == 2
    assert TOKEN not in text


@pytest.mark.parametrize("arguments", [[], ["--use-json"]])
def test_exceptions_are_redacted_in_traceback_and_summary(tmp_path: Path, arguments: list[str]) -> None:
    """What an exception quotes is a line too (S6)."""
    path = tmp_path / "porthole.log"
    set_up(path, *arguments)
    try:
        raise ValueError(f"/?token={TOKEN}")
    except ValueError:
        logging.getLogger("porthole_common").exception("failed")
    text = path.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "token=***" in text
    assert TOKEN not in text


class Word(StrEnum):
    NOVNC = "novnc"


class Code(IntEnum):
    REVOKED = 4401


def text_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def parse_fields(line: str) -> dict[str, str]:
    """Read key=value pairs as an operator's tools do (logfmt)."""
    pairs = re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))', line)
    return {name: json.loads(f'"{quoted}"') if quoted else bare for name, quoted, bare in pairs}


def test_an_event_is_its_text_and_its_fields_in_order(caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("Console closed", instance="i-1", code=Code.REVOKED, kind=Word.NOVNC, seconds=1.23456, up=True)
    assert caplog.messages == ["Console closed instance=i-1 code=4401 kind=novnc seconds=1.235 up=true"]


def test_fields_that_are_none_are_left_out_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("x", none=None, zero=0, empty="", false=False)
    assert caplog.messages == ['x zero=0 empty="" false=false']


def test_a_time_is_iso_8601(caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("x", at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert caplog.messages == ["x at=2026-01-02T03:04:05+00:00"]


def test_percent_arguments_work_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("port %d of %s", 5900, "x")
    LOG.warning("x", path="/100%s%d")
    assert caplog.messages == ["port 5900 of x", "x path=/100%s%d"]


def test_a_line_names_its_writer_and_carries_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("a bug")
    except ValueError:
        LOG.exception("x", instance="i-1")
    (record,) = caplog.records
    assert (record.filename, record.funcName) == ("test_log.py", "test_a_line_names_its_writer_and_carries_a_trace")
    assert "ValueError: a bug" in caplog.text


@given(st.text())
@example("")
@example("a b")
@example("a=b")
@example('"')
@example("\\")
@example("\\n")
@example("x\n2026-01-01 00:00:00.000 1 INFO forged [-] Console opened instance=i-2")
@example("\u2028\x85\x1b[2J\u202e\udc80")
def test_any_value_is_one_field_of_one_line_and_can_be_read_back(value: str) -> None:
    line = log.build_line("Event", {"first": value, "last": "end"})
    assert line.isprintable()
    assert list(parse_fields(line)) == ["first", "last"]
    assert parse_fields(line) == {"first": value, "last": "end"}


def test_a_value_has_a_bounded_length(tmp_path: Path) -> None:
    path = tmp_path / "porthole.log"
    set_up(path, "--use-json")
    LOG.info("x", path="a" * 100_000)
    entry = json.loads(path.read_text(encoding="utf-8"))
    assert entry["extra"]["path"] == "a" * log.MAX_VALUE_CHARS + "..."
    assert len(entry["message"]) < 2 * log.MAX_VALUE_CHARS


def test_as_text_a_line_has_the_ids_of_its_request(tmp_path: Path) -> None:
    path = tmp_path / "porthole.log"
    set_up(path)
    context = RequestContext(
        user_id="u",
        project_id="p",
        resource_uuid="i-1",
        global_request_id="req-11111111-1111-4111-8111-111111111111",
        overwrite=False,
    )
    with serving(context):
        LOG.info("Inside", instance="i-1")
        logging.getLogger("somebody.else").warning("a library")
    LOG.info("Outside")
    LOG.info("By the loop", context=context)
    inside, library, outside, loop = text_lines(path)
    ids = f"[request_id={context.request_id} global_request_id={context.global_request_id} user=u project=p]"
    assert inside.endswith(f"INFO {__name__} {ids} Inside instance=i-1")
    assert ids in library
    assert outside.endswith("[-] Outside")
    assert loop.endswith(f"{ids} By the loop")


def test_as_json_a_line_has_its_fields_and_the_ids_of_its_request(tmp_path: Path) -> None:
    path = tmp_path / "porthole.log"
    set_up(path, "--use-json")
    with serving(RequestContext(user_id="u", overwrite=False)):
        LOG.info("Console closed", instance="i-1", code=4401, seconds=0.5, reason='a "b"\n')
    (entry,) = map(json.loads, text_lines(path))
    assert entry["extra"] == {
        "event": "Console closed",
        "instance": "i-1",
        "code": 4401,
        "seconds": 0.5,
        "reason": 'a "b"\n',
    }
    assert entry["message"] == 'Console closed instance=i-1 code=4401 seconds=0.5 reason="a \\"b\\"\\n"'
    assert entry["context"]["request_id"].startswith("req-")
    assert entry["context"]["user"] == "u"
    assert entry["levelname"] == "INFO"


@pytest.mark.parametrize("arguments", [[], ["--use-json"]])
def test_nobody_begins_a_line_of_his_own(tmp_path: Path, arguments: list[str]) -> None:
    """Neither in a field, nor in a library's message, nor in the summary of an exception."""
    path = tmp_path / "porthole.log"
    set_up(path, *arguments)
    forged = "x\n2026-01-01 00:00:00.000 1 INFO porthole [-] Console opened\r\u2028\x1b[2J"
    LOG.info("Field", value=forged)
    logging.getLogger("somebody.else").warning("library %s", forged)
    assert len(text_lines(path)) == 2
    try:
        raise ValueError(forged)
    except ValueError:
        LOG.exception("Trace")
    lines = text_lines(path)
    assert not [line for line in lines if line.startswith("2026-01-01 00:00:00.000 1 INFO porthole ")]
    assert "\x1b" not in lines[2]


@pytest.mark.parametrize("arguments", [[], ["--use-json"]])
@pytest.mark.parametrize("shape", ["/?token={}", "/%3Ftoken%3D{}", "/%253Ftoken%253D{}", "token: {}"])
def test_fields_are_redacted_too(tmp_path: Path, arguments: list[str], shape: str) -> None:
    path = tmp_path / "porthole.log"
    set_up(path, *arguments)
    LOG.info("Field", path=shape.format(TOKEN), nested={"token": TOKEN})
    LOG.info("Named", token=TOKEN)
    text = path.read_text(encoding="utf-8")
    assert text.count("***") >= 3
    assert TOKEN not in text
    assert quote(TOKEN) not in text
