# SPDX-License-Identifier: Apache-2.0
"""The security handshake of RFB (RFC 6143 section 7.1) with both sides, without I/O.

Why: with ``[vnc] auth_schemes = vencrypt`` the proxy encrypts and authenticates its connection to the VNC server, which
no browser can do. It goes through the handshake twice: with the VNC server as its viewer, and with the viewer as its
VNC server. The bytes behind the handshake are opaque.

* :mod:`messages` has the numbers and the messages of RFC 6143 and VeNCrypt. Each length is checked before the bytes
  that it announces are read.
* :mod:`negotiation` is the handshake with the VNC server; it ends in an :class:`~negotiation.Offer`.
* :mod:`viewer_handshake` is the handshake with the viewer, which gets that offer.
* :mod:`handshake` has the steps of a handshake and runs either: bytes in, bytes out, cut anywhere.

* :mod:`stream_filter` changes one direction of a stream whose bytes are looked at, and :mod:`opening` follows a
  client's handshake in it.

A handshake is a generator: it yields the step that it wants done, and is sent the bytes that it asked for. Called by
:mod:`porthole_novncproxy.admission.vencrypt` (a socket and a deadline) and :mod:`porthole_relay.viewer_handshake` (the
event loop).
"""
