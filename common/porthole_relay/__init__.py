# SPDX-License-Identifier: Apache-2.0
"""The relay as a library: sockets in, bytes across, an outcome out.

It reads no configuration, makes no RPC call and takes no access decision. So the proxy uses it today, and a gateway
on the computes can. The parts, along the way of a byte from the VNC server to the client:

* :mod:`loop` is one thread with one epoll for all connections. It calls back when a descriptor is ready.
* :mod:`stream` is one connection, plain or TLS (:mod:`tls` has the contexts): reads and writes that never block.
  :mod:`tls_socket` is TLS on a socket, with an end to the work of each call.
* :mod:`stream_pair` has the two streams of a session. It reads one side when the other side takes its bytes.
* :mod:`pipe` is one direction: the bytes that are held, the watermarks, and an optional interceptor.
* :mod:`codec` puts frames around the bytes for a browser (:mod:`frames`, RFC 6455), or none for a native viewer.

Above them :mod:`session` decides: its :mod:`states`, its deadlines, its close code. :mod:`viewer_handshake` is the
state in which the proxy does RFB's security handshake with the viewer. :mod:`liveness` says when a ping or the end is
due, and :mod:`subject` what the log says of the session.
"""
