# SPDX-License-Identifier: Apache-2.0
"""VeNCrypt with the servers that people have: QEMU on its own, QEMU behind libvirt and the four daemons, TigerVNC."""

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid as uuidlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from porthole_common.model import ConsoleType
from support.browser import read_pixels
from support.certificates import Authority
from support.console import (
    exchange_rfb,
    get_console,
    open_console,
    refusal,
    token_of,
    wait_for_instances,
)
from support.daemons import Porthole
from support.libvirtd import Libvirtd, guest_xml
from support.processes import wait_until
from support.proxy import Address, InProcessProxy
from support.qemu import QemuVnc, anonymous, x509
from support.secure_vnc import security_of
from support.xvnc import Xvnc
from support.xvp_viewer import ViewerPort

SECURITY_RST = Path(__file__).parents[2] / "doc" / "source" / "security.rst"
PASSWORD = "s3cret"
VIEWER_TIMEOUT_S = 60
Make = Callable[..., InProcessProxy]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def make(web_root: Path, stack: ExitStack, authority: Authority) -> Make:
    """A maker of proxies with ``vencrypt`` unless ``schemes`` says otherwise, and options of that name."""

    def run(*schemes: str, **options: object) -> InProcessProxy:
        security = security_of(*(schemes or ("vencrypt",)), **{"ca_certs": authority.cert, **options})
        return stack.enter_context(InProcessProxy(web_root, security=security))

    return run


def status_of(proxy: InProcessProxy, server: Address) -> int:
    return refusal(proxy.novnc_port, proxy.issue(server))


def desktop_of(proxy: InProcessProxy, server: Address) -> str:
    with open_console(proxy.novnc_port, proxy.issue(server)) as connection:
        return exchange_rfb(connection)


