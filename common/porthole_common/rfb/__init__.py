# SPDX-License-Identifier: Apache-2.0
"""The opening of an RFB connection (RFC 6143 section 7.1), spoken to both sides, without I/O.

Why: with ``[vnc] auth_schemes = vencrypt`` the proxy encrypts and authenticates its leg to the VNC server, which no
browser can do; so it goes through the security handshake twice: with the VNC server as its viewer, and with the viewer
as its VNC server. What comes behind is nobody's business but theirs.

* :mod:`messages` has the numbers and the messages of RFC 6143 and VeNCrypt, each length capped before it is read.
* :mod:`negotiation` is the talk with the VNC server; it ends in an :class:`~negotiation.Offer`.
* :mod:`presentation` is the talk with the viewer, which is offered that.
* :mod:`conversation` runs either: bytes in, bytes out, cut anywhere.

A talk is a generator: it yields what it wants done, and is sent the bytes it wanted read. Called by
:mod:`porthole_novncproxy.admission.vencrypt` (a socket and a deadline) and :mod:`porthole_relay.session` (the
event loop).
"""
