# SPDX-License-Identifier: Apache-2.0
"""porthole-api behind haproxy, with TLS and below a path of the proxy's: every link leads back through it.

Once haproxy says with headers where it stands, and once the api knows by ``[api] public_endpoint``. The configuration
of haproxy is that of doc/source/configuration.rst.
"""

import json
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from support.certificates import make_certificate
from support.daemons import Porthole
from support.memcached import Memcached
from support.openstack import run_script
from support.ports import free_port
from support.processes import Process, wait_until
from support.rabbitmq import RabbitMQ

UUIDS = [f"5a9d4f5e-0000-4000-8000-00000000000{number}" for number in (1, 2, 3)]
LOGIN = {"Authorization": f"Basic {b64encode(b'rita:rita').decode()}"}
PREFIX = "/compute"
FRONTEND = """
frontend {name}
    bind 127.0.0.1:{port} ssl crt {pem}
    {headers}
    http-request replace-path {prefix}(/.*)? \\1
    default_backend {name}
backend {name}
    server api 127.0.0.1:{api_port}
"""
HEADERS = """option forwardfor
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Prefix /compute"""
# An unmodified client, which follows the version document's link and then each page's.
SDK = """
import json, sys
import openstack
compute = openstack.connect(**json.loads(sys.argv[1])).compute
print(json.dumps({
    "servers": [server.id for server in compute.servers(limit=1)],
    "found": compute.find_server("vm-2", ignore_missing=False).id,
    "url": compute.create_console(compute.get_server(sys.argv[2]), console_type="novnc")["url"],
}))
"""


@dataclass(frozen=True)
class Proxied:
    """The api as its users see it."""

    url: str
    cacert: Path

    def get(self, url: str) -> Any:
        """Return the body of what is at ``url``, which may be a link out of another answer."""
        assert url.startswith(f"{self.url}/"), url
        handler = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.cacert))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)
        with opener.open(urllib.request.Request(url, headers=LOGIN), timeout=60) as answer:  # noqa: S310
            return json.load(answer)


@pytest.fixture(scope="module")
def proxies(
    tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ, memcached: Memcached
) -> Iterator[dict[str, Proxied]]:
    directory = tmp_path_factory.mktemp("proxied")
    (directory / "htpasswd").write_text(f"rita:{bcrypt.hashpw(b'rita', bcrypt.gensalt(4)).decode()}")
    rows = [
        {"uuid": uuid, "name": f"vm-{number}", "host": "127.0.0.1", "port": 5900, "project_id": "rita"}
        for number, uuid in enumerate(UUIDS, 1)
    ]
    (directory / "instances.yaml").write_text(json.dumps({"instances": rows}))
    certificate = make_certificate(directory)
    pem = directory / "both.pem"
    pem.write_bytes(certificate.cert.read_bytes() + certificate.key.read_bytes())
    ports = {name: free_port() for name in ("headers", "endpoint")}
    users = {name: Proxied(f"https://localhost:{port}{PREFIX}", certificate.cert) for name, port in ports.items()}
    options = {
        "api": {"auth_strategy": "http_basic", "http_basic_auth_user_file": directory / "htpasswd"},
        "oslo_middleware": {"enable_proxy_headers_parsing": True},
    }
    porthole = Porthole(
        directory,
        rabbitmq,
        memcached,
        instances_file=directory / "instances.yaml",
        options=options,
        daemons=["consoleauth", "compute", "api"],
    )
    endpoint_port = free_port()
    alone = {
        "api": {"bind_port": endpoint_port, "public_endpoint": users["endpoint"].url},
        "oslo_middleware": {"enable_proxy_headers_parsing": False},
    }
    porthole.add("api", "endpoint", alone)
    text = "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
    for name, headers, api_port in (("headers", HEADERS, porthole.api_port), ("endpoint", "", endpoint_port)):
        text += FRONTEND.format(name=name, port=ports[name], pem=pem, headers=headers, prefix=PREFIX, api_port=api_port)
    (directory / "haproxy.cfg").write_text(text)
    haproxy = Process(["haproxy", "-f", str(directory / "haproxy.cfg")], directory / "haproxy.log", name="haproxy")
    with porthole:
        porthole.start_daemon("endpoint")
        haproxy.start()
        try:
            for proxied in users.values():
                wait_until(lambda proxied=proxied: knows_all(proxied), 60, "the instances", haproxy.log)
            yield users
        finally:
            haproxy.stop()


def knows_all(proxied: Proxied) -> bool:
    try:
        return len(proxied.get(f"{proxied.url}/v2.1/servers")["servers"]) == len(UUIDS)
    except OSError:
        return False


@pytest.fixture(params=["headers", "endpoint"])
def proxied(request: pytest.FixtureRequest, proxies: dict[str, Proxied]) -> Proxied:
    return proxies[request.param]


@pytest.mark.parametrize("base", ["/v2.1", "/v2.1/rita"])
@pytest.mark.parametrize("path", ["/servers", "/servers/detail"])
def test_the_links_of_pages_lead_through_the_proxy(proxied: Proxied, base: str, path: str) -> None:
    seen, url = [], f"{proxied.url}{base}{path}?limit=1"
    while url:
        page = proxied.get(url)
        seen += [server["id"] for server in page["servers"]]
        assert proxied.get(page["servers"][0]["links"][0]["href"])["server"]["id"] == seen[-1]
        url = next((link["href"] for link in page.get("servers_links", []) if link["rel"] == "next"), "")
    assert seen == UUIDS


def test_the_version_document_and_openapi_name_the_proxy(proxied: Proxied) -> None:
    for version in (proxied.get(f"{proxied.url}/v2.1")["version"], *proxied.get(f"{proxied.url}/")["versions"]):
        assert version["links"][0]["href"] == f"{proxied.url}/v2.1/"
    assert proxied.get(f"{proxied.url}/v2.1/openapi.json")["servers"] == [{"url": proxied.url}]


def test_an_unmodified_client_lists_finds_and_opens(proxied: Proxied) -> None:
    auth = {"endpoint": f"{proxied.url}/v2.1", "username": "rita", "password": "rita"}
    arguments = {"auth_type": "http_basic", "auth": auth, "cacert": str(proxied.cacert)}
    seen = json.loads(run_script(SDK, {}, json.dumps(arguments), UUIDS[0]))
    assert (seen["servers"], seen["found"]) == (UUIDS, UUIDS[1])
    assert "token%3D" in seen["url"]
