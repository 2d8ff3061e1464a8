# SPDX-License-Identifier: Apache-2.0
"""The events that are not delivered yet: a bounded queue in memory, with a copy in a file for the next process.

Why a copy and not a queue on the disk: a disk that is full, read-only or slow then costs the copy, and no event while
the process lives. The file is read by one that comes later: each process has a file of its own, which it holds locked
(flock(2)), and takes over the files that no process holds any more.

A line of the file is ``<CRC-32 of the rest, 8 hexadecimal digits> <JSON of an event>``; a line that is torn or damaged
is counted and skipped. Lines go to the kernel at once, and are not synced (fsync(2)), so that no console waits for the
disk: nothing is lost when a process ends, and up to half a minute of undelivered events when the host loses power. Used
by one thread, that of :mod:`porthole_common.history.reporter`.
"""

import collections
import contextlib
import fcntl
import itertools
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from oslo_config import cfg

from porthole_common.log import get_logger

LOG = get_logger(__name__)
# The share that only ends of sessions may use: without its end, a session would be shown as open for ever.
_RESERVED_FOR_ENDS = 0.25
# How long a file that cannot be written is left alone.
_RETRY_S = 10.0
_SUFFIX = ".spool"
# Below [DEFAULT] state_path; the processes of all daemons of a host share it.
_FOLDER = "spool"


class Spool:
    """Lines without line ends, oldest first; at most ``max_bytes`` of them."""

    def __init__(
        self, directory: Path, owner: str, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare; nothing is read or written before :meth:`open`.

        The files of ``owner``, a daemon's name, are in ``directory``.
        """
        self._directory = directory
        self._owner = owner
        self._max_bytes = max_bytes
        self._clock = clock
        self._path = directory / f"{owner}-{uuid.uuid4().hex}{_SUFFIX}"
        self._lines: collections.deque[bytes] = collections.deque()
        self._file: int | None = None
        self._file_bytes = 0
        self._retry_at = 0.0
        self._is_broken = False
        self.size_bytes = 0

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self._lines)

    @property
    def fill(self) -> float:
        """How full it is: 0 to 1."""
        return self.size_bytes / self._max_bytes

    def open(self) -> int:
        """Take over what processes that ended have left, oldest file first; return how many lines that were."""
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            # A ".new" file is left where a process was killed before it had renamed its first one.
            found = sorted(self._directory.glob(f"{self._owner}-*.*"), key=lambda path: path.stat().st_mtime)
        except OSError as exc:
            self._report_broken(exc)
            return 0
        for path in found:
            self._take_over(path)
        return len(self._lines)

    def append(self, lines: Iterable[tuple[bytes, bool]]) -> int:
        """Keep further lines, each with whether it is the end of a session; return how many found no room.

        The newest find no room: what came first explains what came next, and the loss is one gap at the end.
        """
        kept, refused = [], 0
        for line, is_end in lines:
            limit = self._max_bytes if is_end else self._max_bytes * (1 - _RESERVED_FOR_ENDS)
            if self.size_bytes + len(line) > limit:
                refused += 1
                continue
            self._lines.append(line)
            self.size_bytes += len(line)
            kept.append(line)
        self._write(kept)
        return refused

    def first(self, count: int) -> list[bytes]:
        """Return the first lines, ``count`` at most."""
        return list(itertools.islice(self._lines, count))

    def drop(self, count: int) -> None:
        """Forget the first ``count`` lines: they are delivered."""
        for _ in range(count):
            self.size_bytes -= len(self._lines.popleft())
        if self._file is None:
            return
        try:
            if not self._lines:
                os.ftruncate(self._file, 0)
                self._file_bytes = 0
            elif self._file_bytes > 2 * self._max_bytes:
                self._rewrite()
        except OSError as exc:
            self._report_broken(exc)

    def close(self) -> None:
        """Leave the file to the next process; an empty one is removed."""
        if self._file is None:
            return
        if not self._lines:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._file)
        self._file = None

    def _write(self, lines: list[bytes]) -> None:
        if not lines or (self._file is None and self._clock() < self._retry_at):
            return
        try:
            if self._file is None:
                self._rewrite()
            else:
                self._write_all(self._file, lines)
        except OSError as exc:
            self._report_broken(exc)
        else:
            if self._is_broken:
                LOG.warning("History spool usable again", file=self._path)
            self._is_broken = False

    def _rewrite(self) -> None:
        """Write all lines to a new file, and put it in the place of the old one in one step."""
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        new_path = self._path.with_suffix(".new")
        new = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file_bytes = 0
            self._write_all(new, self._lines)
            new_path.replace(self._path)
        except BaseException:
            os.close(new)
            with contextlib.suppress(OSError):
                new_path.unlink()
            raise
        if self._file is not None:
            os.close(self._file)
        self._file = new

    def _write_all(self, file: int, lines: Iterable[bytes]) -> None:
        data = memoryview(b"".join(map(_frame, lines)))
        while data:
            written = os.write(file, data)
            self._file_bytes += written
            data = data[written:]

    def _take_over(self, path: Path) -> None:
        """Move the lines of a file that no process holds to this process's file, and remove it."""
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                raw = file.read(2 * self._max_bytes + 1)
                framed = list(filter(None, raw.split(b"\n")))
                lines = [line for line in map(_unframe, framed) if line is not None]
                damaged = len(framed) - len(lines)
                refused = self.append((line, True) for line in lines)
                if self._file is not None or not lines:
                    path.unlink()
        except BlockingIOError:
            return
        except OSError as exc:
            LOG.warning("History spool not taken over", file=path, reason=exc.strerror)
            return
        LOG.info("History spool taken over", file=path, events=len(lines) - refused)
        if damaged or refused:
            LOG.error("History spool damaged; events lost", file=path, events=damaged + refused)

    def _report_broken(self, exc: OSError) -> None:
        """Go on in memory. What stands in the file stays there: it may be delivered twice, and is stored once."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._retry_at = self._clock() + _RETRY_S
        if not self._is_broken:
            LOG.error("History spool not writable; events are in memory alone", file=self._path, reason=exc.strerror)
        self._is_broken = True


def _frame(line: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(line), line)


def _unframe(framed: bytes) -> bytes | None:
    """Return the line, or None when it is torn or damaged."""
    check, _, line = framed.partition(b" ")
    return line if line and check == b"%08x" % zlib.crc32(line) else None


def build_spool(conf: cfg.ConfigOpts, owner: str) -> Spool:
    """Return the spool of this process of the daemon ``owner``."""
    return Spool(Path(conf.state_path) / _FOLDER, owner, conf.history.spool_size * 1024 * 1024)
