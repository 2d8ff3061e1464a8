# SPDX-License-Identifier: Apache-2.0
"""The real servers that functional tests share, and the daemons that each test starts for itself.

``rabbitmq`` and ``memcached`` live for the whole run; a test that breaks one leaves it working. A test that needs
one for itself asks for ``own_rabbitmq`` or ``own_memcached``. ``libvirtd`` starts once, and each test finds it without
guests.
"""

import gc
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from porthole_compute.drivers.libvirt_host import LibvirtDriver
from support.bus import parse_global_conf
from support.certificates import Certificate, make_certificate
from support.compute_fakes import RecordedEvents
from support.consoleauth import Caller
from support.daemons import Porthole
from support.libvirt_driver import make_driver
from support.libvirtd import Libvirtd
from support.memcached import Memcached
from support.proxy import make_web_root
from support.rabbitmq import RabbitMQ
from support.scheduling import FileScheduling
from support.site import Site
from support.visitors import Ledger, User
from support.vnc_servers import EchoVnc

# The files that take minutes begin first, so that no one of them is left over at the end of the run.
_LONG = (
    "test_install",
    "test_hosts_path",
    "test_hosts_faults",
    "test_hosts_frozen_others",
    "test_hosts_frozen_controllers",
    "test_hosts_cut",
    "test_hosts_doctor_table",
    "test_hosts_doctor",
    "test_hosts_sessions",
    "test_console_outages",
    "test_rabbitmq",
    "test_high_availability",
    "test_doctor",
)
# The files that use one site, one after the other in one process; each file works on a site that is in order.
_SHARED = {
    "test_hosts_path": "site",
    "test_hosts_faults": "site",
    "test_hosts_frozen_others": "site",
    "test_hosts_frozen_controllers": "second site",
    "test_hosts_cut": "second site",
    "test_hosts_doctor_table": "doctor's site",
    "test_hosts_doctor": "doctor's site",
}


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, also in a run that a shell has put into the background.

    There SIGINT is ignored, which every child inherits, and a shell cannot trap what it was started to ignore.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    """Keep files that share a site in one process."""
    return FileScheduling(config, log, _SHARED) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the long files in front; each file's stay together, in their order."""
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    with Memcached() as store:
        yield store


@pytest.fixture(scope="session")
def libvirtd_of_run() -> Iterator[Libvirtd]:
    with Libvirtd() as daemon:
        yield daemon


@pytest.fixture
def libvirtd(libvirtd_of_run: Libvirtd) -> Iterator[Libvirtd]:
    """A running libvirtd without guests; what a test stops or freezes runs again for the next one."""
    yield libvirtd_of_run
    libvirtd_of_run.resume()
    if not libvirtd_of_run.process.running:
        libvirtd_of_run.start()
    libvirtd_of_run.remove_guests()


@pytest.fixture(scope="session")
def rabbitmq_to_break(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq-to-break")) as broker:
        yield broker


@pytest.fixture
def own_rabbitmq(rabbitmq_to_break: RabbitMQ) -> Iterator[RabbitMQ]:
    """A broker that the test may stop, kill and freeze; it runs again for the next one, since a start takes long."""
    yield rabbitmq_to_break
    rabbitmq_to_break.resume()
    if not rabbitmq_to_break.process.running:
        rabbitmq_to_break.start()


@pytest.fixture
def events() -> RecordedEvents:
    return RecordedEvents()


@pytest.fixture
def driver(libvirtd: Libvirtd, events: RecordedEvents) -> Iterator[LibvirtDriver]:
    driver = make_driver(libvirtd)
    driver.start(events)
    yield driver
    driver.stop()


@pytest.fixture
def own_memcached() -> Iterator[Memcached]:
    with Memcached() as store:
        yield store


@pytest.fixture
def collected() -> Iterator[None]:
    """Have what a broken broker left collected within the test that broke it: py-amqp leaves sockets open."""
    yield
    gc.collect()


@pytest.fixture
def make_caller() -> Iterator[Callable[[RabbitMQ], Caller]]:
    made: list[Caller] = []
    parse_global_conf()

    def make(broker: RabbitMQ) -> Caller:
        made.append(Caller(broker))
        return made[-1]

    yield make
    for caller in made:
        caller.rpc.close()
    cfg.CONF.reset()


@pytest.fixture
def caller(rabbitmq: RabbitMQ, make_caller: Callable[[RabbitMQ], Caller]) -> Caller:
    return make_caller(rabbitmq)


@pytest.fixture(scope="session")
def site_of_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two controllers, two computes with a guest each, a memcached that has a host of its own, and a user's host."""
    with Site(tmp_path_factory.mktemp("site"), guests=1, store_apart=True) as running:
        yield running


@pytest.fixture(scope="session")
def doctors_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with which ``porthole doctor`` finds no fault."""
    options = {"novncproxy": {"max_sessions": 100}}
    with Site(tmp_path_factory.mktemp("doctors-site"), screens=1, guests=1, options=options) as running:
        for node in (*running.controllers, *running.computes):
            node.porthole.conf_path.chmod(0o640)
        yield running


@pytest.fixture
def make_porthole(tmp_path: Path, rabbitmq: RabbitMQ, memcached: Memcached) -> Iterator[Callable[..., Porthole]]:
    """A maker of running sets of daemons; its arguments are those of :class:`Porthole` after the directory.

    ``rabbitmq`` and ``memcached`` default to the shared ones. Everything is stopped at the end of the test.
    """
    made: list[Porthole] = []

    def make(**arguments: Any) -> Porthole:
        arguments = {"rabbitmq": rabbitmq, "memcached": memcached, **arguments}
        porthole = Porthole(tmp_path / f"porthole{len(made)}", **arguments)
        made.append(porthole)
        porthole.start()
        return porthole

    yield make
    for porthole in made:
        porthole.stop()


@pytest.fixture
def report(capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """A printer of lines that people see in the output of a run that passed too: what a test has counted."""

    def write(line: str) -> None:
        # To stderr: pytest-xdist's processes have no other.
        with capfd.disabled():
            sys.stderr.write(f"\n{line}\n")
            sys.stderr.flush()

    return write


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Whatever a test enters here ends with it, the last first."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def echo(stack: ExitStack) -> EchoVnc:
    """A VNC server that returns what it gets."""
    return stack.enter_context(EchoVnc())


@pytest.fixture(scope="module")
def web_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small web root for proxies in this process."""
    return make_web_root(tmp_path_factory.mktemp("web"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for this machine's loopback names, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server_context(certificate: Certificate) -> ssl.SSLContext:
    """What a proxy that the test itself builds shakes hands with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.cert, certificate.key)
    return context


@pytest.fixture(scope="module")
def client_context(certificate: Certificate) -> ssl.SSLContext:
    """What a client shakes hands with that believes the certificate, and no other."""
    return ssl.create_default_context(cafile=certificate.cert)


@pytest.fixture
def user(site: Site) -> Iterator[User]:
    """Somebody at a host of his own, for files that have a ``site`` of several hosts."""
    with site.user.entered():
        yield User(site, Ledger())
