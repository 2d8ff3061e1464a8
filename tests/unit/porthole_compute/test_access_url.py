# SPDX-License-Identifier: Apache-2.0

from porthole_compute.access_url import build_novnc_url, build_xvpvnc_url
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
