# SPDX-License-Identifier: Apache-2.0
"""Opening a console: whom it asks, in which order, and what it never says."""

import contextlib
import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from porthole_api.console_limit import ConsoleLimit
from porthole_api.consoles import ConsoleOpener
from porthole_api.directory import Directory
from porthole_api.policy import Policy
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.model import ConnectInfo, ConsoleMode
from porthole_common.notifications import Inventory
from porthole_compute.rpcapi import ComputeAPI
from porthole_consoleauth.rpcapi import ConsoleAuthAPI, TokenWish
from support.api import (
    EXPIRES_AT,
    HOST,
    TOKEN,
    FakeClock,
    FakeCompute,
    FakeConsoleAuth,
    build_conf,
    build_directory,
    build_instance,
    build_uuid,
)
from support.cases import naming

MEMBER = RequestContext(project_id="red", user_id="rita", roles=["member", "reader"], is_admin=False, overwrite=False)
OWN, OTHERS = build_instance(1, project_id="red"), build_instance(2, project_id="blue")


def build(compute: FakeCompute, consoleauth: FakeConsoleAuth, hypervisor_up: bool = True) -> ConsoleOpener:
    directory = build_directory()
    directory.update(Inventory(HOST, (OWN, OTHERS), hypervisor_up))
    return ConsoleOpener(directory, compute, consoleauth, Policy(build_conf()))  # type: ignore[arg-type]


def test_the_fakes_have_the_signatures_of_the_ports() -> None:
    for fake, real in [(FakeCompute, ComputeAPI), (FakeConsoleAuth, ConsoleAuthAPI)]:
        with naming(fake, real):
            for name, method in inspect.getmembers(fake, inspect.isfunction):
                if not name.startswith("_"):
                    assert inspect.signature(method) == inspect.signature(getattr(real, name)), name


def test_the_hosts_console_is_stored_before_its_url_is_given() -> None:
    compute, consoleauth = FakeCompute(), FakeConsoleAuth()
    opened = build(compute, consoleauth).open_console(MEMBER, OWN.uuid, "novnc")
    assert compute.calls == [(MEMBER, HOST, OWN.uuid, "novnc")]
    ((context, connect_info),) = consoleauth.calls
    assert (context, connect_info.token, connect_info.access_url) == (MEMBER, TOKEN, opened.access_url)
    assert TOKEN in opened.access_url
    # When it expires is consoleauth's to say (O13).
    assert (connect_info.expires_at, opened.expires_at) == (None, EXPIRES_AT)


def test_what_the_user_asks_of_a_token_goes_to_consoleauth_and_what_it_became_comes_back() -> None:
    consoleauth = FakeConsoleAuth()
    wish = TokenWish(ConsoleMode.VIEW, 1, 60)
    opened = build(FakeCompute(), consoleauth).create_console(MEMBER, OWN.uuid, "novnc", wish)
    assert consoleauth.wishes == [wish]
    assert (opened.mode, opened.uses, opened.expires_at) == (ConsoleMode.VIEW, 1, EXPIRES_AT)


def test_a_reader_may_watch_and_not_control() -> None:
    reader = RequestContext(project_id="red", user_id="rea", roles=["reader"], is_admin=False, overwrite=False)
    opener = build(FakeCompute(), FakeConsoleAuth())
    opener.create_console(reader, OWN.uuid, "novnc", TokenWish(ConsoleMode.VIEW))
    with pytest.raises(errors.PolicyForbidden):
        opener.create_console(reader, OWN.uuid, "novnc", TokenWish(ConsoleMode.CONTROL))
    for mode in ConsoleMode:
        with naming(mode), pytest.raises(errors.InstanceNotFound):
            opener.create_console(reader, OTHERS.uuid, "novnc", TokenWish(mode))


