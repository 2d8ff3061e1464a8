# SPDX-License-Identifier: Apache-2.0
"""``[api] auth_strategy = http_basic``: users and passwords from a file (RFC 7617), for a cloud without Keystone.

Why only the functions of oslo.middleware's basic_auth, and not its middleware: that answers 401 to any error of the
application, and reads its option from the global configuration. The functions parse the header and check the password.
Chosen by :mod:`porthole_api.auth_strategy`.
"""

import re
from pathlib import Path
from typing import Any

import bcrypt
from oslo_config import cfg
from oslo_middleware import basic_auth
from webob import exc

from porthole_api.auth import build_context
from porthole_common import errors
from porthole_common.context import RequestContext

OPTION = "[api] http_basic_auth_user_file"
CHALLENGE = 'Basic realm="Porthole", charset="UTF-8"'
ADMIN_ROLES = ("admin", "member", "reader")
USER_ROLES = ("member", "reader")
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
# bcrypt uses only these bytes of a password. Its library refuses longer passwords, and so does htpasswd.
_MAX_PASSWORD_BYTES = 72


class HttpBasic:
    """The strategy. The project of a user is the user's own name."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Check the file. It is read again for each request, so that users can change without a restart.

        :raises ConfigInvalid: when the file cannot be read, or a line is not ``user:bcrypt``.
        """
        self._path = conf.api.http_basic_auth_user_file
        self._admin_users = frozenset(conf.api.admin_users)
        _check_file(Path(self._path))
        # As costly as a real check, so that the time of an answer does not show which users exist.
        self._nobodys = bcrypt.hashpw(b"nobody's", bcrypt.gensalt(_read_cost(Path(self._path))))

    def __call__(self, environ: dict[str, Any]) -> RequestContext:
        """Return the user whose name and password the request carries.

        :raises HTTPUnauthorized: when it carries no credentials, or wrong ones.
        :raises IdentityUnavailable: when the file cannot be read any more.
        """
        user, password = _parse_credentials(environ)
        if not self._is_password(user, password):
            raise _refuse("The user or the password is wrong.")
        roles = ADMIN_ROLES if user in self._admin_users else USER_ROLES
        return build_context(environ, user_id=user, user_name=user, project_id=user, roles=list(roles))

    def _is_password(self, user: str, password: bytes) -> bool:
        if not user or len(password) > _MAX_PASSWORD_BYTES or b"\0" in password:
            return False
        try:
            basic_auth.authenticate(self._path, user, password)
        except exc.HTTPUnauthorized:
            if not self._has_user(user):
                bcrypt.checkpw(password, self._nobodys)
            return False
        except (exc.HTTPBadRequest, ValueError) as error:
            # The file was valid at the start, and is unreadable or malformed now.
            raise errors.IdentityUnavailable(OPTION) from error
        return True

    def _has_user(self, user: str) -> bool:
        return any(line.startswith(f"{user}:") for line in _read_lines(Path(self._path)))


def _parse_credentials(environ: dict[str, Any]) -> tuple[str, bytes]:
    try:
        # A copy: parse_header removes the header from its argument.
        return basic_auth.parse_token(basic_auth.parse_header(dict(environ)))
    except (exc.HTTPUnauthorized, exc.HTTPBadRequest):
        raise _refuse("The request you have made requires authentication.") from None


def _refuse(reason: str) -> exc.HTTPUnauthorized:
    return exc.HTTPUnauthorized(reason, headers=[("WWW-Authenticate", CHALLENGE)])


def _read_lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise errors.IdentityUnavailable(OPTION) from error


def _check_file(path: Path) -> None:
    try:
        lines = _read_lines(path)
    except errors.IdentityUnavailable as error:
        raise errors.ConfigInvalid(OPTION, f"{path} cannot be read: {error.__cause__}") from error
    for number, line in enumerate(lines, 1):
        user, colon, digest = line.partition(":")
        if not (user and colon and _BCRYPT.fullmatch(digest)):
            raise errors.ConfigInvalid(
                OPTION, f"entry {number} of {path} is not user:password with a bcrypt password, as htpasswd -B writes"
            )


def _read_cost(path: Path) -> int:
    """Return the logarithm of the rounds of the first entry; without one, htpasswd's default."""
    lines = _read_lines(path)
    return int(lines[0].partition(":")[2].split("$")[2]) if lines else 5
