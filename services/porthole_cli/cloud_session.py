# SPDX-License-Identifier: Apache-2.0
"""keystoneauth's session for one command: one deadline for all its requests, and no deadlock.

Why: keystoneauth's timeout is for each read, so a server that sends one byte at a time holds a command for ever. And if
the auth URL answers 401 to discovery, keystoneauth asks for a token while it gets the token, and waits for its own
lock. Made by :mod:`porthole_cli.cloud`; the client asks it which service failed.
"""

import os
import ssl
import threading
import time
import warnings
from typing import Any

import requests
from keystoneauth1 import exceptions, session
from keystoneauth1.loading import session as session_loading
from urllib3.exceptions import InsecureRequestWarning

from porthole_cli.errors import CloudInvalid
from porthole_cli.forward_proxy import DIRECT, is_loopback

# Seconds after the command's deadline in which a request can end by its own timeout.
_GRACE_S = 1.0


class CloudSession(session.Session):
    """A session whose ``timeout`` (seconds) is also the time for all requests together, from the first one on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.verify is False:
            # The user has chosen --insecure, and urllib3 would warn at each request.
            warnings.simplefilter("ignore", InsecureRequestWarning)
        self._ends_at: float | None = None
        self._worker: threading.Thread | None = None
        # True from the first request to Keystone until it has issued a token.
        self.is_logging_in = False

    @property
    def auth_url(self) -> str | None:
        """Keystone's URL as the user gave it; None if the authentication needs no Keystone."""
        url: str | None = getattr(self.auth, "auth_url", None)
        return url

    def request(self, url: str, method: str, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request within the deadline.

        :raises DiscoveryFailure: when Keystone's own discovery needs a token.
        :raises ConnectTimeout: when the deadline has passed.
        :raises CloudInvalid: when the file of authorities has no certificate.
        """
        target = url if "://" in url else kwargs.get("endpoint_override") or ""
        if target.startswith("https:") and isinstance(self.verify, str):
            _check_authorities(self.verify)
        is_discovery = self._is_keystones(url)
        if is_discovery and kwargs.get("authenticated"):
            raise exceptions.DiscoveryFailure(f"{url} requires a token before it issues one.")
        is_login = is_discovery or (method == "POST" and kwargs.get("authenticated") is False)
        self.is_logging_in = self.is_logging_in or is_login
        if is_loopback(target):
            kwargs.setdefault("proxies", dict(DIRECT))
        answer = self._send(url, method, *args, **kwargs)
        if is_login and method == "POST":
            self.is_logging_in = False
        return answer

    def _is_keystones(self, url: str) -> bool:
        return self.auth_url is not None and url.rstrip("/") == self.auth_url.rstrip("/")

    def _send(self, url: str, method: str, *args: Any, **kwargs: Any) -> requests.Response:
        if self.timeout is None:
            return super().request(url, method, *args, **kwargs)
        if self._ends_at is None:
            self._ends_at = time.monotonic() + self.timeout
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise exceptions.ConnectTimeout(f"Request to {url} timed out")
        kwargs.setdefault("timeout", left_s)
        if threading.current_thread() is self._worker:
            # The worker's own request needs a token, and this is the request for it.
            return super().request(url, method, *args, **kwargs)
        return self._send_in_worker(left_s, url, method, *args, **kwargs)

    def _send_in_worker(self, left_s: float, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        """Send in a thread, and abandon a request that its socket's timeout does not end: a slow resolver or body."""
        answers: list[requests.Response] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                answers.append(super(CloudSession, self).request(url, *args, **kwargs))
            except BaseException as exc:  # noqa: BLE001 (raised below, in the thread that asked)
                failures.append(exc)

        self._worker = threading.Thread(target=work, name="request", daemon=True)
        self._worker.start()
        self._worker.join(left_s + _GRACE_S)
        if self._worker.is_alive():
            raise exceptions.ConnectTimeout(f"Request to {url} timed out")
        if failures:
            raise failures[0]
        return answers[0]


class CloudSessionLoading(session_loading.Session):
    """keystoneauth's options for a session, which make a :class:`CloudSession`."""

    @property
    def plugin_class(self) -> type[session.Session]:
        """The class of the loaded sessions."""
        return CloudSession


def _check_authorities(path: str) -> None:
    """Check the file of OS_CACERT: otherwise an invalid file looks like a TLS error of the server.

    :raises CloudInvalid: when the file has no certificate.
    """
    if os.path.isdir(path):
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError as exc:
        reason = "it has no certificate in PEM" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise CloudInvalid(f"The file of --os-cacert (OS_CACERT, cacert) is {path}: {reason}.") from exc