def test_without_a_stored_token_there_is_no_url() -> None:
    cases = [errors.TokenStoreUnavailable("down"), errors.RpcUnavailable("consoleauth", "authorize_console")]
    for error in cases:
        with naming(error), pytest.raises(type(error)):
            build(FakeCompute(), FakeConsoleAuth(error)).open_console(MEMBER, OWN.uuid, "novnc")


def test_when_compute_refuses_nothing_is_stored() -> None:
    consoleauth = FakeConsoleAuth()
    with pytest.raises(errors.InstanceNotRunning):
        build(FakeCompute(errors.InstanceNotRunning(OWN.uuid, "shutoff")), consoleauth).open_console(
            MEMBER, OWN.uuid, "novnc"
        )
    assert consoleauth.calls == []


class ComputeOfTwoHosts(FakeCompute):
    """The instance has left HOST; ``inventories`` arrive while HOST is being asked."""

    def __init__(self, directory: Directory, *inventories: Inventory) -> None:
        super().__init__()
        self._directory, self._inventories = directory, inventories

    def get_vnc_console(
        self,
        context: RequestContext,
        host: str,
        instance_uuid: str,
        console_type: str,
        deadline: Deadline | None = None,
    ) -> ConnectInfo:
        connect_info = super().get_vnc_console(context, host, instance_uuid, console_type, deadline)
        if host == HOST:
            for inventory in self._inventories:
                self._directory.update(inventory)
            raise errors.InstanceNotFound(instance_uuid)
        return connect_info


def open_while_it_moves(*inventories: Inventory) -> ConnectInfo:
    directory = build_directory()
    directory.update(Inventory(HOST, (OWN,)))
    compute = ComputeOfTwoHosts(directory, *inventories)
    opener = ConsoleOpener(directory, compute, FakeConsoleAuth(), Policy(build_conf()))  # type: ignore[arg-type]
    return opener.open_console(MEMBER, OWN.uuid, "novnc")


def test_an_instance_that_has_just_moved_is_asked_for_at_its_next_host() -> None:
    assert open_while_it_moves(Inventory("host2", (OWN,)), Inventory(HOST, ())).compute_host == "host2"


def test_an_instance_that_has_just_gone_is_not_found() -> None:
    with pytest.raises(errors.InstanceNotFound):
        open_while_it_moves(Inventory(HOST, ()))


def test_an_instance_that_was_left_and_has_not_arrived_is_on_its_way() -> None:
    """404 would be a lie; the wait for better news is bounded."""
    with pytest.raises(errors.InstanceNotReady):
        open_while_it_moves()


def test_what_is_found_after_a_move_may_be_another_projects() -> None:
    """Two clouds, or a copy of a disk with its XML, may have one UUID twice."""
    for owner in ("blue", None):
        others = build_instance(1, project_id=owner)
        with naming(owner), pytest.raises(errors.InstanceNotFound):
            open_while_it_moves(Inventory("host2", (others,)), Inventory(HOST, ()))
        with naming(owner), pytest.raises(errors.InstanceNotFound):
            # The inventory of the host that says the instance is gone is older than its answer.
            open_while_it_moves(Inventory("host2", (others,)))


