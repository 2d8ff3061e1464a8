# SPDX-License-Identifier: Apache-2.0
"""The door of ``porthole standalone`` for ``porthole doctor``: a UNIX socket that answers with a report.

Why: the messages of a standalone stay in its memory, so no other process can put the doctor's questions on that bus.
The standalone therefore examines itself, by the doctor's own code, and the doctor asks for the report.

Why an abstract socket (unix(7)): it lives in no directory, so the environment of the two processes may differ; it
ends with its process, also by SIGKILL, so nothing stale is left; and it belongs to the network namespace that the
loopback ports belong to. Every user of the host can connect, so the kernel is asked who connects (SO_PEERCRED): root
and the standalone's own user get an answer.

The standalone sends a line of JSON at once, ``{pid, endpoint, novncproxy_base_url}``. When a line comes back, the
report follows as :func:`porthole_cli.doctor.report.format_json` writes it. Started by :mod:`porthole_cli.wiring`.
"""

import json
import os
import socket
import threading
import uuid

from oslo_config import cfg

from porthole_cli.doctor import examination, report
from porthole_cli.doctor.bus import RpcBus
from porthole_cli.doctor.standalone import SOCKET_PREFIX, read_peer
from porthole_common import service
from porthole_common.log import get_logger
from porthole_common.rpc import Rpc

LOG = get_logger(__name__)
# How long a doctor may take to ask and to read; it is on the same machine.
STEP_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 2.0
# Before the next accept() where one failed.
ACCEPT_PAUSE_S = 0.5


class Examinee(service.Service):
    """A service of ``porthole standalone``: takes the doctor's connections, and runs one examination at a time.

    ``endpoint`` is the API's URL. ``rpc`` is the standalone's own and stays open. ``uids`` are the users that get an
    answer: root and the process's own, unless given.
    """

    name = "examinee"
    stop_timeout_s = STOP_TIMEOUT_S

    def __init__(self, conf: cfg.ConfigOpts, rpc: Rpc, endpoint: str, uids: frozenset[int] | None = None) -> None:
        self._conf = conf
        self._rpc = rpc
        self._endpoint = endpoint
        self._uids = frozenset({0, os.geteuid()}) if uids is None else uids
        self._examining = threading.Lock()
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, under a name that no other process has."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Process ids repeat where containers share a network.
        listener.bind(f"\0{SOCKET_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}")
        listener.listen()
        self._listener = listener
        self._thread = threading.Thread(target=self._accept, args=(listener,), name="examinee", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no further question. An examination that is under way ends with the process."""
        if self._listener is None or self._thread is None:
            return
        listener, self._listener = self._listener, None
        self._stopping.set()
        # Wakes the thread, which close() alone would not.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        self._thread.join(STOP_TIMEOUT_S)

    def _accept(self, listener: socket.socket) -> None:
        was_accepted = True
        while True:
            try:
                connection, _ = listener.accept()
                was_accepted = True
            except OSError as exc:
                if self._stopping.is_set():
                    return
                # Such as EMFILE: it passes when a console is closed, and accept() fails at once until then.
                if was_accepted:
                    LOG.warning("Doctor's connection not accepted", error=exc)
                was_accepted = False
                if self._stopping.wait(ACCEPT_PAUSE_S):
                    return
                continue
            if read_peer(connection).uid in self._uids:
                threading.Thread(target=self._serve, args=(connection,), name="examinee-answer", daemon=True).start()
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(STEP_TIMEOUT_S)
            greeting = {
                "pid": os.getpid(),
                "endpoint": self._endpoint,
                "novncproxy_base_url": self._conf.vnc.novncproxy_base_url,
            }
            try:
                connection.sendall(json.dumps(greeting).encode() + b"\n")
                if not connection.recv(1):
                    # It only wanted to know who is here.
                    return
                self._examine(connection)
            except OSError:
                # The doctor has left; nobody reads the answer.
                return

    def _examine(self, connection: socket.socket) -> None:
        with self._examining:
            examined = examination.build_standalone(self._conf, RpcBus(self._rpc, owns_rpc=False))
            try:
                found = examination.examine_standalone(examined)
                connection.sendall(report.format_json(found).encode())
            finally:
                examined.close()
