# SPDX-License-Identifier: Apache-2.0
"""A port of loopback where a native viewer finds a console: deploy/xvp-connect.sh behind it, as socat would start it.

Why: viewers connect to a plain RFB port and cannot say the xvpvnc door's CONNECT.
"""

import os
import socket
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

SCRIPT = Path(__file__).parents[2] / "deploy" / "xvp-connect.sh"
_TIMEOUT_S = 20


class ViewerPort:
    """Each connection to :attr:`port` becomes a console of ``url``, which ``get-vnc-console SERVER xvpvnc`` gave."""

    def __init__(self, url: str) -> None:
        self._env = {**os.environ, "PORTHOLE_URL": url}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.scripts: list[subprocess.Popen[bytes]] = []
        self._acceptor = threading.Thread(target=self._accept, name="viewer-port", daemon=True)

    def _accept(self) -> None:
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            with sock:
                self.scripts.append(
                    subprocess.Popen(
                        [SCRIPT], stdin=sock.fileno(), stdout=sock.fileno(), stderr=subprocess.DEVNULL, env=self._env
                    )
                )

    def wait_for_scripts(self) -> list[int]:
        """Return the exit statuses of the scripts once all have ended.

        :raises subprocess.TimeoutExpired: when one does not.
        """
        return [script.wait(_TIMEOUT_S) for script in self.scripts]

    def stop(self) -> None:
        """Take no more viewers, and end the scripts."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(_TIMEOUT_S)
        self._listener.close()
        for script in self.scripts:
            script.kill()
            script.wait(_TIMEOUT_S)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
