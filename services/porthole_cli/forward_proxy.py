# SPDX-License-Identifier: Apache-2.0
"""The forward proxy that the environment names for a URL: http_proxy, https_proxy, all_proxy and no_proxy.

Why: requests obeys these variables, and reports a failure of the proxy as a failure of the API. A proxy on another host
cannot reach this host's loopback, so requests to loopback never use a proxy. Called by
:mod:`porthole_cli.cloud_session` and :mod:`porthole_cli.failures`.
"""

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from requests import utils

# Tells requests to use no proxy, whatever the environment says.
DIRECT = {"http": None, "https": None, "all": None}


@dataclass(frozen=True)
class ForwardProxy:
    """A proxy and the variable that names it; ``url`` may be malformed."""

    url: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {self.url} (variable {self.variable})"


def find_proxy(url: str) -> ForwardProxy | None:
    """Return the proxy for requests to ``url``, if the environment names one."""
    if is_loopback(url):
        return None
    try:
        chosen = utils.select_proxy(url, utils.get_environ_proxies(url))
    except ValueError:
        return None
    if not chosen:
        return None
    names = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
    variables = [variable for name in names for variable in (name, name.upper()) if os.environ.get(variable) == chosen]
    return ForwardProxy(chosen, variables[0] if variables else names[0])


def is_loopback(url: str) -> bool:
    """Return True when ``url`` names this host's loopback: localhost, or a loopback address."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
