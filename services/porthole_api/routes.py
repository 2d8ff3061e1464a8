# SPDX-License-Identifier: Apache-2.0
"""The URL table: which handler answers a method and a path.

Why: one list of all routes is the API's table of contents, from which the OpenAPI document is built, and an unknown
path is refused in one place. Called by :mod:`porthole_api.app`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import webob
from webob import exc

from porthole_api import request as request_keys
from porthole_api.microversions import MIN_VERSION, Version
from porthole_api.request import Request

Handler = Callable[[Request], webob.Response]


@dataclass(frozen=True)
class Route:
    """``method`` and ``path`` with ``{variables}``, each a whole segment; the route exists from ``since`` on.

    A GET route answers HEAD too. ``public`` routes need no authentication.
    """

    method: str
    path: str
    handler: Handler
    since: Version = MIN_VERSION
    public: bool = False
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = re.split(r"\{(\w+)\}", self.path)
        # Literal parts have even positions, names of variables odd ones.
        pattern = "".join(f"(?P<{part}>[^/]+)" if number % 2 else re.escape(part) for number, part in enumerate(parts))
        object.__setattr__(self, "pattern", re.compile(pattern))

    @property
    def methods(self) -> frozenset[str]:
        """The HTTP methods that the route answers."""
        return frozenset({self.method, "HEAD"} if self.method == "GET" else {self.method})


class UrlTable:
    """Finds the route of a request. If the paths of two routes match, the first one wins."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)

    def match(self, request: Request) -> Route:
        """Return the request's route, and put the route and the path's variables into the request's environment.

        :raises HTTPNotFound: when the path does not exist at the request's microversion.
        :raises HTTPMethodNotAllowed: when the path exists for other methods, which ``Allow`` names.
        """
        path = request.environ.get("PATH_INFO") or "/"
        allowed: set[str] = set()
        for route in self.routes:
            match = route.pattern.fullmatch(path)
            if match is None or request.microversion < route.since:
                continue
            if request.method in route.methods:
                request.environ[request_keys.ROUTE] = route
                request.environ[request_keys.URL_ARGUMENTS] = match.groupdict()
                return route
            allowed |= route.methods
        if allowed:
            methods = ", ".join(sorted(allowed))
            raise exc.HTTPMethodNotAllowed(f"The method is not one of {methods}.", headers=[("Allow", methods)])
        raise exc.HTTPNotFound()
