# SPDX-License-Identifier: Apache-2.0
from porthole_api.auth_strategy import build_authenticator
from porthole_api.noauth import NoAuth
from support.api import build_conf


def test_without_a_word_it_is_noauth() -> None:
    assert isinstance(build_authenticator(build_conf()), NoAuth)


def test_every_strategy_of_the_option_can_be_had() -> None:
    from porthole_api import auth_strategy
    from porthole_common.conf import api

    (option,) = (opt for opt in api.OPTS if opt.name == "auth_strategy")
    assert set(option.type.choices) == set(auth_strategy._STRATEGIES)