def vncdo(url: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run a native viewer that somebody else wrote, at a console of the xvpvnc door."""
    with ViewerPort(url) as port:
        argv = [sys.executable, "-m", "vncdotool.command", "--nocursor", "-s", f"127.0.0.1::{port.port}", *commands]
        return subprocess.run(argv, capture_output=True, text=True, timeout=VIEWER_TIMEOUT_S, check=False)


def xvp_url(proxy: InProcessProxy, server: Address) -> str:
    return f"http://127.0.0.1:{proxy.xvp_port}/console?token={proxy.issue(server, ConsoleType.XVPVNC)}"


@pytest.fixture(scope="module")
def qemu(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[QemuVnc]:
    """QEMU with a certificate for 127.0.0.1, which lets everybody in."""
    directory = tmp_path_factory.mktemp("qemu")
    with QemuVnc(directory / "guest", x509(directory / "pki", authority, authority.issue(chain=False))) as server:
        yield server


def test_a_viewer_sees_every_pixel_of_qemus_screen(make: Make, qemu: QemuVnc, tmp_path: Path) -> None:
    proxy = make()
    assert desktop_of(proxy, qemu) == "QEMU (guest)"
    shot = tmp_path / "shot.png"
    ran = vncdo(xvp_url(proxy, qemu), "capture", str(shot))
    assert ran.returncode == 0, ran.stderr
    seen, shown = read_pixels(shot.read_bytes()), read_pixels(qemu.screenshot(tmp_path / "qemu.ppm").read_bytes())
    assert len(np.unique(shown)) > 1
    assert np.array_equal(seen, shown)


def test_whom_the_proxy_does_not_believe(make: Make, qemu: QemuVnc, tmp_path: Path, authority: Authority) -> None:
    """S15: a certificate of another authority, and one of the right authority for another host."""
    assert status_of(make(), qemu) == 101
    assert status_of(make(ca_certs=Authority(tmp_path, "other").cert), qemu) == 502
    elsewhere = authority.issue("compute-2.example", chain=False)
    with QemuVnc(tmp_path / "elsewhere", x509(tmp_path / "pki", authority, elsewhere)) as server:
        assert status_of(make(), server) == 502


def test_a_qemu_that_checks_its_viewers(make: Make, authority: Authority, tmp_path: Path) -> None:
    theirs, ours = authority.issue(chain=False), authority.issue("proxy.example")
    foreign = Authority(tmp_path, "other").issue("proxy.example")
    credentials = x509(tmp_path / "pki", authority, theirs, verify_peer=True)
    with QemuVnc(tmp_path / "guest", credentials) as server:
        assert status_of(make(), server) == 502
        assert status_of(make(client_cert=foreign.cert, client_key=foreign.key), server) == 502
        assert desktop_of(make(client_cert=ours.cert, client_key=ours.key), server) == "QEMU (guest)"


def test_an_address_of_ipv6_is_looked_for_in_the_certificate_too(
    make: Make, authority: Authority, tmp_path: Path
) -> None:
    for name, names, status in (("right", ["::1"], 101), ("wrong", ["::2", "127.0.0.1"], 502)):
        certificate = authority.issue(chain=False, alternative_names=names)
        with QemuVnc(tmp_path / name, x509(tmp_path / f"{name}-pki", authority, certificate), host="::1") as server:
            assert status_of(make(), server) == status


def test_a_qemu_without_a_certificate(make: Make, tmp_path: Path) -> None:
    with QemuVnc(tmp_path / "guest", anonymous()) as server:
        assert status_of(make(), server) == 502
        assert status_of(make("vencrypt", "none"), server) == 502
        assert desktop_of(make(allow_anonymous=True), server) == "QEMU (guest)"


def test_a_qemu_without_tls(make: Make, tmp_path: Path) -> None:
    with QemuVnc(tmp_path / "guest") as server:
        assert status_of(make(), server) == 502
        assert desktop_of(make("vencrypt", "none"), server) == "QEMU (guest)"


@pytest.mark.parametrize("tls", [True, False], ids=["x509vnc", "plain"])
def test_qemus_password_is_between_the_viewer_and_qemu(
    make: Make, authority: Authority, tmp_path: Path, tls: bool
) -> None:
    credentials = x509(tmp_path / "pki", authority, authority.issue(chain=False)) if tls else ()
    with QemuVnc(tmp_path / "guest", credentials, password=PASSWORD) as server:
        proxy = make("vencrypt") if tls else make("vencrypt", "none")
        shot = tmp_path / "shot.png"
        ran = vncdo(xvp_url(proxy, server), "-p", PASSWORD, "capture", str(shot))
        assert ran.returncode == 0, ran.stderr
        shown = read_pixels(server.screenshot(tmp_path / "qemu.ppm").read_bytes())
        assert np.array_equal(read_pixels(shot.read_bytes()), shown)
        wrong = vncdo(xvp_url(proxy, server), "-p", "wrong", "capture", str(tmp_path / "none.png"))
        assert wrong.returncode != 0
        assert not (tmp_path / "none.png").exists()
        wait_until(lambda: proxy.counter.total == 0, 30, "the consoles end")


def test_tigervnc(make: Make, authority: Authority, tmp_path: Path) -> None:
    """Another hand's VeNCrypt."""
    proxy, certificate, named = make(), authority.issue(), ("-desktop", "tigervnc")
    security = [
        *named,
        "-SecurityTypes",
        "X509None",
        "-X509Cert",
        str(certificate.cert),
        "-X509Key",
        str(certificate.key),
    ]
    with Xvnc(tmp_path, security=security) as server:
        assert desktop_of(proxy, server) == "tigervnc"
        assert status_of(make(ca_certs=Authority(tmp_path, "other").cert), server) == 502
    with Xvnc(tmp_path, security=[*named, "-SecurityTypes", "TLSNone"]) as server:
        assert status_of(proxy, server) == 502
        assert desktop_of(make(allow_anonymous=True), server) == "tigervnc"


def test_the_certificates_of_the_documentation(make: Make, tmp_path: Path) -> None:
    """The commands of security.rst, as they stand there but for the address, make what QEMU and the proxy take."""
    commands = re.findall(r"^  \$ (openssl .*(?:\n      .*)*)", SECURITY_RST.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        argv = shlex.split(command.replace("\\\n", "").replace("192.0.2.11", "127.0.0.1"))
        subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    credentials = [f"tls-creds-x509,id=tls0,dir={tmp_path},endpoint=server,verify-peer=yes"]
    options = {name: tmp_path / f"{name.replace('_', '-')}.pem" for name in ("client_cert", "client_key")}
    with QemuVnc(tmp_path / "guest", credentials) as server:
        assert desktop_of(make(ca_certs=tmp_path / "ca-cert.pem", **options), server) == "QEMU (guest)"
        assert status_of(make(ca_certs=tmp_path / "ca-cert.pem"), server) == 502


# The whole path: libvirt's own setting for VNC over TLS, four daemons, other certificates while they run


@pytest.fixture
def secured_libvirtd(authority: Authority) -> Iterator[Libvirtd]:
    """A libvirtd whose guests have VNC over TLS."""
    directory = Path(tempfile.mkdtemp(prefix="porthole-libvirtd-"))
    pki = directory / "pki"
    x509(pki, authority, authority.issue(chain=False))
    for path in pki.iterdir():
        path.chmod(0o644)
    daemon = Libvirtd(directory, ["vnc_tls = 1", f'vnc_tls_x509_cert_dir = "{pki}"', "vnc_tls_x509_verify = 0"])
    try:
        with daemon:
            yield daemon
    finally:
        shutil.rmtree(directory)


def reason_of(porthole: Porthole, token: str) -> str:
    """What the console page is told about a link."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", porthole.novnc_port, timeout=20)) as page:
        page.request("GET", f"/?token={token}", headers={"Accept": "application/json"})
        reason: str = json.loads(page.getresponse().read())["reason"]
        return reason


def unsuitable_screens(porthole: Porthole) -> list[str]:
    """What ``porthole doctor`` says of VNC servers whose security the proxy does not take."""
    argv = [sys.executable, "-m", "porthole_cli.main", "doctor", "--config-file", str(porthole.conf_path), "-f", "json"]
    environment = os.environ | {"NO_PROXY": "*", "no_proxy": "*"}
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=VIEWER_TIMEOUT_S, check=False, env=environment)
    findings = json.loads(ran.stdout)["findings"]
    assert any(finding["id"].startswith("vnc.") for finding in findings), ran.stdout
    return [finding["problem"] for finding in findings if finding["id"] == "vnc.security"]


def test_the_whole_path_and_another_authority_at_a_signal(
    make_porthole: Callable[..., Porthole], secured_libvirtd: Libvirtd, authority: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "vnc-ca.pem"
    trusted.write_bytes(Authority(tmp_path, "other").cert.read_bytes())
    open_to_all, guarded = str(uuidlib.uuid4()), str(uuidlib.uuid4())
    secured_libvirtd.create(guest_xml("demo", open_to_all))
    graphics = f"<graphics type='vnc' autoport='yes' listen='127.0.0.1' passwd='{PASSWORD}'/>"
    secured_libvirtd.create(guest_xml("guarded", guarded, vnc=graphics))
    porthole = make_porthole(
        libvirt_uri=secured_libvirtd.uri,
        options={"vnc": {"auth_schemes": "vencrypt", "vencrypt_ca_certs": trusted}},
    )
    wait_for_instances(porthole, open_to_all, guarded)
    token = token_of(get_console(porthole, open_to_all))
    port, proxy = porthole.novnc_port, porthole.novncproxy
    assert refusal(port, token) == 502
    assert "not protected in the way" in reason_of(porthole, token)
    assert "its certificate is not accepted" in proxy.log()
    (problem,) = unsuitable_screens(porthole)
    assert "its certificate is not accepted" in problem

    trusted.write_bytes(authority.cert.read_bytes())
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: refusal(port, token) == 101, 20, "the right authority", proxy.log)
    with open_console(port, token) as connection:
        assert exchange_rfb(connection) == "QEMU (demo)"

    shot = tmp_path / "shot.png"
    ran = vncdo(get_console(porthole, guarded, "xvpvnc"), "-p", PASSWORD, "capture", str(shot))
    assert ran.returncode == 0, ran.stderr
    assert read_pixels(shot.read_bytes()).size

    # What does not do is said, and changes nothing.
    trusted.write_text("no certificate", encoding="utf-8")
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: "[vnc] vencrypt_ca_certs" in proxy.log(), 20, "a complaint", proxy.log)
    assert refusal(port, token) == 101
    assert "Traceback" not in proxy.log()
    assert PASSWORD not in porthole.logs()
