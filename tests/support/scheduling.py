# SPDX-License-Identifier: Apache-2.0
"""How pytest-xdist gives tests to its processes: a file at a time, or all files that share something.

Why not pytest-xdist's own ``loadfile``: it knows one file only, and gives a test that has killed its process to the
next process, until there are none left.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadFileScheduling


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]
    """``shared``: the name of what a file shares with others, by the file's stem; those files go to one process."""

    def __init__(self, config: Any, log: Any, shared: Mapping[str, str]) -> None:
        super().__init__(config, log)
        self._shared = shared

    def _split_scope(self, nodeid: str) -> str:
        path: str = super()._split_scope(nodeid)
        return self._shared.get(Path(path).stem, path)

    def remove_node(self, node: Any) -> str | None:
        """Take back the work of a process that has ended; return the test that it died of, which is done with."""
        workload = self.assigned_work.pop(node)
        waiting: list[tuple[dict[str, bool], str]] = [
            (unit, nodeid) for unit in workload.values() for nodeid, is_done in unit.items() if not is_done
        ]
        if not waiting:
            return None
        unit, crashed = waiting[0]
        unit[crashed] = True
        self.workqueue.update({scope: unit for scope, unit in workload.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed
