# SPDX-License-Identifier: Apache-2.0
"""The doors of the proxy: one row for each port that clients connect to.

Why one table: the listener, the daemon with its options, the access decision and the relay all go by a door's row. A
new door is a new row, with its options in the module of its ``group`` below :mod:`porthole_common.conf`.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass

from porthole_common.model import ConsoleType
from porthole_relay.codec import Codec, RawCodec, WebSocketCodec


class ClientProtocol(enum.Enum):
    """How the clients of a door ask for a console."""

    WEBSOCKET = "an upgrade to a WebSocket, and pages beside it"
    CONNECT = "CONNECT"


@dataclass(frozen=True)
class Door:
    """One port.

    ``name``: in the log. ``host_option`` and ``port_option`` of ``[<group>]`` say where the door listens; ``switch`` is
    the option of the same group that opens the door, None for a door that is always open.
    ``console_types``: tokens of these types open a console here. ``client_protocol``: how clients ask for it.
    ``build_codec``: what surrounds the console's bytes on the client's side. ``server_speaks_first``: a server that
    says nothing is taken for dead, and the client is told so in time. ``server_speaks_rfb``: it is a VNC server, and
    ``[vnc] auth_schemes`` says how the connection to it is secured.
    """

    name: str
    group: str
    host_option: str
    port_option: str
    switch: str | None
    console_types: tuple[ConsoleType, ...]
    client_protocol: ClientProtocol
    build_codec: Callable[[], Codec]
    server_speaks_first: bool
    server_speaks_rfb: bool

    @property
    def is_for_browsers(self) -> bool:
        """Whether browsers come here: then Host and Origin count."""
        return self.client_protocol is ClientProtocol.WEBSOCKET

    @property
    def type_names(self) -> str:
        """The console types, for the log."""
        return ", ".join(self.console_types)


NOVNC = Door(
    name="novnc",
    group="vnc",
    host_option="novncproxy_host",
    port_option="novncproxy_port",
    switch=None,
    console_types=(ConsoleType.NOVNC,),
    client_protocol=ClientProtocol.WEBSOCKET,
    build_codec=WebSocketCodec,
    # RFC 6143 section 7.1.1.
    server_speaks_first=True,
    server_speaks_rfb=True,
)
XVPVNC = Door(
    name="xvpvnc",
    group="vnc",
    host_option="xvpvncproxy_host",
    port_option="xvpvncproxy_port",
    switch="xvpvncproxy_enabled",
    console_types=(ConsoleType.XVPVNC,),
    client_protocol=ClientProtocol.CONNECT,
    build_codec=RawCodec,
    server_speaks_first=True,
    server_speaks_rfb=True,
)
DOORS = (NOVNC, XVPVNC)
_DOOR_OF_TYPE = {console_type: door.name for door in DOORS for console_type in door.console_types}


def find_door(console_type: ConsoleType) -> str:
    """Return the name of the door of a console that is open."""
    return _DOOR_OF_TYPE[console_type]
