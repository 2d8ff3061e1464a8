# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from porthole_novncproxy import novnc
from support.cases import naming
from support.proxy import make_web_root

STATUS = """Package: novnc-doc
Version: 9.9.9-1

Package: novnc
Status: install ok installed
Architecture: all
Version: 1:1.3.0-1
Depends: python3

Package: other
Version: 2.0-1
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_web_root(tmp_path)


def test_what_the_pages_need(tmp_path: Path) -> None:
    for missing in ("core/rfb.js", "vnc_lite.html"):
        with naming(missing):
            folder = tmp_path / missing.replace("/", "-")
            folder.mkdir()
            root = make_web_root(folder)
            assert novnc.is_there(str(root))
            (root / missing).unlink()
            assert not novnc.is_there(str(root))


def test_no_root() -> None:
    for root in ("", None, "/nowhere"):
        with naming(root):
            assert not novnc.is_there(root)
            assert novnc.find_version(root) is None


def test_a_release_says_its_version(root: Path) -> None:
    cases = [
        ('{"name": "@novnc/novnc", "version": "1.5.0"}', "1.5.0"),
        ('{"version": 5}', None),
        ("[]", None),
        ("{", None),
        ("[" * 100_000, None),
    ]
    for text, version in cases:
        with naming(text, version):
            (root / "package.json").write_text(text, encoding="utf-8")
            assert novnc.find_version(str(root)) == version


def test_debians_package_is_asked_for_its_own_root_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status"
    status.write_text(STATUS, encoding="utf-8")
    assert novnc.find_version(str(root), status) is None
    monkeypatch.setattr(novnc, "DEBIAN_ROOT", root.resolve())
    assert novnc.find_version(str(root), status) == "1.3.0"
    assert novnc.find_version(str(root), tmp_path / "gone") is None
