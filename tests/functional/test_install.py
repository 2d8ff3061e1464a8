# SPDX-License-Identifier: Apache-2.0
"""deploy/install.sh, its units and its playbook, on two machines that had nothing: a clean root each, a real systemd.

They are dear, so they are made once: a controller that is a compute node too, installed by the script, and from its
files a second machine, which takes Porthole off and becomes a compute node by the playbook. The tests go on where those
before them have left off, in the order they stand in.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.console import open_console, read_greeting, token_of
from support.hosts import Network
from support.libvirtd import guest_xml
from support.machine import PATH, SOURCES, Machine, build_root, build_wheels
from support.processes import wait_until

INSTALL = f"{SOURCES}/deploy/install.sh"
DAEMONS = ("porthole-consoleauth", "porthole-api", "porthole-novncproxy", "porthole-compute")
CLI = "/opt/porthole/bin/porthole"
INSTALL_TIMEOUT_S = 900
TIMEOUT_S = 120
BROKER_TLS_PORT = 5671
# What changes by itself on a machine that runs, and what the kernel makes up.
MOVING = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/src",
    "/wheels",
    "/var/log",
    "/var/lib/rabbitmq",
    "/var/lib/systemd",
)
MAX_EXPOSURE = 30
# Two machines are made from nothing.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    build_wheels(folder)
    return folder


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("root") / "root"
    build_root(path, ["controller", "compute", "hypervisor"])
    return path


@pytest.fixture(scope="module")
def controller(
    root: Path, wheels: Path, network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """Installed by one command."""
    with Machine(root, tmp_path_factory.mktemp("controller"), wheels, network.add_host("controller")) as machine:
        machine.start()
        done = machine.run(INSTALL, "all", timeout_s=INSTALL_TIMEOUT_S)
        assert done.returncode == 0, done.stdout[-8000:]
        yield machine


@pytest.fixture(scope="module")
def compute(
    root: Path,
    wheels: Path,
    network: Network,
    controller: Machine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Machine]:
    """What the controller was after its installation; nothing of Porthole runs twice, for it is taken off first."""
    with Machine(root, tmp_path_factory.mktemp("compute"), wheels, network.add_host("compute-1")) as machine:
        machine.start(like=controller)
        yield machine


def fingerprint(machine: Machine) -> dict[str, tuple[object, ...]]:
    """Return mode, owner, size, age and target of every file of the machine, by path."""
    seen: dict[str, tuple[object, ...]] = {}
    for folder, names, files in os.walk(machine.files):
        here = os.path.join("/", os.path.relpath(folder, machine.files)).removesuffix("/.")
        names[:] = [name for name in names if f"{here}/{name}" not in MOVING]
        for name in [*names, *files]:
            path = Path(folder, name)
            found = path.lstat()
            target = path.readlink() if path.is_symlink() else None
            # A folder's size and age say that something was made in it and removed again; that is allowed.
            age = None if stat.S_ISDIR(found.st_mode) else (found.st_size, found.st_mtime_ns)
            seen[f"{here}/{name}"] = (found.st_mode, found.st_uid, found.st_gid, age, target)
    return seen


def processes(machine: Machine) -> list[str]:
    return [machine.show(unit, "MainPID") for unit in (*DAEMONS, "rabbitmq-server", "memcached")]


def test_all_daemons_are_ready_and_start_at_the_next_boot(controller: Machine) -> None:
    for daemon in DAEMONS:
        assert controller.show(daemon, "ActiveState") == "active"
        assert controller.show(daemon, "StatusText") == "serving"
        assert controller.show(daemon, "UnitFileState") == "enabled"
        assert controller.show(daemon, "User") == "porthole"
    assert controller.read("systemctl", "--failed", "--plain", "--no-legend") == ""


def test_a_second_run_changes_nothing(controller: Machine) -> None:
    before, ran = fingerprint(controller), processes(controller)
    definitions = controller.read("rabbitmqctl", "--silent", "export_definitions", "-")
    done = controller.run(INSTALL, "all", timeout_s=INSTALL_TIMEOUT_S)
    assert (done.returncode, done.stdout) == (0, "Nothing to change.\n")
    after = fingerprint(controller)
    assert {path for path in before | after if before.get(path) != after.get(path)} == set()
    assert processes(controller) == ran
    assert controller.read("rabbitmqctl", "--silent", "export_definitions", "-") == definitions
    assert len(before) > 10_000, "the comparison has looked at too little"


def test_a_file_that_was_changed_is_put_right_and_the_daemons_know(controller: Machine) -> None:
    """The comparison above sees a change, and the run mends it."""
    conf = "/etc/porthole/porthole.conf"
    before, text = fingerprint(controller)[conf], controller.read("cat", conf)
    controller.read("sh", "-c", f"echo '# mine' >>{conf} && chmod 644 {conf}")
    assert fingerprint(controller)[conf] != before
    done = controller.run(INSTALL, "all", timeout_s=INSTALL_TIMEOUT_S)
    assert f"changed: {conf}\n" in done.stdout
    assert fingerprint(controller)[conf][:3] == before[:3]
    assert controller.read("cat", conf) == text


def test_secrets_are_for_root_and_the_daemons(controller: Machine) -> None:
    modes = controller.read("sh", "-c", "cd /etc/porthole && find . -type f -exec stat -c '%n %U:%G %a' {} +").split(
        "\n"
    )
    assert set(filter(None, modes)) == {
        "./porthole.conf root:porthole 640",
        "./porthole.conf.d/50-local.conf root:porthole 640",
        "./tls/ca.key root:root 600",
        "./tls/ca.pem root:root 644",
        "./tls/broker.key root:root 600",
        "./tls/broker.pem root:root 644",
    }
    assert controller.read("stat", "-c", "%U:%G %a", "/etc/rabbitmq/porthole.key") == "root:rabbitmq 640\n"
    assert controller.run(
        "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "ls", "/etc/porthole"
    ).returncode
    password = re.search(r"porthole:([0-9a-f]{64})@", (controller.files / "etc/porthole/porthole.conf").read_text())
    assert password
    journal = controller.read("journalctl", "--no-pager", "--output=cat")
    assert password[1] not in journal


def test_only_the_doors_and_the_bus_with_tls_are_open_to_the_network(controller: Machine, network: Network) -> None:
    allowed = {6080, 6081, BROKER_TLS_PORT}

    def list_others() -> set[int]:
        listeners = network.hosts["controller"].listeners()
        return {port for address, port in listeners if not address.startswith("127.")} - allowed

    # RabbitMQ's command listens at a port of its own while it runs.
    wait_until(lambda: not list_others(), 60, "no further open port", lambda: str(list_others()))
    listeners = network.hosts["controller"].listeners()
    assert {port for _address, port in listeners} >= {8774, 6080, 6081, 5672, 11211}
    users = controller.read("rabbitmqctl", "--silent", "list_users")
    assert [line.split("\t")[0] for line in users.splitlines()] == ["porthole"]


def test_the_units_are_clean_and_hardened(controller: Machine) -> None:
    for daemon in DAEMONS:
        unit = f"/etc/systemd/system/{daemon}.service"
        assert controller.read("systemd-analyze", "verify", "--man=no", unit) == ""
        controller.read("systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", unit)
        loose = controller.run("systemd-analyze", "security", "--offline=true", "--threshold=5", unit)
        assert loose.returncode != 0, "the threshold is not looked at"


def test_the_sandbox_is_in_force(controller: Machine) -> None:
    for daemon in DAEMONS:
        status = controller.read("cat", f"/proc/{controller.show(daemon, 'MainPID')}/status")
        assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE), daemon
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE), daemon
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE), daemon


def test_a_console_opens_through_the_daemons_in_their_sandbox(controller: Machine, network: Network) -> None:
    """From libvirt's guest to the WebSocket, with what the script wrote and nothing else; and the doctor agrees."""
    # The machine is a container, whose cgroups are the host's.
    controller.read(
        "sh", "-c", "echo 'cgroup_controllers = []' >>/etc/libvirt/qemu.conf && systemctl restart libvirtd.service"
    )
    xml = guest_xml("demo")
    controller.read("sh", "-c", 'printf %s "$0" | virsh --connect qemu:///system create /dev/stdin', xml)
    try:
        wait_until(lambda: "demo" in controller.read(CLI, "list", "-f", "value"), TIMEOUT_S, "the guest in the list")
        url = controller.read(CLI, "get-vnc-console", "demo", "novnc", "-f", "value", "-c", "Url").strip()
        assert url.startswith(f"http://{controller.address}:6080/console.html")
        with network.hosts["controller"].entered(), open_console(6080, token_of(url)) as connection:
            assert read_greeting(connection) == b"RFB 003.008\n"
        report = json.loads(controller.run(CLI, "doctor", "-f", "json", timeout_s=TIMEOUT_S).stdout)
    finally:
        controller.run("virsh", "--connect", "qemu:///system", "destroy", "demo")
    assert [finding for finding in report["findings"] if finding["severity"] == "error"] == []
    assert {"broker.ok", "memcached.ok", "libvirt.ok", "token.ok"} <= {finding["id"] for finding in report["findings"]}


