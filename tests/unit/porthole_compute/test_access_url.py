# SPDX-License-Identifier: Apache-2.0

from typing import cast

import pytest

from porthole_common.model import ConsoleType
from porthole_compute.access_url import build_access_url, build_novnc_url, build_xvpvnc_url
from support.cases import naming

TOKEN = "0f0f0f0f-1111-4222-8333-444444444444"


def test_the_novnc_url() -> None:
    cases = [
        ("http://127.0.0.1:6080/console.html", f"http://127.0.0.1:6080/console.html?path=%3Ftoken%3D{TOKEN}"),
        (
            "https://c.example/vnc_lite.html?scale=1&a=%20",
            f"https://c.example/vnc_lite.html?scale=1&a=%20&path=%3Ftoken%3D{TOKEN}",
        ),
        ("http://[::1]:6080/vnc.html", f"http://[::1]:6080/vnc.html?path=%3Ftoken%3D{TOKEN}"),
        ("http://c.example/x?path=sub%2Fws", f"http://c.example/x?path=sub%2Fws%3Ftoken%3D{TOKEN}"),
        ("http://c.example/x?path=ws%3Fa%3D1&b=2", f"http://c.example/x?b=2&path=ws%3Fa%3D1%26token%3D{TOKEN}"),
        ("http://c.example/x#f", f"http://c.example/x?path=%3Ftoken%3D{TOKEN}#f"),
    ]
    for base_url, expected in cases:
        with naming(base_url, expected):
            assert build_novnc_url(base_url, TOKEN) == expected


def test_the_xvpvnc_url() -> None:
    cases = [
        ("http://127.0.0.1:6081/console", f"http://127.0.0.1:6081/console?token={TOKEN}"),
        ("http://c.example/console?a=1", f"http://c.example/console?a=1&token={TOKEN}"),
    ]
    for base_url, expected in cases:
        with naming(base_url, expected):
            assert build_xvpvnc_url(base_url, TOKEN) == expected


def test_each_console_type_has_a_url_and_an_unknown_one_is_an_error() -> None:
    bases = {"novnc_base_url": "http://n.example/vnc.html", "xvpvnc_base_url": "http://x.example/console"}
    urls = {str(kind): build_access_url(kind, TOKEN, **bases) for kind in ConsoleType}
    assert urls == {
        "novnc": build_novnc_url("http://n.example/vnc.html", TOKEN),
        "xvpvnc": build_xvpvnc_url("http://x.example/console", TOKEN),
    }
    with pytest.raises(AssertionError, match="serial"):
        build_access_url(cast("ConsoleType", "serial"), TOKEN, **bases)
