# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import cast

import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType, Instance, InstanceState, Owner, Target
from porthole_compute.drivers import require_vnc_type
from porthole_compute.drivers.static import StaticDriver, parse_instances
from support.cases import naming
from support.compute_fakes import OTHER_UUID, UUID, RecordedEvents, make_conf

BOTH = (ConsoleType.NOVNC, ConsoleType.XVPVNC)


def build_file(*entries: str) -> str:
    return "instances:\n" + "".join(f"- {{{entry}}}\n" for entry in entries)


def build_entry(uuid: str = UUID, **changes: str) -> str:
    values = {"uuid": uuid, "name": "a", "host": "192.0.2.1", "port": "5900", **changes}
    return ", ".join(f"{key}: {value}" for key, value in values.items() if value != "-")


def start_driver(path: Path, events: RecordedEvents) -> StaticDriver:
    """Start a driver, as after a restart of the daemon; its runs are kept beside ``path``."""
    driver = StaticDriver(make_conf(static={"instances_file": str(path), "runs_directory": str(path.parent)}))
    driver.start(events)
    return driver


def run_of(driver: StaticDriver, uuid: str = UUID) -> str | None:
    return driver.get_vnc_server(uuid, ConsoleType.NOVNC).run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "instances.yaml"
    path.write_text(build_file(build_entry(), build_entry(OTHER_UUID, port="5901", project_id="p", user_id="u")))
    return path


@pytest.fixture
def driver(path: Path, events: RecordedEvents) -> StaticDriver:
    return start_driver(path, events)


def test_the_instances_of_the_file(driver: StaticDriver) -> None:
    assert driver.list_instances() == [
        Instance(UUID, "a", InstanceState.RUNNING, console_types=BOTH),
        Instance(OTHER_UUID, "a", InstanceState.RUNNING, "p", "u", BOTH),
    ]
    assert driver.get_vnc_server(OTHER_UUID, ConsoleType.NOVNC).target == Target("192.0.2.1", 5901)


def test_a_uuid_comes_out_canonical() -> None:
    for text in (UUID.upper(), f"'{UUID.replace('-', '')}'", f"'{{{UUID}}}'"):
        assert list(parse_instances(build_file(build_entry(text)), BOTH)) == [UUID]


def test_an_instance_that_is_not_there(driver: StaticDriver) -> None:
    with pytest.raises(errors.InstanceNotFound):
        driver.get_vnc_server("c0ffee00-0000-4000-8000-00000000000f", ConsoleType.NOVNC)


def test_consoles_that_the_host_does_not_offer(path: Path, events: RecordedEvents) -> None:
    driver = StaticDriver(make_conf(static={"instances_file": str(path), "runs_directory": ""}, vnc={"enabled": False}))
    driver.start(events)
    assert driver.list_instances()[0].console_types == ()
    with pytest.raises(errors.ConsoleTypeUnavailable):
        driver.get_vnc_server(UUID, ConsoleType.NOVNC)


