# SPDX-License-Identifier: Apache-2.0
"""The one error tree of Porthole.

Why: an error keeps its type and its fields from the compute host to the user's terminal. It says what happened, and
has no HTTP status: the api and the proxy each map the tree once (``porthole_api/faults.py``,
``porthole_novncproxy/admission/access.py``). Used by every module; imports no other module of the project, and no
library.

oslo.messaging rebuilds a remote error as ``klass(*args, **kwargs)``. Every leaf is therefore a dataclass
whose fields are its positional arguments, in order; :class:`PortholeError` copies them into ``args``.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self


@dataclass(eq=False)
class PortholeError(Exception):
    """Root of the tree: every failure that Porthole has a type for.

    ``words`` is the text for people, in which a field's name in braces stands for its value.
    """

    words: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__init__(*self.values())

    def __str__(self) -> str:
        return self.words.format_map(vars(self))

    def values(self) -> tuple[Any, ...]:
        """Return the fields in positional order: what a remote side needs to rebuild the error."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def local(self) -> Self | "PortholeError":
        """Return a fresh error of the declared class with the same fields.

        oslo.messaging swaps the class of a remote error for one whose ``str()`` has the far side's
        traceback; a user must never see that text.
        """
        declared = next(cls for cls in type(self).__mro__ if cls.__module__ == __name__)
        rebuilt: PortholeError = declared(*self.values())
        return rebuilt

    def to_primitive(self) -> dict[str, Any]:
        """Return ``{error: name of the class, fields: [...]}``, for an answer in which an error is one of several."""
        return {"error": type(self.local()).__name__, "fields": list(self.values())}


def from_primitive(value: dict[str, Any]) -> PortholeError:
    """Build the error from ``PortholeError.to_primitive``'s dictionary; further fields of a newer version are ignored.

    :raises ValueError: when there is no such error, or its fields are missing.
    """
    declared, given = globals().get(str(value["error"])), value["fields"]
    if not isinstance(declared, type) or not issubclass(declared, PortholeError):
        raise ValueError("the error is not known")
    names = [field.name for field in fields(declared)]
    if len(given) < len(names):
        raise ValueError("a field of the error is missing")
    return declared(*given[: len(names)])


class NotFound(PortholeError):
    """The named thing does not exist, or not for this user."""


class Refused(PortholeError):
    """The request is understood, and is not carried out in this form."""


class Conflict(PortholeError):
    """The thing exists, but its present state does not allow the request."""


class Unavailable(PortholeError):
    """A service that Porthole depends on does not answer; the same request may succeed later."""


class ProtocolError(PortholeError):
    """The other side of a connection broke the protocol it speaks."""


@dataclass(eq=False)
class ConfigInvalid(PortholeError):
    """The daemon cannot start with the value of an option; ``option`` is written ``[group] name``."""

    option: str
    reason: str
    words = "{option}: {reason}"


@dataclass(eq=False)
class InstanceNotFound(NotFound):
    """No such instance on this host, or in the directory."""

    instance_uuid: str
    words = "Instance {instance_uuid} could not be found."


@dataclass(eq=False)
class SessionNotFound(NotFound):
    """No such console session is open, or not in this user's project."""

    session_id: str
    words = "Session {session_id} could not be found."


@dataclass(eq=False)
class ConsoleTokenNotFound(NotFound):
    """An administrator asked for a token that opens nothing. The error does not contain the token."""

    words = "Token not found."


@dataclass(eq=False)
class TokenInvalid(Refused):
    """The token opens nothing. ``reason`` is one of :class:`porthole_common.model.TokenReason`."""

    reason: str
    words = "The console token is not valid: {reason}."


@dataclass(eq=False)
class ConsoleTypeInvalid(Refused):
    """The console type is not one that Porthole knows."""

    console_type: str
    words = "Invalid console type {console_type}."


@dataclass(eq=False)
class ConsoleTypeUnavailable(Refused):
    """The console type is known, and this instance does not offer it."""

    console_type: str
    words = "Unavailable console type {console_type}."


@dataclass(eq=False)
class InstanceNotReady(Conflict):
    """The instance is building, migrating or being deleted."""

    instance_uuid: str
    state: str
    words = "Instance {instance_uuid} is not ready: it is {state}."


@dataclass(eq=False)
class InstanceNotRunning(Conflict):
    """The instance has no screen now: it is stopped or crashed."""

    instance_uuid: str
    state: str
    words = "Instance {instance_uuid} is not running: it is {state}."


@dataclass(eq=False)
class AddressUnavailable(Unavailable):
    """A daemon cannot listen now: the address is in use, or not this machine's yet. ``option`` is ``[group] name``."""

    option: str
    reason: str
    words = "{option}: {reason}"


