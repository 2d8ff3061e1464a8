# SPDX-License-Identifier: Apache-2.0
"""Who may do what, without a policy file and with one."""

import logging
from pathlib import Path

import pytest

from porthole_api.policies import console_auth_tokens, list_rules, remote_consoles, servers
from porthole_api.policy import OPTION, Policy
from porthole_common import errors
from porthole_common.context import RequestContext
from support.api import build_conf, build_instance
from support.cases import naming

READ = {servers.INDEX, servers.DETAIL, servers.SHOW}
OPEN = READ | {remote_consoles.CREATE}
ALL = {rule.name for rule in list_rules() if rule.name.startswith("os_compute_api:")}
OWN = build_instance(1, project_id="red")


def build_context(*roles: str, project_id: str | None = "red", **scope: str) -> RequestContext:
    return RequestContext(user_id="u", project_id=project_id, roles=list(roles), overwrite=False, **scope)


def build(path: Path | str | None = None) -> Policy:
    conf = build_conf()
    policy = Policy(conf)
    if path is None:
        return policy
    conf.set_override("policy_file", str(path), "oslo_policy")
    return Policy(conf)


def test_who_may_do_what_to_an_instance_of_the_project() -> None:
    cases = [
        ("admin", build_context("admin", "member", "reader", project_id="ops"), ALL),
        ("noauth", build_context("admin", project_id=None), ALL),
        ("member", build_context("member", "reader"), OPEN),
        ("reader", build_context("reader"), READ),
        ("others-member", build_context("member", "reader", project_id="blue"), set()),
        ("unscoped", build_context("member", "reader", project_id=None), set()),
        ("no-role", build_context(), set()),
        ("no-such-role", build_context("Administrator"), set()),
        ("system", build_context("admin", project_id=None, system_scope="all"), set()),
        ("domain", build_context("admin", project_id=None, domain_id="default"), set()),
    ]
    for who, context, allowed in cases:
        with naming(who):
            policy = build()
            assert {rule for rule in ALL if policy.allows(context, rule, OWN)} == allowed
            for rule in ALL:
                if rule in allowed:
                    policy.authorize(context, rule, OWN)
                else:
                    with pytest.raises(errors.PolicyForbidden, match=rule):
                        policy.authorize(context, rule, OWN)


def test_without_an_instance_it_is_about_the_users_project() -> None:
    assert build().allows(build_context("reader"), servers.INDEX)
    assert not build().allows(build_context(), servers.INDEX)


def test_an_administrator_is_who_has_the_role() -> None:
    assert build().is_admin(build_context("admin"))
    assert not build().is_admin(build_context("member"))


def test_a_file_says_otherwise_for_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(f'"{remote_consoles.CREATE}": "role:operator"\n"context_is_admin": "role:boss"\n')
    policy = build(path)
    assert policy.allows(build_context("operator"), remote_consoles.CREATE, OWN)
    assert not policy.allows(build_context("member"), remote_consoles.CREATE, OWN)
    assert policy.allows(build_context("reader"), servers.SHOW, OWN)
    assert policy.is_admin(build_context("boss"))
    assert policy.allows(build_context("boss"), console_auth_tokens.SHOW)
    assert not policy.is_admin(build_context("admin"))


def test_a_file_that_does_not_do_names_the_option(tmp_path: Path) -> None:
    cases = ["[", "- a\n- b\n", "text", '"x": "rule:nowhere"\n', '"x": "rule:y"\n"y": "rule:x"\n', '"a": b: c']
    for text in cases:
        with naming(text):
            path = tmp_path / "policy.yaml"
            path.write_text(text)
            with pytest.raises(errors.ConfigInvalid) as caught:
                build(path)
            assert caught.value.option == OPTION


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigInvalid, match="does not exist"):
        build(tmp_path / "elsewhere.yaml")


def test_an_edit_counts_at_a_reload_and_a_bad_one_never(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("")
    policy, reader = build(path), build_context("reader")
    assert not policy.allows(reader, remote_consoles.CREATE, OWN)
    path.write_text(f'"{remote_consoles.CREATE}": "role:reader"\n')
    assert not policy.allows(reader, remote_consoles.CREATE, OWN)
    policy.reload()
    assert policy.allows(reader, remote_consoles.CREATE, OWN)
    path.write_text("[")
    with caplog.at_level(logging.ERROR):
        policy.reload()
    assert OPTION in caplog.text
    assert policy.allows(reader, remote_consoles.CREATE, OWN)
