# SPDX-License-Identifier: Apache-2.0
"""``porthole_api.wsgi:application``, for uwsgi, gunicorn and other WSGI servers.

Why it builds nothing at import: a server may import it before it forks its workers, and a connection to the bus must
not survive a fork. The first request of each process builds the application of that process, and waits for the first
inventory. Threads must be enabled (uwsgi: ``enable-threads``).
"""

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from porthole_api.auth import WsgiApplication
from porthole_api.main import build_wsgi_application


class LazyApplication:
    """Builds the application of this process at its first request."""

    def __init__(self, build: Callable[[], WsgiApplication]) -> None:
        self._build = build
        self._lock = threading.Lock()
        self._built: tuple[int, WsgiApplication] | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer the request.

        :raises ConfigInvalid: when the application cannot be built with its options.
        """
        return self._get()(environ, start_response)

    def _get(self) -> WsgiApplication:
        with self._lock:
            if self._built is None or self._built[0] != os.getpid():
                self._built = os.getpid(), self._build()
            return self._built[1]


application = LazyApplication(build_wsgi_application)
