# SPDX-License-Identifier: Apache-2.0
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import log

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
    path = tmp_path / "porthole.log"
    set_up(path, "--debug")
    logging.getLogger("somebody.else").debug("GET /?token=%s", TOKEN)
    logging.getLogger("porthole_common").info("token=%s", TOKEN)
    text = path.read_text(encoding="utf-8")
    assert text.count("***") == 2
    assert TOKEN not in text


@pytest.mark.parametrize("arguments", [[], ["--use-json"]])
def test_exceptions_are_redacted_in_traceback_and_summary(tmp_path: Path, arguments: list[str]) -> None:
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
