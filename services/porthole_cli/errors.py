# SPDX-License-Identifier: Apache-2.0
"""The errors of the ``porthole`` command: one line each, for a terminal.

Why: cliff prints ``str()`` of a command's exception and exits with 1, so the text is made here. Raised by
:mod:`porthole_cli.cloud`, :mod:`porthole_cli.client` and :mod:`porthole_cli.failures`.
"""

import re
from dataclasses import dataclass

from porthole_common.errors import NotFound, PortholeError, Refused, Unavailable


@dataclass(eq=False)
class CloudInvalid(Refused):
    """The options, variables or clouds.yaml do not say which cloud to use, or how to log in to it."""

    reason: str

    def __str__(self) -> str:
        return " ".join(self.reason.split())


@dataclass(eq=False)
class ApiUnavailable(Unavailable):
    """The API, or Keystone, does not answer; ``reason`` names its URL."""

    reason: str

    def __str__(self) -> str:
        return " ".join(self.reason.split())


@dataclass(eq=False)
class ApiRefused(PortholeError):
    """The API answered ``status`` (an HTTP status) with ``message``."""

    status: int
    message: str

    def __str__(self) -> str:
        # keystoneauth, and some servers, have written the status into the message.
        message = re.sub(rf"\s*\(HTTP {self.status}\)", "", self.message)
        return f"{message} (HTTP {self.status})"

    def about(self, server_id: str, typed: str) -> "ApiRefused":
        """Return the same refusal for a user who called the server ``typed``."""
        if server_id in self.message:
            named = typed if typed.lower() == server_id else f"'{typed}'"
            return ApiRefused(self.status, self.message.replace(server_id, named))
        return ApiRefused(self.status, f"{typed}: {self.message}")


@dataclass(eq=False)
class AnswerInvalid(PortholeError):
    """The server at ``url`` is not ``service``; ``status`` is the HTTP status of an answer with an error.

    ``hint`` is a sentence that says where the service may be.
    """

    url: str
    status: int | None
    hint: str
    service: str = "compute API"

    def __str__(self) -> str:
        status = f" (HTTP {self.status})" if self.status else ""
        return f"There is no {self.service} at {self.url}{status}. {self.hint}"


@dataclass(eq=False)
class OutputFailed(Unavailable):
    """Standard output cannot be written: it is closed, or its file system is full."""

    reason: str

    def __str__(self) -> str:
        return f"The output cannot be written: {self.reason}."


@dataclass(eq=False)
class ServerNotFound(NotFound):
    """No server has ``name_or_id``."""

    name_or_id: str

    def __str__(self) -> str:
        return f"No server with a name or ID of '{self.name_or_id}' exists."


@dataclass(eq=False)
class ServerAmbiguous(Refused):
    """Several servers have ``name``; ``ids`` are their IDs."""

    name: str
    ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.ids)} servers are named '{self.name}'; give one of their IDs: {', '.join(self.ids)}"
