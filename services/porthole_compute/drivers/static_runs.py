# SPDX-License-Identifier: Apache-2.0
"""The runs of the static driver's entries, and the file that keeps them over a restart of the daemon.

Why: nobody starts or stops the VNC server of an entry that Porthole could ask. So a run of an entry begins when the
entry appears, and ends when the entry is taken out or gets another address. The same entry put back is another run,
also when the daemon was restarted in between: it read the file without the entry, and forgot its run. The name of a run
is random, since a hash of the entry would be the same again.

The file is ``{uuid: {"run": text, "address": "host:port"}}`` in JSON. Without it, or when it cannot be read, every
entry begins a new run. Called by :mod:`porthole_compute.drivers.static`.
"""

import contextlib
import json
import os
import uuid as uuidlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from porthole_common.log import get_logger
from porthole_common.model import Target

LOG = get_logger(__name__)
# A guard against a wrong file: 100 000 entries take some 15 MiB.
MAX_FILE_BYTES = 32 * 1024 * 1024
_MAX_RUN_CHARS = 64


def find_file(directory: str, host: str) -> Path | None:
    """Return the file of the compute named ``host`` in ``directory``; None when that is empty."""
    return Path(directory) / f"static_runs_{quote(host, safe='')}.json" if directory else None


class StaticRuns:
    """The run and the address of each entry. One thread calls it."""

    def __init__(self, path: Path | None) -> None:
        """Prepare; with None as ``path`` the runs are kept in memory alone."""
        self._path = path
        # (run, address) by UUID; None until the file is read.
        self._runs: dict[str, tuple[str, str]] | None = None

    def update(self, targets: Mapping[str, Target]) -> dict[str, str]:
        """Take ``targets`` for the entries of now; return the run of each, and have them kept."""
        before = self._read() if self._runs is None else self._runs
        self._runs = {}
        for uuid, target in targets.items():
            run, address = before.get(uuid, ("", ""))
            self._runs[uuid] = (run if address == str(target) else str(uuidlib.uuid4())), str(target)
        if self._runs != before:
            self._write(self._runs)
        return {uuid: run for uuid, (run, _address) in self._runs.items()}

    def _read(self) -> dict[str, tuple[str, str]]:
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
            return {uuid: _parse(value) for uuid, value in json.loads(data).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            LOG.warning("Runs not read; open consoles of static instances end", file=self._path, reason=exc)
            return {}

    def _write(self, runs: Mapping[str, tuple[str, str]]) -> None:
        """Replace the file as a whole, so that a crash leaves the old one or the new one."""
        if self._path is None:
            return
        draft = self._path.with_name(f"{self._path.name}.new")
        value = {uuid: {"run": run, "address": address} for uuid, (run, address) in runs.items()}
        try:
            with open(draft, "w", encoding="ascii", opener=_open_private) as file:
                json.dump(value, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as exc:
            LOG.warning("Runs not kept; the next start ends open consoles", file=self._path, reason=exc.strerror)
            # An old file would bring runs back that are over.
            with contextlib.suppress(OSError):
                self._path.unlink()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _parse(value: Any) -> tuple[str, str]:
    run, address = value["run"], value["address"]
    if not isinstance(run, str) or not 0 < len(run) <= _MAX_RUN_CHARS or not isinstance(address, str):
        raise ValueError("a run or an address is not text")
    return run, address
