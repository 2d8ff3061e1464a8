# SPDX-License-Identifier: Apache-2.0
"""What stands in consoleauth in the place of the history where ``[history] enabled`` is false.

Why: without it, each use of the history would ask whether there is one. Called by :mod:`porthole_consoleauth.main` and
:mod:`porthole_consoleauth.endpoint`.
"""

from collections.abc import Sequence

from porthole_common import errors
from porthole_common.diagnosis import HistoryState
from porthole_common.history.event import HistoryEvent
from porthole_consoleauth.history.endpoint import HistoryEndpoint
from porthole_consoleauth.history.reading import Filters


class NoHistory:
    """Has the methods of :class:`porthole_consoleauth.history.service.HistoryService`, and of its store."""

    def __init__(self) -> None:
        self.endpoint = HistoryEndpoint(self, self.record)

    def find_events(self, filters: Filters, limit: int, marker: str | None) -> tuple[list[HistoryEvent], bool]:
        """Refuse.

        :raises HistoryUnavailable: always.
        """
        raise errors.HistoryUnavailable("it is switched off ([history] enabled)")

    def record(self, events: Sequence[HistoryEvent]) -> None:
        """Forget the events: a proxy need not keep them."""

    def report(self, event: HistoryEvent) -> None:
        """Forget the event."""

    def describe(self) -> tuple[str, str, float]:
        """Say that it is switched off."""
        return HistoryState.OFF, "", 0.0

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""
