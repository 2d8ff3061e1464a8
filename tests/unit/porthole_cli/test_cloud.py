# SPDX-License-Identifier: Apache-2.0
import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from keystoneauth1 import adapter

from porthole_cli import cloud
from porthole_cli.client import ComputeClient
from porthole_cli.errors import ApiRefused, CloudInvalid
from support.nova_api import KEYSTONE_TOKEN, NovaApi

# openstacksdk's own, at its import; it imports influxdb nowhere else.
pytestmark = pytest.mark.filterwarnings("ignore:Support for InfluxDB")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No OS_* variable, and no clouds.yaml but one in the working directory."""
    for name in os.environ:
        if name.startswith("OS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def api() -> Iterator[NovaApi]:
    with NovaApi() as running:
        running.add_server("2a5a0a3e-7c5f-4c8e-9d0a-0c1d2e3f4a5b", "web")
        yield running


def open_with(*argv: str) -> adapter.Adapter:
    parser = argparse.ArgumentParser()
    cloud.register_options(parser, argv)
    return cloud.open_cloud(parser.parse_args(argv))


def list_names(opened: adapter.Adapter) -> list[str]:
    return [server["name"] for server in ComputeClient(opened).list_servers()]


class TestNothingSet:
    def test_the_porthole_of_this_machine_without_authentication(self) -> None:
        opened = open_with()

        assert opened.get_endpoint() == "http://127.0.0.1:8774/v2.1"
        assert opened.default_microversion is None
        assert opened.session.timeout == cloud.TIMEOUT_S


class TestNone:
    def test_by_flags(self, api: NovaApi) -> None:
        assert list_names(open_with("--os-auth-type", "none", "--os-endpoint", api.url)) == ["web"]

    def test_with_the_flags_of_the_openstack_client(self, api: NovaApi) -> None:
        """As its users without Keystone give them."""
        flags = ("--os-auth-type", "none", "--os-endpoint", api.url, "--os-identity-api-version", "3")
        assert list_names(open_with(*flags)) == ["web"]
        assert open_with(*flags, "--insecure").session.verify is False
        assert open_with(*flags, "--insecure", "--verify").session.verify is True

    def test_by_the_endpoint_alone(self, api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OS_ENDPOINT", api.url)

        assert list_names(open_with()) == ["web"]

    def test_white_space_at_the_ends_of_the_endpoint_is_of_no_matter(
        self, api: NovaApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for end in ("\r", " ", "\n"):
            monkeypatch.setenv("OS_ENDPOINT", api.url + end)
            assert list_names(open_with()) == ["web"]

    def test_a_flag_wins_over_the_variable(self, api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OS_ENDPOINT", "http://127.0.0.1:9/v2.1")

        assert list_names(open_with("--os-endpoint", api.url)) == ["web"]

    def test_the_compute_endpoint_override(self, api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OS_COMPUTE_ENDPOINT_OVERRIDE", api.url)

        assert list_names(open_with()) == ["web"]


class TestHttpBasic:
    def test_user_and_password(self, api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
        api.basic = ("demo", "s3cret")
        for name, value in (("AUTH_TYPE", "http_basic"), ("ENDPOINT", api.url), ("USERNAME", "demo")):
            monkeypatch.setenv(f"OS_{name}", value)
        monkeypatch.setenv("OS_PASSWORD", "s3cret")

        assert list_names(open_with()) == ["web"]

    def test_a_wrong_password(self, api: NovaApi) -> None:
        api.basic = ("demo", "s3cret")
        login = ("--os-auth-type", "http_basic", "--os-username", "demo", "--os-password", "guess")

        with pytest.raises(ApiRefused, match=r"^The request you have made requires authentication. \(HTTP 401\)$"):
            list_names(open_with(*login, "--os-endpoint", api.url))


class TestKeystone:
    @pytest.fixture(autouse=True)
    def with_keystone(self, api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
        api.keystone = True
        monkeypatch.setenv("OS_AUTH_URL", f"{api.root}/v3")
        for name in ("OS_USER_DOMAIN_NAME", "OS_PROJECT_DOMAIN_NAME"):
            monkeypatch.setenv(name, "Default")
        monkeypatch.setenv("OS_PROJECT_NAME", "demo")

    def test_an_auth_url_means_a_password(self, api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OS_USERNAME", "demo")
        monkeypatch.setenv("OS_PASSWORD", "s3cret")

        assert list_names(open_with()) == ["web"]
        [login] = api.sent("POST")
        assert login.body["auth"]["identity"]["password"]["user"]["password"] == "s3cret"
        assert api.sent("GET")[-1].headers["x-auth-token"] == KEYSTONE_TOKEN

    def test_an_auth_url_and_a_token_mean_a_token(self, api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OS_TOKEN", "earlier")

        assert list_names(open_with()) == ["web"]
        assert api.sent("POST")[0].body["auth"]["identity"]["token"] == {"id": "earlier"}

    def test_a_refused_password(self, api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OS_USERNAME", "demo")
        monkeypatch.setenv("OS_PASSWORD", "guess")
        fault = {"error": {"code": 401, "message": "The request you have made requires authentication."}}
        api.answers["POST /v3/auth/tokens"] = (401, fault)

        with pytest.raises(ApiRefused, match=r"requires authentication. \(HTTP 401\)$"):
            list_names(open_with())

    def test_keystone_is_away(self, monkeypatch: pytest.MonkeyPatch, api: NovaApi) -> None:
        api.__exit__(None, None, None)
        monkeypatch.setenv("OS_USERNAME", "demo")
        monkeypatch.setenv("OS_PASSWORD", "s3cret")

        with pytest.raises(Exception, match=rf"^[^\n]*{api.root}/v3[^\n]*$") as caught:
            list_names(open_with())

        assert type(caught.value).__name__ == "ApiUnavailable"
        # Started again for the fixture to stop.
        api.__enter__()


class TestCloudsYaml:
    # openstacksdk works out the rest of its search path when it is imported, once for all tests of a process.
    @pytest.fixture(autouse=True)
    def in_the_working_directory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(Path("clouds.yaml").absolute()))

    def write(self, api: NovaApi) -> None:
        Path("clouds.yaml").write_text(
            f"clouds:\n  lab:\n    auth_type: none\n    auth: {{endpoint: '{api.url}'}}\n"
            f"  basic:\n    auth_type: http_basic\n"
            f"    auth: {{endpoint: '{api.url}', username: demo, password: s3cret}}\n"
            f"    compute_default_microversion: '2.5'\n",
            encoding="utf-8",
        )

    def test_by_flag(self, api: NovaApi) -> None:
        self.write(api)
        opened = open_with("--os-cloud", "lab")

        assert list_names(opened) == ["web"]
        assert opened.session.timeout == cloud.TIMEOUT_S

    def test_by_variable(self, api: NovaApi, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(api)
        monkeypatch.setenv("OS_CLOUD", "lab")

        assert list_names(open_with()) == ["web"]

    def test_its_credentials_and_microversion(self, api: NovaApi) -> None:
        self.write(api)
        api.basic = ("demo", "s3cret")
        opened = open_with("--os-cloud", "basic")

        assert list_names(opened) == ["web"]
        assert opened.default_microversion == "2.5"

    def test_a_flag_wins_over_the_file(self, api: NovaApi) -> None:
        self.write(api)

        assert open_with("--os-cloud", "basic", "--os-compute-api-version", "2.8").default_microversion == "2.8"

    def test_the_flags_of_the_openstack_client_do(self, api: NovaApi) -> None:
        self.write(api)
        flags = ("--os-cloud", "basic", "--os-identity-api-version", "3", "--insecure")
        assert open_with(*flags).session.verify is False
        assert open_with(*flags, "--verify").session.verify is True

    def test_an_unknown_cloud(self, api: NovaApi) -> None:
        self.write(api)

        with pytest.raises(CloudInvalid, match=r"^Cloud moon was not found\. \(clouds\.yaml is searched in"):
            open_with("--os-cloud", "moon")

    def test_a_shape_that_is_no_cloud_is_one_line_with_file_and_key(self) -> None:
        for text, key in (("clouds:", "clouds"), ("clouds: {lab: {auth: hello}}", "clouds.lab.auth")):
            Path("clouds.yaml").write_text(text, encoding="utf-8")
            with pytest.raises(CloudInvalid, match=rf"^/.*/clouds\.yaml: the key '{key}' must be"):
                open_with("--os-cloud", "lab")


class TestInvalid:
    def test_an_unknown_authentication_type(self) -> None:
        with pytest.raises(CloudInvalid, match="magic"):
            open_with("--os-auth-type", "magic")

    def test_keystone_without_its_url(self) -> None:
        with pytest.raises(CloudInvalid, match="auth_url"):
            open_with("--os-auth-type", "password", "--os-username", "demo")

    def test_http_basic_without_an_endpoint(self) -> None:
        with pytest.raises(CloudInvalid, match="--os-endpoint"):
            list_names(open_with("--os-auth-type", "http_basic", "--os-username", "a", "--os-password", "b"))

    @pytest.mark.parametrize("text", ["two", "2.x"])
    def test_a_microversion_that_is_none(self, text: str) -> None:
        with pytest.raises(CloudInvalid, match=f"'{text}' is not a microversion"):
            open_with("--os-compute-api-version", text)

    @pytest.mark.parametrize(("text", "meant"), [("2", None), ("", None), ("2.latest", "latest"), ("2.42", "2.42")])
    def test_a_microversion_as_openstacks_clients_write_it(self, text: str, meant: str | None) -> None:
        assert open_with("--os-compute-api-version", text).default_microversion == meant
