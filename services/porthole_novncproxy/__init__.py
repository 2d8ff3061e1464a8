# SPDX-License-Identifier: Apache-2.0
"""porthole-novncproxy: lets browsers and native viewers in, and relays between them and VNC servers.

The path through its parts:

- ``main`` builds the service from the configuration, in this process or in several (``process``).
- ``daemon`` is one process: its listening sockets, its RPC, its subscription to revocations.
- ``doors`` is the table of the ports that clients connect to.
- ``server`` joins the parts below, and is where a request's way can be read.
- ``front`` faces the clients: it reads requests and sends answers.
- ``admission`` decides whether a client gets its console, and dials the VNC server.
- ``sessions`` has the consoles that are open, and ends them when they are revoked, or when their compute says that they
  are no longer valid.
- :mod:`porthole_relay` moves their bytes. ``web`` has the files of the console page.

Beside that path, ``endpoint`` answers ``porthole doctor``, which calls it through ``rpcapi``; ``novnc`` and
``certificate`` say what web root and certificate the proxy has; ``tls_options`` builds the TLS context of the doors;
``measures`` has the sources of the metrics.
"""