def test_a_run_that_was_interrupted_before_its_restarts_has_the_next_one_do_them(controller: Machine) -> None:
    """The signal comes where the first daemon is to be restarted: everything is written, and nothing runs with it."""
    stub = 'case "$*" in *restart*) kill -TERM $PPID; exit ;; esac; exec /usr/bin/systemctl "$@"'
    controller.read("sh", "-c", 'mkdir -p /run/stub && printf "#!/bin/sh\n%s\n" "$0" >/run/stub/systemctl', stub)
    controller.read("chmod", "755", "/run/stub/systemctl")
    controller.read("sh", "-c", "echo '# mine' >>/etc/porthole/porthole.conf")
    pids = {daemon: controller.show(daemon, "MainPID") for daemon in DAEMONS}
    interrupted = controller.run(INSTALL, "all", env={"PATH": f"/run/stub:{PATH}"}, timeout_s=INSTALL_TIMEOUT_S)
    assert "changed: /etc/porthole/porthole.conf\n" in interrupted.stdout
    assert interrupted.returncode == 143, interrupted.stdout
    assert {daemon: controller.show(daemon, "MainPID") for daemon in DAEMONS} == pids

    done = controller.run(INSTALL, "all", timeout_s=INSTALL_TIMEOUT_S)

    assert done.returncode == 0, done.stdout
    assert "an earlier run was interrupted" in done.stdout
    assert all(f"changed: {daemon} is restarted\n" in done.stdout for daemon in DAEMONS), done.stdout
    assert not set(pids.values()) & {controller.show(daemon, "MainPID") for daemon in DAEMONS}
    assert controller.run(INSTALL, "all", timeout_s=INSTALL_TIMEOUT_S).stdout == "Nothing to change.\n"