@dataclass(eq=False)
class HypervisorUnavailable(Unavailable):
    """The compute daemon of ``host`` cannot reach its hypervisor."""

    host: str
    words = "The hypervisor of host {host} does not answer."


@dataclass(eq=False)
class HostUnavailable(Unavailable):
    """The compute daemon of ``host`` has been silent for too long."""

    host: str
    words = "Host {host} does not answer."


@dataclass(eq=False)
class TokenStoreUnavailable(Unavailable):
    """The token store is down, slow or full. After a write it is not known whether the store has done it."""

    reason: str
    words = "The console token store does not answer: {reason}."


@dataclass(eq=False)
class HistoryUnavailable(Unavailable):
    """The history of consoles cannot be read or written now; ``reason`` says why."""

    reason: str
    words = "The history of consoles is not available: {reason}."


@dataclass(eq=False)
class RpcUnavailable(Unavailable):
    """No answer to an RPC within its deadline, or no broker to carry it; ``topic`` is that of the call."""

    topic: str
    method: str
    words = "No answer from {topic} to {method} within the deadline."


@dataclass(eq=False)
class RemoteFailure(Unavailable):
    """The far side of an RPC met an error that is not of this tree; its log has the trace."""

    topic: str
    method: str
    words = "{topic} failed to carry out {method}."


@dataclass(eq=False)
class DescriptorsExhausted(Unavailable):
    """The proxy, or its machine, has no descriptor left to dial with. This says nothing about the VNC server."""

    words = "Too many open files: raise LimitNOFILE of the proxy, or lower [novncproxy] max_sessions."


@dataclass(eq=False)
class VncServerError(Unavailable):
    """Root of what may go wrong with the VNC server at ``host:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        # RFC 3986 section 3.2.2: an IPv6 address has brackets.
        address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return self.words.format(address=address)


@dataclass(eq=False)
class VncServerUnavailable(VncServerError):
    """The VNC server refused, reset or ended the connection before its first byte."""

    words = "The VNC server at {address} does not take connections."


@dataclass(eq=False)
class VncServerTimeout(VncServerError):
    """The VNC server, or the way to it, was silent until the deadline."""

    words = "The VNC server at {address} did not answer in time."


@dataclass(eq=False)
class VncServerSilent(VncServerError):
    """The VNC server did not answer to another client a moment ago, so it was not dialled."""

    words = "The VNC server at {address} was silent lately, and was not dialled again."


@dataclass(eq=False)
class VncSecurityUnsuitable(Unavailable):
    """The VNC server offers no security that ``[vnc] auth_schemes`` allows, or its certificate is not valid."""

    server: str
    reason: str
    words = "The VNC server at {server} offers no acceptable security: {reason}."


@dataclass(eq=False)
class OriginRefused(Refused):
    """A browser page of another site asked for the console (RFC 6455 section 10.2)."""

    reason: str
    words = "The Origin of the request is refused: {reason}."


@dataclass(eq=False)
class RequestInvalid(Refused):
    """The request is malformed; ``reason`` says where, for the client that sent it."""

    reason: str
    words = "{reason}"


@dataclass(eq=False)
class PolicyForbidden(Refused):
    """The user may not do this; ``action`` is the policy rule that forbids it."""

    action: str
    words = "Policy doesn't allow {action} to be performed."


@dataclass(eq=False)
class IdentityUnavailable(Unavailable):
    """The user cannot be identified now, since ``service`` does not answer."""

    service: str
    words = "{service} does not answer, so no user can be authenticated."


@dataclass(eq=False)
class LimitReached(Refused):
    """A limit of the proxy is reached; ``limit`` is its option."""

    limit: str
    words = "The limit {limit} is reached."


@dataclass(eq=False)
class TokensRefused(Refused):
    """Too many tokens from one source were not valid; ``wait_s``: when its next token is looked at, in seconds."""

    wait_s: float
    words = "Too many tokens from this address were not valid; it must wait for {wait_s} s."


@dataclass(eq=False)
class RateReached(Refused):
    """The user has asked too often in a short time. ``limit`` is the option; the next try may succeed in ``wait_s``."""

    limit: str
    wait_s: int
    words = "There were too many requests in a short time ({limit}). Try again in {wait_s} s."


@dataclass(eq=False)
class FrameInvalid(ProtocolError):
    """A WebSocket peer broke RFC 6455; ``code`` is the close code for it (1002 or 1009)."""

    code: int
    reason: str
    words = "WebSocket protocol error {code}: {reason}."


@dataclass(eq=False)
class RfbInvalid(ProtocolError):
    """A VNC server or a viewer broke RFC 6143 or VeNCrypt; ``peer`` is which of them, or its address."""

    peer: str
    reason: str
    words = "{peer} broke the RFB protocol: {reason}."
