# SPDX-License-Identifier: Apache-2.0

import os
from pathlib import Path

import pytest

from porthole_compute.drivers.libvirt_run import Runs, find_pid_directory, is_local, read_boot_id
from support.cases import naming

BOOT = "6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11"


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    path = tmp_path / "vm1.pid"
    path.write_text("4032")
    return path


def test_where_libvirt_keeps_its_pid_files() -> None:
    environment = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    cases = [
        ("qemu:///system", "/run/libvirt/qemu"),
        ("qemu+unix:///system", "/run/libvirt/qemu"),
        ("qemu:///system?socket=/srv/libvirt/virtqemud-sock", "/srv/libvirt/qemu"),
        ("qemu:///session", "/run/user/1000/libvirt/qemu/run"),
        ("qemu+unix:///session?socket=/tmp/lv/libvirt/libvirt-sock", "/tmp/lv/libvirt/qemu/run"),
        ("qemu+ssh://host2/system", None),
        ("qemu+tls://host2/system?socket=/srv/sock", None),
        ("qemu://host2/system", None),
        ("qemu+libssh2:///system", None),
        ("xen:///system", None),
        ("test:///default", None),
        ("", None),
    ]
    for uri, expected in cases:
        with naming(uri):
            found = find_pid_directory(uri, environment)
            assert found == (Path(expected) if expected else None)
    assert find_pid_directory("qemu:///session", {}) is None


def test_a_libvirt_elsewhere_has_another_boot() -> None:
    assert all(map(is_local, ["qemu:///system", "xen:///system", "qemu+unix:///session"]))
    assert not any(map(is_local, ["qemu+ssh://host2/system", "qemu://host2/system", "qemu+tcp:///system"]))


def test_a_start_is_another_run_although_the_id_comes_again(pid_file: Path) -> None:
    """libvirtd counts on from the highest id in use when it starts."""
    runs = Runs(pid_file.parent, BOOT)
    first = runs.build("vm1", 1)
    assert runs.build("vm1", 1) == first
    assert runs.build("vm1", 2) != first
    modified_ns = pid_file.stat().st_mtime_ns
    os.utime(pid_file, ns=(modified_ns, modified_ns + 1))
    assert runs.build("vm1", 1) != first


def test_a_reading_changes_no_run(pid_file: Path) -> None:
    runs = Runs(pid_file.parent, BOOT)
    first = runs.build("vm1", 1)
    pid_file.read_text()
    os.utime(pid_file, ns=(0, pid_file.stat().st_mtime_ns))
    assert runs.build("vm1", 1) == first


def test_without_a_pid_file_the_boot_and_the_id_are_the_run(pid_file: Path) -> None:
    assert Runs(None, BOOT).build("vm1", 1) == Runs(pid_file.parent, BOOT).build("vm2", 1) == f"1/{BOOT}"
    assert Runs(None, "").build("vm1", 1) == "1/"
    for name in ("../vm1", f"{pid_file.parent}/vm1", "a\0b", "x" * 10_000):
        with naming(name):
            assert Runs(pid_file.parent / "sub", BOOT).build(name, 1) == f"1/{BOOT}"


def test_the_boot_id(tmp_path: Path) -> None:
    path = tmp_path / "boot_id"
    assert read_boot_id(path) == ""
    path.write_bytes(b"\xff")
    assert read_boot_id(path) == ""
    path.write_text(f"{BOOT}\n")
    assert read_boot_id(path) == BOOT