@pytest.mark.parametrize("daemon", DAEMONS)
def test_reload(controller: Machine, daemon: str) -> None:
    pid = controller.show(daemon, "MainPID")
    controller.read("systemctl", "reload", daemon)
    wait_until(lambda: controller.show(daemon, "ActiveState") == "active", TIMEOUT_S, "the end of the reload")
    assert controller.show(daemon, "MainPID") == pid


def test_a_daemon_that_hangs_is_restarted(controller: Machine) -> None:
    """All at once, with a watchdog that is quicker than the unit's."""
    controller.read(
        "sh",
        "-c",
        "for u in $0 $@; do mkdir -p /run/systemd/system/$u.service.d; "
        "printf '[Service]\\nWatchdogSec=6\\n' >/run/systemd/system/$u.service.d/quick.conf; done",
        *DAEMONS,
    )
    controller.read("systemctl", "daemon-reload")
    controller.run("systemctl", "restart", *DAEMONS, timeout_s=TIMEOUT_S)
    pids = {daemon: controller.show(daemon, "MainPID") for daemon in DAEMONS}
    controller.read("kill", "-STOP", *pids.values())
    for daemon, pid in pids.items():
        wait_until(
            lambda daemon=daemon, pid=pid: controller.show(daemon, "MainPID") not in {pid, "0"}, TIMEOUT_S, daemon
        )
        wait_until(lambda daemon=daemon: controller.show(daemon, "ActiveState") == "active", TIMEOUT_S, daemon)
        assert "Watchdog timeout" in controller.read("journalctl", "--no-pager", "--unit", daemon)
    controller.read("sh", "-c", "rm -r /run/systemd/system/porthole-*.service.d && systemctl daemon-reload")