def test_a_file_that_does_not_do_is_refused_with_the_entry_and_the_key() -> None:
    cases = [
        ("[", "not YAML"),
        ("\x07", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("!!python/object/apply:os.system [true]", "not YAML"),
        ("", "one key, instances"),
        ("- a", "one key, instances"),
        ("instances: []\nmore: 1", "one key, instances"),
        ("instances: {}", "must be a list"),
        ("instances:", "must be a list"),
        ("instances: [a]", "entry 1: it must be a mapping"),
        (build_file(build_entry(), build_entry(OTHER_UUID, colour="red")), "entry 2: unknown key 'colour'"),
        (build_file(build_entry(uuid="-")), "entry 1: uuid is missing"),
        (build_file(build_entry(name="-")), "entry 1: name is missing"),
        (build_file(build_entry(host="-")), "entry 1: host is missing"),
        (build_file(build_entry(port="-")), "entry 1: port is missing"),
        (build_file(build_entry(uuid="123")), "entry 1: uuid must be text"),
        (build_file(build_entry(uuid="abc")), "entry 1: uuid is not a UUID"),
        (build_file(build_entry(name="''")), "entry 1: name must be text"),
        (build_file(build_entry(name="n" * 256)), "entry 1: name must be text"),
        (build_file(build_entry(project_id="12")), "entry 1: project_id must be text"),
        (build_file(build_entry(host="[a]")), "entry 1: host must be text"),
        (build_file(build_entry(port="'5900'")), "entry 1: port must be a number"),
        (build_file(build_entry(port="0")), "entry 1: port must be a number"),
        (build_file(build_entry(port="65536")), "entry 1: port must be a number"),
        (build_file(build_entry(port="true")), "entry 1: port must be a number"),
        (build_file(build_entry(), build_entry(UUID.upper())), "entry 2: uuid .* is there twice"),
    ]
    for text, reason in cases:
        with naming(text, reason):
            with pytest.raises(errors.ConfigInvalid, match=reason) as caught:
                parse_instances(text, BOTH)
            assert caught.value.option == "[static] instances_file"
            assert "\n" not in str(caught.value)


def test_start_needs_the_file(tmp_path: Path, events: RecordedEvents) -> None:
    driver = StaticDriver(make_conf(static={"instances_file": str(tmp_path / "none.yaml"), "runs_directory": ""}))
    with pytest.raises(errors.ConfigInvalid, match=r"\[static\] instances_file: .*none.yaml: No such file"):
        driver.start(events)
    driver.stop()


def test_start_needs_text(path: Path, events: RecordedEvents) -> None:
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(errors.ConfigInvalid, match="not UTF-8"):
        start_driver(path, events)


def test_reload_ends_what_vanished_or_moved(driver: StaticDriver, path: Path, events: RecordedEvents) -> None:
    third = "c0ffee00-0000-4000-8000-000000000003"
    path.write_text(build_file(build_entry(UUID), build_entry(OTHER_UUID, port="5901"), build_entry(third)))
    driver.reload()
    assert events.take_ended() == []
    path.write_text(build_file(build_entry(UUID, host="192.0.2.2"), build_entry(third, port="5905")))
    driver.reload()
    assert events.take_ended() == [UUID, OTHER_UUID, third]
    assert driver.get_vnc_server(UUID, ConsoleType.NOVNC).target == Target("192.0.2.2", 5900)
    events.wait_changed()


def test_an_entry_that_was_taken_out_and_put_back_is_another_run(
    driver: StaticDriver, path: Path, events: RecordedEvents
) -> None:
    """Also when the daemon was restarted while it was out, and once more after it was back."""
    before, text = run_of(driver), path.read_text()
    seen = [before]
    for restarts in ("none", "while it is out", "while it is out and when it is back"):
        path.write_text(build_file(build_entry(OTHER_UUID, port="5901", project_id="p", user_id="u")))
        if restarts == "none":
            driver.reload()
        else:
            driver = start_driver(path, events)
        with pytest.raises(errors.InstanceNotFound):
            run_of(driver)
        path.write_text(text)
        driver.reload()
        run = run_of(driver)
        if "back" in restarts:
            driver = start_driver(path, events)
        with naming(restarts):
            assert run_of(driver) == run
            assert run not in seen
        seen.append(run)


def test_an_entry_that_stays_is_one_run(driver: StaticDriver, path: Path, events: RecordedEvents) -> None:
    """Over a restart too; a new name, a new neighbour or a new owner begin none."""
    run = run_of(driver)
    assert run != run_of(driver, OTHER_UUID)
    third = build_entry("c0ffee00-0000-4000-8000-000000000003")
    path.write_text(build_file(third, build_entry(name="b", project_id="p")))
    driver.reload()
    assert run_of(driver) == run
    assert run_of(start_driver(path, events)) == run


def test_an_entry_with_another_address_is_another_run(path: Path, events: RecordedEvents) -> None:
    """Also when it has its old one again, and when nobody watched."""
    text = path.read_text()
    for restart in (False, True):
        with naming(restart):
            driver = start_driver(path, events)
            runs = [run_of(driver)]
            for changed in (text.replace("5900", "5999"), text):
                path.write_text(changed)
                if restart:
                    driver = start_driver(path, events)
                else:
                    driver.reload()
                runs.append(run_of(driver))
            assert len(set(runs)) == 3


def test_the_owner_of_an_entry(driver: StaticDriver, path: Path, events: RecordedEvents) -> None:
    assert driver.get_vnc_server(UUID, ConsoleType.NOVNC).owner == Owner()
    assert driver.get_vnc_server(OTHER_UUID, ConsoleType.NOVNC).owner == Owner("p", "u")
    path.write_text(path.read_text().replace("project_id: p", "project_id: q"))
    driver.reload()
    assert driver.get_vnc_server(OTHER_UUID, ConsoleType.NOVNC).owner == Owner("q", "u")


def test_a_bad_file_at_reload_leaves_the_old_one(
    driver: StaticDriver, path: Path, events: RecordedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(build_file(build_entry(port="x")))
    driver.reload()
    assert "[static] instances_file: entry 1: port" in caplog.text
    assert len(driver.list_instances()) == 2
    assert events.take_ended() == []


def test_the_displays_are_the_files_addresses(driver: StaticDriver) -> None:
    displays = driver.list_displays(10)
    assert [(each.instance_uuid, each.listen, each.target) for each in displays] == [
        (UUID, "192.0.2.1", Target("192.0.2.1", 5900)),
        (OTHER_UUID, "192.0.2.1", Target("192.0.2.1", 5901)),
    ]
    assert driver.list_displays(1) == displays[:1]


def test_a_vnc_server_is_shown_only_for_a_type_of_vnc() -> None:
    offered = (ConsoleType.NOVNC, ConsoleType.XVPVNC)
    for console_type in offered:
        require_vnc_type(console_type, offered)
        with pytest.raises(errors.ConsoleTypeUnavailable):
            require_vnc_type(console_type, ())
    serial = cast("ConsoleType", "serial")
    with pytest.raises(AssertionError, match="serial"):
        require_vnc_type(serial, (*offered, serial))
