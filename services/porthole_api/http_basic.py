# SPDX-License-Identifier: Apache-2.0
"""``[api] auth_strategy = http_basic``: users and passwords from a file (RFC 7617), for a cloud without Keystone.

Why only two functions of oslo.middleware's basic_auth, which parse the header, and not its middleware: that answers 401
to any error of the application, reads its option from the global configuration, and refuses a whole file for one entry
without bcrypt. :mod:`porthole_api.user_file` reads the file, and :mod:`porthole_api.login_limits` bounds the checks.
Chosen by :mod:`porthole_api.auth_strategy`.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import bcrypt
from oslo_config import cfg
from oslo_middleware import basic_auth
from webob import exc

from porthole_api.auth import build_context
from porthole_api.login_limits import Attempt, LoginLimits
from porthole_api.user_file import UserFile
from porthole_common import errors
from porthole_common.context import RequestContext

OPTION = "[api] http_basic_auth_user_file"
CHALLENGE = 'Basic realm="Porthole", charset="UTF-8"'
ADMIN_ROLES = ("admin", "member", "reader")
USER_ROLES = ("member", "reader")
# bcrypt uses only these bytes of a password. Its library refuses longer passwords, and so does htpasswd.
_MAX_PASSWORD_BYTES = 72
# htpasswd -B's own cost, the logarithm of the rounds; for a file without users.
_DEFAULT_COST = 5
# Different passwords seldom wait for each other.
_TURNS = 64
_TOO_MANY = "Too many wrong passwords. Try again later."
_BUSY = "Too many passwords are being checked. Try again."


class HttpBasic:
    """The strategy. The project of a user is the user's own name."""

    def __init__(self, conf: cfg.ConfigOpts, clock: Callable[[], float] = time.monotonic) -> None:
        """Check that the file can be read. It is read again for each request, so that users change without a restart.

        :raises ConfigInvalid: when the file cannot be read.
        """
        path = conf.api.http_basic_auth_user_file
        self._file = UserFile(path)
        # The other half of the threads answers users whose password is known.
        self._limits = LoginLimits(clock, max(1, conf.api.workers // 2))
        self._turns = [threading.Lock() for _ in range(_TURNS)]
        self._admin_users = frozenset(conf.api.admin_users)
        try:
            users = self._file.read()
        except OSError as error:
            raise errors.ConfigInvalid(OPTION, f"{path} cannot be read: {error}") from error
        # As costly as a real check, so that the time of an answer does not show which users exist.
        self._nobodys = bcrypt.hashpw(b"nobody's", bcrypt.gensalt(_read_cost(users)))

    def __call__(self, environ: dict[str, Any]) -> RequestContext:
        """Return the user whose name and password the request carries.

        :raises HTTPUnauthorized: when it carries no credentials, or wrong ones.
        :raises HTTPTooManyRequests: when its source, or its user, had too many wrong passwords checked, or many
            passwords are being checked.
        :raises IdentityUnavailable: when the file cannot be read any more.
        """
        user, password = _parse_credentials(environ)
        if not self._is_password(environ.get("REMOTE_ADDR") or "", user, password):
            raise _refuse("The user or the password is wrong.")
        roles = ADMIN_ROLES if user in self._admin_users else USER_ROLES
        return build_context(environ, user_id=user, user_name=user, project_id=user, roles=list(roles))

    def _is_password(self, address: str, user: str, password: bytes) -> bool:
        """Return whether the password is the user's.

        :raises HTTPTooManyRequests: when the source, or the user, had too many wrong passwords checked, or many
            passwords are being checked.
        :raises IdentityUnavailable: when the file cannot be read.
        """
        if not user or len(password) > _MAX_PASSWORD_BYTES or b"\0" in password:
            return False
        try:
            digest = self._file.read().get(user)
        except OSError as error:
            # The file could be read at the start.
            raise errors.IdentityUnavailable(OPTION) from error
        attempt = self._limits.build_attempt(address, user, digest or "", password)
        if self._limits.is_known(attempt):
            return True
        # The first of many requests with one password checks it, and the others know it then.
        with self._turns[attempt.credentials[0] % len(self._turns)]:
            return self._limits.is_known(attempt) or self._check(attempt, digest, password)

    def _check(self, attempt: Attempt, digest: str | None, password: bytes) -> bool:
        with self._limits.checking(attempt) as may_check:
            if not may_check:
                raise exc.HTTPTooManyRequests(_BUSY, headers=[("Retry-After", "1")])
            wait_s = self._limits.begin(attempt)
            if wait_s > 0:
                raise exc.HTTPTooManyRequests(_TOO_MANY, headers=[("Retry-After", str(math.ceil(wait_s)))])
            if self._limits.is_wrong(attempt):
                return False
            is_right = bcrypt.checkpw(password, digest.encode() if digest else self._nobodys)
            if not is_right or digest is None:
                self._limits.note_wrong(attempt)
                return False
        self._limits.note_right(attempt)
        return True


def _parse_credentials(environ: dict[str, Any]) -> tuple[str, bytes]:
    try:
        # A copy: parse_header removes the header from its argument.
        return basic_auth.parse_token(basic_auth.parse_header(dict(environ)))
    except (exc.HTTPUnauthorized, exc.HTTPBadRequest):
        raise _refuse("The request you have made requires authentication.") from None


def _refuse(reason: str) -> exc.HTTPUnauthorized:
    return exc.HTTPUnauthorized(reason, headers=[("WWW-Authenticate", CHALLENGE)])


def _read_cost(users: dict[str, str]) -> int:
    """Return the logarithm of the rounds of the first user's password."""
    return next((int(digest.split("$")[2]) for digest in users.values()), _DEFAULT_COST)
