# SPDX-License-Identifier: Apache-2.0
"""The side of the proxy that clients see: it reads requests and sends answers, and never blocks the event loop.

The path of a request through its parts:

- ``listener`` accepts connections and reads requests; ``request`` is the parser; ``connection`` has the types that say
  who owns a connection. ``turns`` is the order among clients; ``tls_handshakes`` makes the steps of
  handshakes in a thread. ``waiting`` bounds the connections that are not admitted, and says which of them ends.
- ``handler`` answers browsers: with a page (``pages``), a reason, or the upgrade to a console (``upgrade``, by
  websockify). ``connect`` answers native viewers.
- ``in_flight`` runs the answers that may block in threads, and answers clients in time when a thread is late.
- ``responses`` has the answers as values; ``sender`` sends them.
"""
