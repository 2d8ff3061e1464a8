# SPDX-License-Identifier: Apache-2.0
"""What a benchmark found, as a table of ratios: a figure of Porthole over the same figure of a peer in the same run.

Why ratios: machines differ and are noisy; two programs measured side by side share both.
"""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure. ``value`` and ``peer_value`` are in ``unit``; ``bar`` is in words ("at most 0.75")."""

    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    bar: str = ""

    @property
    def ratio(self) -> float | None:
        """Porthole's figure over the peer's."""
        return self.value / self.peer_value if self.peer_value else None


def median(values: Sequence[float]) -> float:
    """Return the median; of an even number, the mean of the middle two."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that ``percent`` of ``values`` do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, len(ranked) * percent // 100)]


def describe_machine() -> str:
    """Return processor, number of them, memory, kernel and Python in a line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kib = int(_read("/proc/meminfo").split()[1])
    cores = len(os.sched_getaffinity(0))
    load = " ".join(_read("/proc/loadavg").split()[:3])
    return (
        f"{model}, {cores} cores, {memory_kib / 2**20:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {load}"
    )


def format_table(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned text table with a header."""
    cells = [("figure", "Porthole", "peer", "peer's", "ratio", "asked")]
    cells += [
        (
            row.name,
            _format(row.value, row.unit),
            row.peer,
            "" if row.peer_value is None else _format(row.peer_value, row.unit),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.bar,
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("=" * width for width in widths))
    return "\n".join(lines)


def _format(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 3
    return f"{value:.{digits}f} {unit}".strip()


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
