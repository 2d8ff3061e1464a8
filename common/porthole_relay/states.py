# SPDX-License-Identifier: Apache-2.0
"""The states of a session: what each reads, what it writes, and what ends it.

==========  ======================  ========================  ==========================  ===========================
state       reads the VNC server    reads the client          writes                      ends
==========  ======================  ========================  ==========================  ===========================
HANDSHAKE   exactly the bytes that  unless the VNC server     the handshake's messages,   with the handshake: OPEN;
            the handshake asks for  must answer first         to both                     at its deadline, by a breach
                                                                                          of RFB, or with either side
OPEN        while the client takes  while the VNC server      each side's bytes to the    with the VNC server: GRACE,
            its bytes               takes its bytes           other, pings and pongs      or CLOSING; with the client's
                                                                                          close frame: ANSWERING; with
                                                                                          both streams of a native
                                                                                          viewer: ENDED
GRACE       no: its stream is over  as OPEN                   as OPEN                     by a revocation or a deadline:
            or broken; the reason                                                         CLOSING; with another VNC
            may still come                                                                server: OPEN
CLOSING     no: it is closed        for its close frame only  the bytes held for the      with the client's close frame,
                                                              client, then a close frame  its end, or at a deadline
ANSWERING   no: it is closed        for its end only          the bytes held for the      when all is written, or as
                                                              client, then the answer     CLOSING
                                                              to its close frame
REJECTING   no: it is closed        for its end only          as CLOSING                  with the client's end, or at
                                                                                          a deadline
ENDED       no                      no                        nothing                     never: both are closed
==========  ======================  ========================  ==========================  ===========================

REJECTING follows a breach of a protocol by the client: the rest of its bytes has no meaning. Only HANDSHAKE, OPEN and
GRACE have a VNC server, and from each of them :meth:`porthole_relay.session.Session.close` leads to CLOSING. In these
three the session asks whether it must end, before bytes of the client go on to the VNC server; if so, they are dropped,
and it is CLOSING. From each state a broken connection of the client leads to ENDED.
"""

from enum import Enum


class State(Enum):
    """A state: its name, whether its two sides are connected, and whether the client's bytes are decoded."""

    HANDSHAKE = ("handshake", True, True, True)
    OPEN = ("open", True, True, True)
    GRACE = ("grace", True, True, True)
    CLOSING = ("closing", False, True, True)
    ANSWERING = ("answering", False, True, False)
    REJECTING = ("rejecting", False, True, False)
    ENDED = ("ended", False, False, False)

    def __init__(self, label: str, has_server: bool, has_client: bool, hears_client: bool) -> None:
        self.label = label
        self.has_server = has_server
        self.has_client = has_client
        self.hears_client = hears_client
