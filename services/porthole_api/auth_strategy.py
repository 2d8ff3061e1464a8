# SPDX-License-Identifier: Apache-2.0
"""The choice of ``[api] auth_strategy``. Called by :mod:`porthole_api.app`."""

from collections.abc import Callable

from oslo_config import cfg

from porthole_api.auth import Authenticator
from porthole_api.http_basic import HttpBasic
from porthole_api.keystone import Keystone
from porthole_api.noauth import NoAuth

_STRATEGIES: dict[str, Callable[[cfg.ConfigOpts], Authenticator]] = {
    "noauth": NoAuth,
    "http_basic": HttpBasic,
    "keystone": Keystone,
}


def build_authenticator(conf: cfg.ConfigOpts) -> Authenticator:
    """Return the strategy that ``[api] auth_strategy`` names.

    :raises ConfigInvalid: when an option that the strategy needs is wrong.
    """
    return _STRATEGIES[conf.api.auth_strategy](conf)
