# SPDX-License-Identifier: Apache-2.0
import argparse
import errno
from pathlib import Path

import pytest
from oslo_config import cfg

from porthole_cli import wiring
from porthole_common import conf as porthole_conf
from porthole_common.errors import AddressUnavailable, ConfigInvalid

NOT_GIVEN = dict.fromkeys(("libvirt_uri", "driver", "instances_file", "api_port", "novnc_port", "xvp_port"))


def configure(path: Path, text: str = "", **flags: object) -> cfg.ConfigOpts:
    """Return the configuration that ``text`` as porthole.conf and ``flags`` make."""
    file = path / "porthole.conf"
    file.write_text(text, encoding="utf-8")
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "test", [f"--config-file={file}"], default_config_dirs=[])
    wiring.configure(conf, argparse.Namespace(**(NOT_GIVEN | flags)))
    return conf


class TestDefaults:
    def test_everything_is_on_loopback(self, tmp_path: Path) -> None:
        conf = configure(tmp_path)

        assert {conf.api.bind_host, conf.vnc.novncproxy_host, conf.vnc.xvpvncproxy_host} == {"127.0.0.1"}
        assert conf.vnc.novncproxy_base_url == "http://127.0.0.1:6080/console.html"
        assert conf.vnc.xvpvncproxy_base_url == "http://127.0.0.1:6081/console"

    def test_open_consoles_end_with_it(self, tmp_path: Path) -> None:
        assert configure(tmp_path).graceful_shutdown_timeout == 0


class TestFlags:
    def test_they_win_over_the_file(self, tmp_path: Path) -> None:
        text = "[api]\nbind_port = 1111\n[libvirt]\nconnection_uri = test:///file\n"

        conf = configure(tmp_path, text, api_port=2222, libvirt_uri="test:///flag")

        assert (conf.api.bind_port, conf.libvirt.connection_uri) == (2222, "test:///flag")

    def test_the_urls_follow_the_ports(self, tmp_path: Path) -> None:
        conf = configure(tmp_path, novnc_port=16080, xvp_port=16081)

        assert (conf.vnc.novncproxy_port, conf.vnc.xvpvncproxy_port) == (16080, 16081)
        assert conf.vnc.novncproxy_base_url == "http://127.0.0.1:16080/console.html"
        assert conf.vnc.xvpvncproxy_base_url == "http://127.0.0.1:16081/console"

    def test_a_url_of_the_file_stays(self, tmp_path: Path) -> None:
        conf = configure(tmp_path, "[vnc]\nnovncproxy_base_url = https://console.example/x.html\n", novnc_port=16080)

        assert conf.vnc.novncproxy_base_url == "https://console.example/x.html"

    def test_an_ipv6_loopback_is_bracketed(self, tmp_path: Path) -> None:
        conf = configure(tmp_path, "[vnc]\nnovncproxy_host = ::1\n")

        assert conf.vnc.novncproxy_base_url == "http://[::1]:6080/console.html"

    def test_with_a_certificate_the_urls_are_https(self, tmp_path: Path) -> None:
        conf = configure(tmp_path, "[DEFAULT]\ncert = /x.pem\n")

        assert conf.vnc.novncproxy_base_url == "https://127.0.0.1:6080/console.html"
        assert conf.vnc.xvpvncproxy_base_url == "https://127.0.0.1:6081/console"

    def test_an_instances_file_implies_the_static_driver(self, tmp_path: Path) -> None:
        assert configure(tmp_path, instances_file="/x.yaml").compute.driver == "static"
        assert configure(tmp_path, instances_file="/x.yaml", driver="libvirt").compute.driver == "libvirt"

    @pytest.mark.parametrize(("flag", "said"), [("api_port", "--api-port"), ("novnc_port", "--novnc-port")])
    def test_a_port_that_is_none(self, tmp_path: Path, flag: str, said: str) -> None:
        with pytest.raises(ConfigInvalid, match=f"^{said} .*65535"):
            configure(tmp_path, **{flag: 70000})


class TestLoopback:
    @pytest.mark.parametrize(
        ("group", "option"),
        [("api", "bind_host"), ("metrics", "bind_host"), ("vnc", "novncproxy_host"), ("vnc", "xvpvncproxy_host")],
    )
    @pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "console.example"])
    def test_any_other_address_is_refused(self, tmp_path: Path, group: str, option: str, address: str) -> None:
        with pytest.raises(ConfigInvalid, match=rf"^\[{group}\] {option}: .*{address}"):
            configure(tmp_path, f"[{group}]\n{option} = {address}\n")

    @pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
    def test_loopback_has_several_names(self, tmp_path: Path, address: str) -> None:
        assert configure(tmp_path, f"[api]\nbind_host = {address}\n").api.bind_host == address


class TestAnnouncement:
    def test_it_says_what_to_type(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        wiring.Announcement(configure(tmp_path), lambda: "").start()

        said = capsys.readouterr().out
        assert "does not answer" not in said
        assert "http://127.0.0.1:8774/v2.1" in said
        assert "\n    porthole get-vnc-console SERVER\n" in said

    def test_another_port_is_in_the_command(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        wiring.Announcement(configure(tmp_path, api_port=1234), lambda: "").start()

        assert "porthole --os-endpoint http://127.0.0.1:1234/v2.1 list" in capsys.readouterr().out

    def test_a_hypervisor_that_does_not_answer(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        wiring.Announcement(configure(tmp_path), lambda: "libvirt at test:///x").start()

        assert "\nlibvirt at test:///x does not answer; porthole doctor says why\n" in capsys.readouterr().out


class TestFlagOfATakenPort:
    def test_an_address_that_is_not_this_machines(self) -> None:
        error = AddressUnavailable(
            "[vnc] novncproxy_host, novncproxy_port", "::1:6080: Cannot assign requested address"
        )
        error.__cause__ = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

        assert wiring.name_flag(error) is error

    def test_the_flag_is_named_and_the_kind_of_error_kept(self) -> None:
        for kind in (AddressUnavailable, ConfigInvalid):
            named = wiring.name_flag(kind("[api] bind_port", "cannot listen"))
            assert (type(named), str(named)) == (kind, "--api-port ([api] bind_port): cannot listen")

    def test_an_option_without_a_flag(self) -> None:
        error = ConfigInvalid("[api] bind_host", "cannot listen")

        assert wiring.name_flag(error) is error