def test_what_is_found_after_a_move_passes_the_policy_again(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text('"os_compute_api:os-remote-consoles": "user_id:%(user_id)s"\n')
    conf = build_conf()
    policy = Policy(conf)
    conf.set_override("policy_file", str(tmp_path / "policy.yaml"), "oslo_policy")
    policy.reload()
    own, sisters = (build_instance(1, project_id="red", user_id=user) for user in ("rita", "bert"))
    for found, error in ((own, None), (sisters, errors.PolicyForbidden)):
        directory = build_directory()
        directory.update(Inventory(HOST, (own,)))
        compute = ComputeOfTwoHosts(directory, Inventory("host2", (found,)), Inventory(HOST, ()))
        opener = ConsoleOpener(directory, compute, FakeConsoleAuth(), policy)  # type: ignore[arg-type]
        with naming(found), pytest.raises(error) if error else contextlib.nullcontext():
            assert opener.open_console(MEMBER, own.uuid, "novnc").compute_host == "host2"


def test_what_is_found_after_a_move_may_be_unavailable() -> None:
    with pytest.raises(errors.HypervisorUnavailable):
        open_while_it_moves(Inventory("host2", (OWN,), hypervisor_up=False), Inventory(HOST, ()))


def test_a_console_that_was_not_asked_for_is_not_given(caplog: pytest.LogCaptureFixture) -> None:
    for field, value in {"instance_uuid": OTHERS.uuid, "compute_host": "host2", "console_type": "xvpvnc"}.items():
        compute, consoleauth = FakeCompute(), FakeConsoleAuth()
        compute.changes = {field: value}
        with naming(field), pytest.raises(errors.RemoteFailure):
            build(compute, consoleauth).open_console(MEMBER, OWN.uuid, "novnc")
        assert consoleauth.calls == []
        assert value in caplog.messages[-1]
    assert TOKEN not in caplog.text


def test_nobody_is_asked_about_what_the_user_does_not_see() -> None:
    for uuid in [OTHERS.uuid, build_uuid(9), "vm1"]:
        with naming(uuid):
            compute = FakeCompute()
            with pytest.raises(errors.InstanceNotFound):
                build(compute, FakeConsoleAuth()).open_console(MEMBER, uuid, "novnc")
            assert compute.calls == []


def test_a_type_that_porthole_does_not_have_is_unavailable() -> None:
    for console_type in ["spice-html5", "rdp-html5", "serial", "webmks"]:
        with naming(console_type):
            compute = FakeCompute()
            with pytest.raises(errors.ConsoleTypeUnavailable):
                build(compute, FakeConsoleAuth()).open_console(MEMBER, OWN.uuid, console_type)
            assert compute.calls == []


def test_a_host_that_does_not_answer_is_not_asked() -> None:
    compute = FakeCompute()
    with pytest.raises(errors.HypervisorUnavailable):
        build(compute, FakeConsoleAuth(), hypervisor_up=False).open_console(MEMBER, OWN.uuid, "novnc")
    assert compute.calls == []


def test_the_limit_of_a_user_is_looked_at_before_anybody_is_asked() -> None:
    """What nobody could open does not count."""
    compute = FakeCompute()
    opener = replace(build(compute, FakeConsoleAuth()), limit=ConsoleLimit(FakeClock(), 2))
    for uuid, console_type in ((OTHERS.uuid, "novnc"), (OWN.uuid, "spice-html5")):
        with pytest.raises((errors.InstanceNotFound, errors.ConsoleTypeUnavailable)):
            opener.open_console(MEMBER, uuid, console_type)
    for _ in range(2):
        opener.open_console(MEMBER, OWN.uuid, "novnc")
    with pytest.raises(errors.RateReached):
        opener.open_console(MEMBER, OWN.uuid, "novnc")
    assert len(compute.calls) == 2


def test_a_reader_sees_the_instance_and_opens_nothing() -> None:
    reader = RequestContext(project_id="red", roles=["reader"], is_admin=False, overwrite=False)
    compute = FakeCompute()
    with pytest.raises(errors.PolicyForbidden):
        build(compute, FakeConsoleAuth()).open_console(reader, OWN.uuid, "novnc")
    with pytest.raises(errors.InstanceNotFound):
        build(compute, FakeConsoleAuth()).open_console(reader, OTHERS.uuid, "novnc")
    assert compute.calls == []


def test_a_token_is_for_administrators() -> None:
    admin = RequestContext(project_id="ops", roles=["admin"], is_admin=True, overwrite=False)
    opener = build(FakeCompute(), FakeConsoleAuth())
    assert opener.show_token(admin, TOKEN).port == 5900
    with pytest.raises(errors.ConsoleTokenNotFound):
        opener.show_token(admin, "another")
    with pytest.raises(errors.PolicyForbidden):
        opener.show_token(MEMBER, TOKEN)
