# SPDX-License-Identifier: Apache-2.0
"""What the ``porthole`` command can say went wrong: one line each, for a terminal.

Why: cliff prints ``str()`` of whatever a command raises and exits with 1, so the text is made here. Raised by
:mod:`porthole_cli.cloud` and :mod:`porthole_cli.client`.
"""

from dataclasses import dataclass

from porthole_common.errors import NotFound, PortholeError, Refused, Unavailable


@dataclass(eq=False)
class CloudInvalid(Refused):
    """The options, variables or clouds.yaml do not say which cloud, or how to log in to it."""

    reason: str

    def __str__(self) -> str:
        return " ".join(self.reason.split())


@dataclass(eq=False)
class ApiUnavailable(Unavailable):
    """The API, or Keystone before it, does not answer; ``reason`` names its URL."""

    reason: str

    def __str__(self) -> str:
        return " ".join(self.reason.split())


@dataclass(eq=False)
class ApiRefused(PortholeError):
    """The API answered ``status`` (an HTTP status) with ``message``."""

    status: int
    message: str

    def __str__(self) -> str:
        return f"{self.message} (HTTP {self.status})"


@dataclass(eq=False)
class AnswerInvalid(PortholeError):
    """What answers at ``url`` is not the compute API."""

    url: str

    def __str__(self) -> str:
        return f"What answers at {self.url} is not a compute API."


@dataclass(eq=False)
class ServerNotFound(NotFound):
    """No server has ``name_or_id``."""

    name_or_id: str

    def __str__(self) -> str:
        return f"No server with a name or ID of '{self.name_or_id}' exists."


@dataclass(eq=False)
class ServerAmbiguous(Refused):
    """Several servers have ``name``; ``ids`` are theirs."""

    name: str
    ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.ids)} servers are named '{self.name}'; give one of their IDs: {', '.join(self.ids)}"
