# SPDX-License-Identifier: Apache-2.0
"""haproxy in front of a site's two controllers (``site.py``), with the sample that operators get.

Without its TLS, which has tests of its own (``reverse_proxy.py``), and with the name of the controller in each answer.
"""

import csv
import socket
from collections.abc import Sequence
from pathlib import Path

from support.processes import Process
from support.reverse_proxy import HAPROXY_REPLACEMENTS, HAPROXY_SOCKET, START_TIMEOUT_S, check, fill_sample, find

PORT, XVP_PORT = 80, 6081
# Where the sample has the proxies' pages.
CONSOLE_PATH = "/console/"
# A header of the answers: the sample's name of who gave it. haproxy's own have none.
SERVED_BY = "x-served-by"
NAMES = ("controller1", "controller2")
_ANSWER_S = 5
_NAME_IT = f"    http-response set-header {SERVED_BY} %s\n"


class Balancer:
    """Listens at ``address``, a host's own; ``controllers`` are the addresses of the two."""

    def __init__(self, directory: Path, address: str, controllers: Sequence[str]) -> None:
        """Write the configuration into ``directory``."""
        directory.mkdir()
        path = directory / "haproxy.cfg"
        self._socket = directory / "admin.sock"
        replacements = {
            **HAPROXY_REPLACEMENTS,
            HAPROXY_SOCKET: str(self._socket),
            "bind :443 ssl crt /etc/haproxy/porthole.pem alpn http/1.1": f"bind {address}:{PORT}",
            "bind :6081": f"bind {address}:{XVP_PORT}",
            "X-Forwarded-Proto https": "X-Forwarded-Proto http",
            "192.0.2.11": controllers[0],
            "192.0.2.12": controllers[1],
            "\nbackend api\n": f"\nbackend api\n{_NAME_IT}",
            "\nbackend novncproxy\n": f"\nbackend novncproxy\n{_NAME_IT}",
        }
        path.write_text(fill_sample("haproxy.cfg", replacements), encoding="utf-8")
        check([find("haproxy"), "-c", "-f", str(path)])
        self.address = address
        self.process = Process([find("haproxy"), "-f", str(path)], directory / "haproxy.log", name="haproxy")

    def start(self) -> None:
        """Start, and return once it takes connections."""
        self.process.start()
        self.process.wait_for(self._socket.exists, START_TIMEOUT_S, "haproxy's socket")

    def list_down(self) -> list[str]:
        """Return the servers that haproxy takes for gone, each as ``backend/server``: it asks them nothing."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(self._socket))
            connection.sendall(b"show stat -1 4 -1\n")
            with connection.makefile(encoding="utf-8") as answer:
                rows = list(csv.DictReader(line for line in answer if line.strip()))
        assert rows
        return [f"{row['# pxname']}/{row['svname']}" for row in rows if not row["status"].startswith("UP")]