def test_a_daemon_without_what_it_needs_is_not_started(controller: Machine) -> None:
    controller.read("systemctl", "stop", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd")
    controller.run("systemctl", "--no-block", "restart", "porthole-compute")
    wait_until(
        lambda: controller.show("porthole-compute", "StatusText") == "waits for libvirt at qemu:///system",
        TIMEOUT_S,
        "compute to wait for libvirt",
    )
    assert controller.show("porthole-compute", "ActiveState") == "activating"
    controller.read("systemctl", "start", "libvirtd.socket", "libvirtd-ro.socket")
    wait_until(lambda: controller.show("porthole-compute", "ActiveState") == "active", TIMEOUT_S, "compute to be ready")


def test_uninstall_leaves_nothing_but_packages(compute: Machine) -> None:
    done = compute.run(INSTALL, "--uninstall", timeout_s=TIMEOUT_S)
    assert done.returncode == 0, done.stdout
    left = compute.read(
        "find", "/", "-xdev", "-iname", "*porthole*", "-not", "-path", "/proc/*", "-not", "-path", "/src*"
    )
    # The settings that keep RabbitMQ and its port mapper on loopback stay, since those do.
    assert set(left.split()) == {
        "/etc/rabbitmq/conf.d/10-porthole.conf",
        "/etc/systemd/system/epmd.socket.d/porthole.conf",
    }
    assert compute.run("getent", "passwd", "porthole").returncode != 0
    assert "porthole" not in compute.read("rabbitmqctl", "--silent", "list_users")
    assert compute.run(INSTALL, "--uninstall", timeout_s=TIMEOUT_S).stdout.endswith("Nothing to change.\n")


def test_the_playbook_makes_a_compute_node_of_it_with_a_join_secret(controller: Machine, compute: Machine) -> None:
    secret = controller.read(INSTALL, "join", "compute-1").strip()
    assert controller.read(INSTALL, "join", "compute-1").strip() == secret, "each time another secret"
    controller.read("sh", "-c", f"umask 022 && {INSTALL} join compute-1 --output /root/compute-1.secret")
    kept = controller.read("sh", "-c", "cat /root/compute-1.secret && stat -c %a /root/compute-1.secret")
    assert kept == f"{secret}\n600\n"
    compute.read("sh", "-c", "umask 022 && echo nothing >/root/readable")
    command = (INSTALL, "compute", "--controller", controller.address, "--join-secret-file", "/root/readable")
    refused = compute.run(*command)
    assert (refused.returncode, "chmod 600 /root/readable" in refused.stdout) == (1, True), refused.stdout
    compute.read("python3", "-m", "venv", "/opt/ansible")
    # Of its thousand modules a playbook uses few, which are compiled when they are.
    pip = ("/opt/ansible/bin/pip", "install", "--quiet", "--no-compile", "ansible-core")
    compute.run(*pip, timeout_s=INSTALL_TIMEOUT_S)
    play = [
        *("/opt/ansible/bin/ansible-playbook", "--inventory", "localhost,", "--connection", "local"),
        *("--extra-vars", f"porthole_controller={controller.address}", f"{SOURCES}/deploy/ansible/compute.yml"),
    ]
    env = {"PORTHOLE_JOIN_SECRET": secret}
    first = compute.run(*play, env=env, timeout_s=INSTALL_TIMEOUT_S)
    assert re.search(r"changed=[1-9]\d* .*failed=0", first.stdout), first.stdout[-8000:]
    # It is active because it has reached libvirt here, and the broker there by TLS.
    assert compute.show("porthole-compute", "ActiveState") == "active"
    second = compute.run(*play, env=env, timeout_s=INSTALL_TIMEOUT_S)
    assert re.search(r"changed=0 .*failed=0", second.stdout), second.stdout[-8000:]
    assert compute.run(INSTALL, "compute", timeout_s=INSTALL_TIMEOUT_S).stdout == "Nothing to change.\n"
    for text in (first.stdout, second.stdout, compute.read("journalctl", "--no-pager", "--output=cat")):
        assert secret not in text
    conf = (compute.files / "etc/porthole/porthole.conf").read_text(encoding="utf-8")
    assert f"server_proxyclient_address = {compute.address}\n" in conf


def test_a_withdrawn_secret_opens_nothing(controller: Machine, compute: Machine, network: Network) -> None:
    def connections() -> set[int]:
        """As the kernel has them: rabbitmqctl waits for each one, and one that is being closed may not answer."""
        return network.hosts["compute-1"].ports_to(controller.address, BROKER_TLS_PORT)

    wait_until(connections, TIMEOUT_S, "the compute node's connections")
    before = connections()
    # rabbitmqctl waits for each of the connections that end.
    revoked = controller.run(INSTALL, "join", "compute-1", "--revoke", timeout_s=INSTALL_TIMEOUT_S)
    assert revoked.returncode == 0, revoked.stdout
    # It tries again, by other ones.
    wait_until(lambda: not before & connections(), 30, "the end of what was connected")
    assert "porthole-compute-1" not in controller.read("rabbitmqctl", "--silent", "list_users")
