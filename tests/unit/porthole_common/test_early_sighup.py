# SPDX-License-Identifier: Apache-2.0
"""SIGHUP before a daemon handles signals: noted where the program is Porthole's own, and nowhere else."""

import signal
from collections.abc import Iterator

import pytest

from porthole_common import early_sighup
from support.cases import naming


@pytest.fixture(autouse=True)
def _disposition_restored() -> Iterator[None]:
    former = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, former)
    early_sighup.take()


def test_it_is_noted_once() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    early_sighup.install()
    assert not early_sighup.take()
    signal.raise_signal(signal.SIGHUP)
    assert early_sighup.take()
    assert not early_sighup.take()


def test_a_handler_that_is_there_stays() -> None:
    for disposition in (signal.SIG_IGN, lambda *_: None):
        signal.signal(signal.SIGHUP, disposition)
        early_sighup.install()
        assert signal.getsignal(signal.SIGHUP) is disposition


def test_only_porthole_is_its_own_program() -> None:
    for path in ("/opt/porthole/bin/porthole-api", "porthole", "/src/services/porthole_api/main.py"):
        with naming(path):
            assert early_sighup.is_own_program(path)
    for path in ("", "-m", "/usr/bin/gunicorn", "/usr/bin/uwsgi", "/opt/porthole/bin/pytest", "/src/main.py", "pytest"):
        with naming(path):
            assert not early_sighup.is_own_program(path)
