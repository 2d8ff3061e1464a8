# SPDX-License-Identifier: Apache-2.0
"""How many passwords a source and a user may have checked, and which ones need no check again.

Why: bcrypt is slow by design and runs in the threads that answer all requests. A client that guesses would keep them
busy, and every other user would wait. So a check is paid for in advance and paid back when the password was right: a
source, or a user, with several wrong passwords in a short time is refused without a check. A password that was right
a moment ago is not checked again, so its user feels nothing of it. Nor is one that was wrong a moment ago, though it is
paid for: of many requests with one password the first is checked, and the others have its answer. A user whose name is
guessed from many addresses still gets in from where the password was right before. Pure but for its lock; called by
:mod:`porthole_api.http_basic`.
"""

import hashlib
import hmac
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from porthole_api.known_sources import KnownSources
from porthole_common.allowance import Allowance, SourceAllowance, find_sources
from porthole_common.recent import Recent

# A user who mistypes tries a few times; so many checks of bcrypt at once (cost 12: 250 ms) leave threads for others.
SOURCE_BURST = 6
SOURCE_REFILL_S = 5.0
# Guesses for one user from many addresses. More than a source has, so that one source alone locks no user out.
USER_BURST = 20
USER_REFILL_S = 3.0
# The longest time for which a password is known to have been right. A change of the file counts at once.
KNOWN_S = 300.0
# How long a wrong password needs no check: as long as requests with it may have waited for the first one's check.
WRONG_S = 5.0
# It guards the memory; the entry that was not used for the longest time goes.
MAX_KNOWN = 1_000


@dataclass(frozen=True)
class Attempt:
    """A password that is to be checked; the fields are keyed hashes, from which nothing can be read.

    ``sources``: of the client's network, and of its site if it has one.
    """

    sources: tuple[bytes, ...]
    user: bytes
    credentials: bytes


class LoginLimits:
    """The limits of one process. Thread-safe; ``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float], at_once: int) -> None:
        """``at_once``: how many passwords are checked at the same time; of one source half as many."""
        self._at_once = at_once
        # By source, or by its site.
        self._checking: Counter[bytes] = Counter()
        self._key = os.urandom(32)
        self._lock = threading.Lock()
        self._sources: SourceAllowance[bytes] = SourceAllowance(clock, SOURCE_BURST, SOURCE_REFILL_S)
        self._users: Allowance[bytes] = Allowance(clock, USER_BURST, USER_REFILL_S)
        self._known_sources = KnownSources(clock)
        self._known: Recent[bytes] = Recent(clock, KNOWN_S, MAX_KNOWN)
        # Apart, so that guesses push no right password out.
        self._wrong: Recent[bytes] = Recent(clock, WRONG_S, MAX_KNOWN)

    def build_attempt(self, address: str, user: str, digest: str, password: bytes) -> Attempt:
        """Return the attempt of a client at ``address``; ``digest`` is the user's line in the file, or empty."""
        name = user.encode("utf-8", "surrogatepass")
        sources = tuple(self._hash(b"source", source.encode()) for source in find_sources(address))
        return Attempt(sources, self._hash(b"user", name), self._hash(b"known", name, digest.encode(), password))

    def is_known(self, attempt: Attempt) -> bool:
        """Return whether this very password of this user was right at most ``KNOWN_S`` ago."""
        with self._lock:
            if not self._known.has(attempt.credentials):
                return False
            self._known.touch(attempt.credentials)
            self._known_sources.add(attempt.user, attempt.sources[0])
            return True

    @contextmanager
    def checking(self, attempt: Attempt) -> Iterator[bool]:
        """Check inside, if the value is true: otherwise as many checks as may be are under way."""
        widest = attempt.sources[-1]
        with self._lock:
            has_place = self._checking.total() < self._at_once
            may_check = has_place and self._checking[widest] < max(1, self._at_once // 2)
            self._checking[widest] += may_check
        try:
            yield may_check
        finally:
            with self._lock:
                self._checking[widest] -= may_check
                self._checking += Counter()

    def begin(self, attempt: Attempt) -> float:
        """Return 0 and note a check, or return in how many seconds the source and the user may have another.

        The user's own bound is not for a source from which the password was right before.
        """
        with self._lock:
            wait_s = self._sources.wait_s(attempt.sources)
            if not self._known_sources.has(attempt.user, attempt.sources[0]):
                wait_s = max(wait_s, self._users.wait_s(attempt.user))
            if wait_s == 0:
                self._sources.add(attempt.sources, 1)
                self._users.add(attempt.user, 1)
            return wait_s

    def note_right(self, attempt: Attempt) -> None:
        """Pay the check back; remember the password for ``KNOWN_S``, and its source for longer."""
        with self._lock:
            self._sources.add(attempt.sources, -1)
            self._users.add(attempt.user, -1)
            self._known_sources.add(attempt.user, attempt.sources[0])
            self._known.add(attempt.credentials)

    def is_wrong(self, attempt: Attempt) -> bool:
        """Return whether this very password of this user was wrong less than ``WRONG_S`` ago."""
        with self._lock:
            return self._wrong.has(attempt.credentials)

    def note_wrong(self, attempt: Attempt) -> None:
        """Remember for ``WRONG_S`` that the password was wrong; the check stays paid."""
        with self._lock:
            self._wrong.add(attempt.credentials)

    def _hash(self, *parts: bytes) -> bytes:
        """Return a keyed hash of ``parts``; their lengths count too, so that no two lists of parts are alike."""
        text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, text, hashlib.sha256)
