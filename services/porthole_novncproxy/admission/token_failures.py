# SPDX-License-Identifier: Apache-2.0
"""Sources whose tokens are not valid, again and again, are refused for a time without a question to a daemon.

Why: a token that nobody knows costs a call over the bus, and the threads for that are few. A client that guesses, or a
page that tries an expired link for ever, would hold up everybody's consoles (S42). So each failure counts against its
source, and the count decays. A token that was valid a moment ago is asked about all the same: a user behind the
attacker's address may reload a console. Another token from that address has the turns that the decay gives back.
Thread-safe; called by :mod:`porthole_novncproxy.admission.gate`.
"""

import hashlib
import threading
from collections.abc import Callable

from porthole_common import errors
from porthole_common.allowance import Allowance, SourceAllowance, find_sources
from porthole_common.log import get_logger
from porthole_common.recent import Recent

LOG = get_logger(__name__)
# A user has some tabs with old links, and a page asks twice: for the console, and for the reason. An office behind one
# address has several such users. For consoleauth, so many questions are the work of a tenth of a second.
BURST = 60
REFILL_S = 1.0
# A page that reconnects has the token that has just opened its console. It guards the memory: the first entry goes.
KNOWN_S = 600.0
# A source that goes on has one question a second, so that it is refused anew each second: it must not fill the log.
LOG_PAUSE_S = 60.0
MAX_KNOWN = 10_000


class TokenFailures:
    """What one process remembers. ``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._sources: SourceAllowance[str] = SourceAllowance(clock, BURST, REFILL_S)
        self._log_lines: Allowance[str] = Allowance(clock, 1, LOG_PAUSE_S)
        # The hashes of tokens that were valid.
        self._known: Recent[bytes] = Recent(clock, KNOWN_S, MAX_KNOWN)

    def check(self, source: str, token: str | None) -> None:
        """Refuse a token of a source that has failed too often.

        :raises TokensRefused: when the source must wait, and the token was not valid a moment ago.
        """
        with self._lock:
            wait_s = self._sources.wait_s(find_sources(source))
            if wait_s > 0 and not (token and self._known.has(_hash(token))):
                raise errors.TokensRefused(wait_s)

    def note_failure(self, source: str, token: str) -> None:
        """Count a token that is malformed or unknown."""
        networks = find_sources(source)
        # The widest: the networks of a site must not fill the log with a line each.
        widest = networks[-1]
        with self._lock:
            self._known.discard(_hash(token))
            self._sources.add(networks, 1)
            is_news = self._sources.wait_s(networks) > 0 and self._log_lines.wait_s(widest) == 0
            if is_news:
                self._log_lines.add(widest, 1)
        if is_news:
            LOG.warning("Tokens refused", client=source, count=BURST)

    def note_valid(self, token: str) -> None:
        """Remember a token that consoleauth has accepted."""
        with self._lock:
            self._known.add(_hash(token))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
