# SPDX-License-Identifier: Apache-2.0
"""The last snapshot of one host, and whether the host still answers. Called by :mod:`porthole_api.directory`."""

from dataclasses import dataclass

from porthole_common import errors
from porthole_common.model import Instance

# Three snapshots of a compute, which publishes one every 30 s.
SILENT_AFTER_S = 90.0


@dataclass(frozen=True)
class Snapshot:
    """What ``host`` has published; ``seen_at_s`` is the monotonic clock, ``number`` counts all snapshots."""

    host: str
    instances: dict[str, Instance]
    hypervisor_up: bool
    seen_at_s: float
    number: int

    def is_silent(self, now_s: float) -> bool:
        """Whether the host has published nothing for too long."""
        return now_s - self.seen_at_s > SILENT_AFTER_S

    def find_fault(self, now_s: float) -> errors.Unavailable | None:
        """Return why no console of the host can be opened now; None when the host answers."""
        if self.is_silent(now_s):
            return errors.HostUnavailable(self.host)
        return None if self.hypervisor_up else errors.HypervisorUnavailable(self.host)
