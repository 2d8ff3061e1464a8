# SPDX-License-Identifier: Apache-2.0
"""``[api] auth_strategy = keystone``: tokens that Keystone vouches for, through keystonemiddleware's auth_token.

Why its middleware is asked and not wrapped around: it would turn what the application raises into answers of its own.
Its options are the standard ones of ``[keystone_authtoken]``, with defaults that end every wait. Chosen by
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
    """The strategy. A token's roles and project are those Keystone says it has."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Prepare; Keystone is asked when the first request comes, not now.

        :raises ConfigInvalid: when an option of ``[keystone_authtoken]`` does not do.
        """
        _register_opts(conf)
        if not conf[GROUP].auth_type and not conf[GROUP].auth_section:
            raise errors.ConfigInvalid(
                f"[{GROUP}] auth_type", "keystone is asked with credentials of the service's own, such as: password"
            )
        try:
            # Anonymous requests end here, whatever the file says: nothing behind expects one.
            self._protocol = auth_token.AuthProtocol(
                _accept, {"oslo_config_config": conf, "delay_auth_decision": "false"}
            )
        except cfg.Error as error:
            raise errors.ConfigInvalid(f"[{GROUP}]", config_faults.explain(error)) from error
        except (ksa_exceptions.ClientException, auth_token.ConfigurationError, ValueError) as error:
            raise errors.ConfigInvalid(f"[{GROUP}]", str(error)) from error

    def __call__(self, environ: dict[str, Any]) -> RequestContext:
        """Return the user of the request's X-Auth-Token.

        :raises HTTPUnauthorized: when it has none, or one that is unknown, expired or revoked.
        :raises IdentityUnavailable: when Keystone does not answer, or not to this service.
        """
        try:
            response = webob.Request(environ).get_response(self._protocol)
        except ksa_exceptions.ClientException as error:
            # Such as a catalog without the identity endpoint that is looked for: operators must know which.
            LOG.error("Keystone could not be asked about a user", error=type(error).__name__, reason=error)
            raise errors.IdentityUnavailable("Keystone") from error
        if response.status_int == 401:
            challenge = [("WWW-Authenticate", response.headers["WWW-Authenticate"])]
            raise exc.HTTPUnauthorized("The request you have made requires authentication.", headers=challenge)
        if response.status_int != 204:
            raise errors.IdentityUnavailable("Keystone")
        # The headers are auth_token's: what the client sent under their names is gone.
        context: RequestContext = RequestContext.from_environ(environ)
        return context


def _accept(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Stand where auth_token has its application: whoever comes so far is authenticated."""
    start_response("204 No Content", [])
    return []


def _register_opts(conf: cfg.ConfigOpts) -> None:
    for group, options in opts.list_auth_token_opts():
        conf.register_opts(options, group=group)
        porthole_conf.check_options(conf, group, options)
    # Its own defaults wait for ever, and three times over.
    conf.set_default("http_connect_timeout", max(1, conf.rpc.call_timeout // _REQUESTS_PER_TOKEN), GROUP)
    conf.set_default("http_request_max_retries", 0, GROUP)
    conf.set_default("service_token_roles_required", True, GROUP)
