# SPDX-License-Identifier: Apache-2.0
"""Scrapes of ``/metrics``, and what is in them; promtool, Prometheus' own judge."""

import http.client
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from porthole_common import metrics

CHECKOUT = Path(__file__).parents[2]
GRAFANA = CHECKOUT / "deploy" / "grafana"
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_PARTS = re.compile(r"_(bucket|sum|count)$")
TIMEOUT_S = 20

Labels = Mapping[str, str]


class Scrape:
    """One answer: ``text``, and its samples."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            (name, dict(_LABEL.findall(labels)), float(number)) for name, labels, number in _SAMPLE.findall(text)
        ]

    @property
    def names(self) -> set[str]:
        """The names of all metrics, with or without a sample."""
        return set(re.findall(r"^# TYPE (\w+) ", self.text, re.MULTILINE))

    def get(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that have ``labels``; 0 without one."""
        return sum(number for each, found, number in self.samples if each == name and labels.items() <= found.items())

    def list_values(self, name: str, label: str) -> set[str]:
        """Return all values of a label of ``name``."""
        return {labels[label] for each, labels, _ in self.samples if each == name}


def scrape(port: int) -> Scrape:
    """Return what a Prometheus would get."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 200, text
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(text)


def run_promtool(*arguments: object, text: str | None = None) -> tuple[int, str]:
    """Run promtool; return its exit status and what it says."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return done.returncode, done.stdout + done.stderr


def find_metrics(text: str) -> set[str]:
    """Return the metrics that an expression or a file names, histograms without their parts."""
    words = set(re.findall(r"\b(?:porthole|process)_[a-z_]+\b", text))
    histograms = {name for name, each in metrics.DEFINITIONS.items() if each.kind == "histogram"}
    return {plain if (plain := _PARTS.sub("", word)) in histograms else word for word in words}


class Growth:
    """By how much a metric of this process has grown since this object was made."""

    def __init__(self, name: str, **labels: str) -> None:
        self._name, self._labels = name, labels
        self._before = self._read()

    def _read(self) -> float:
        return Scrape(metrics.render(metrics.STANDALONE).decode()).get(self._name, **self._labels)

    @property
    def grown(self) -> float:
        """The difference."""
        return self._read() - self._before
