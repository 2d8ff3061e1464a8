# SPDX-License-Identifier: Apache-2.0
"""``[api] auth_strategy = keystone``: tokens that Keystone validates, through keystonemiddleware's auth_token.

Why the middleware is called, and does not wrap the application: it would turn the application's errors into answers of
its own. Its options are the standard ones in ``[keystone_authtoken]``, with defaults that end every wait. Chosen by
:mod:`porthole_api.auth_strategy`.
"""

from collections.abc import Iterable
from typing import Any

import webob
from keystoneauth1 import exceptions as ksa_exceptions
from keystonemiddleware import auth_token, opts
from oslo_config import cfg
from webob import exc

from porthole_common import conf as porthole_conf
from porthole_common import config_faults, errors
from porthole_common.context import RequestContext
from porthole_common.log import get_logger

LOG = get_logger(__name__)
GROUP = "keystone_authtoken"
# A token takes two requests to Keystone when the service's own token has run out; both fit into [rpc] call_timeout.
_REQUESTS_PER_TOKEN = 2


class Keystone:
    """The strategy. Keystone says which roles and which project a token has."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Prepare; Keystone is asked when the first request arrives, not now.

        :raises ConfigInvalid: when an option of ``[keystone_authtoken]`` is wrong.
        """
        _register_opts(conf)
        if not conf[GROUP].auth_type and not conf[GROUP].auth_section:
            raise errors.ConfigInvalid(
                f"[{GROUP}] auth_type", "keystone is asked with credentials of the service's own, such as: password"
            )
        try:
            # Anonymous requests end here, whatever the file says: no handler expects one.
            self._protocol = auth_token.AuthProtocol(
                _accept, {"oslo_config_config": conf, "delay_auth_decision": "false"}
            )
        except cfg.Error as error:
            raise errors.ConfigInvalid(f"[{GROUP}]", config_faults.explain(error)) from error
        except (ksa_exceptions.ClientException, auth_token.ConfigurationError, ValueError) as error:
            raise errors.ConfigInvalid(f"[{GROUP}]", str(error)) from error

    def __call__(self, environ: dict[str, Any]) -> RequestContext:
        """Return the user of the request's X-Auth-Token.

        :raises HTTPUnauthorized: when the token is missing, unknown, expired or revoked.
        :raises IdentityUnavailable: when Keystone does not answer, or refuses this service.
        """
        try:
            response = webob.Request(environ).get_response(self._protocol)
        except ksa_exceptions.ClientException as error:
            # Such as a catalog without the identity endpoint: the reason tells the operator which one is missing.
            LOG.error("Keystone request failed", error=type(error).__name__, reason=error)
            raise errors.IdentityUnavailable("Keystone") from error
        if response.status_int == 401:
            challenge = [("WWW-Authenticate", response.headers["WWW-Authenticate"])]
            raise exc.HTTPUnauthorized("The request you have made requires authentication.", headers=challenge)
        if response.status_int != 204:
            raise errors.IdentityUnavailable("Keystone")
        # auth_token wrote these headers; it has removed the client's headers of the same names.
        context: RequestContext = RequestContext.from_environ(environ)
        return context


def _accept(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Stand for the application behind auth_token: a request that arrives here is authenticated."""
    start_response("204 No Content", [])
    return []


def _register_opts(conf: cfg.ConfigOpts) -> None:
    for group, options in opts.list_auth_token_opts():
        conf.register_opts(options, group=group)
        porthole_conf.check_options(conf, group, options)
    # auth_token's own defaults wait without a limit, and try three times.
    conf.set_default("http_connect_timeout", max(1, conf.rpc.call_timeout // _REQUESTS_PER_TOKEN), GROUP)
    conf.set_default("http_request_max_retries", 0, GROUP)
    conf.set_default("service_token_roles_required", True, GROUP)
