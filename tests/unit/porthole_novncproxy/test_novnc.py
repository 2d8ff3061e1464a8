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


def test_the_library_is_enough_and_the_application_is_known(root: Path) -> None:
    assert (novnc.is_there(str(root)), novnc.has_application(str(root))) == (True, True)
    (root / "vnc_lite.html").rename(root / "vnc.html")
    assert (novnc.is_there(str(root)), novnc.has_application(str(root))) == (True, True)
    (root / "vnc.html").unlink()
    assert (novnc.is_there(str(root)), novnc.has_application(str(root))) == (True, False)
    (root / "core" / "rfb.js").unlink()
    assert not novnc.is_there(str(root))
    (root / "core" / "rfb.js").mkdir()
    assert not novnc.is_there(str(root))


def test_why_it_is_not_there(root: Path) -> None:
    (root / "core" / "rfb.js").unlink()
    assert novnc.explain_absence(str(root)).startswith("has no noVNC in it: core/rfb.js")
    (root / "lib").mkdir()
    (root / "lib" / "rfb.js").write_text('exports["default"] = void 0;', encoding="utf-8")
    assert not novnc.is_there(str(root))
    assert novnc.explain_absence(str(root)).startswith("has noVNC as CommonJS alone (lib/rfb.js)")


def test_no_root() -> None:
    for root in ("", None, "/nowhere", "/dev/null", "/" + "x" * 5000, "/a\0b"):
        with naming(root):
            assert not novnc.is_there(root)
            assert novnc.find_version(root) is None


def test_a_release_says_its_version(root: Path) -> None:
    cases = [
        ('{"name": "@novnc/novnc", "version": "1.5.0"}', "1.5.0"),
        ('{"name": "@novnc/novnc", "version": "1.7.0-beta"}', "1.7.0-beta"),
        ('{"name": "@novnc/novnc"}', None),
        ('{"name": "@novnc/novnc", "version": 5}', None),
        ('{"name": "@novnc/novnc", "version": ""}', None),
        ('{"name": "@novnc/novnc", "version": "1.3.0\\u001b[2J"}', None),
        (f'{{"name": "@novnc/novnc", "version": "{"1" * 65}"}}', None),
        ('{"name": "my-portal", "version": "0.1.0"}', None),
        ('{"name": ["novnc"], "version": "1.5.0"}', None),
        ('{"version": "1.5.0"}', None),
        ("", None),
        ("[]", None),
        ("{", None),
        ("[" * 100_000, None),
    ]
    for text, version in cases:
        with naming(text, version):
            (root / "package.json").write_text(text, encoding="utf-8")
            assert novnc.find_version(str(root)) == version
    (root / "package.json").unlink()
    assert novnc.find_version(str(root)) is None
    (root / "package.json").mkdir()
    assert novnc.find_version(str(root)) is None


def test_debians_package_is_asked_for_its_own_root_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status"
    status.write_text(STATUS, encoding="utf-8")
    assert novnc.find_version(str(root), status) is None
    monkeypatch.setattr(novnc, "DEBIAN_ROOT", root.resolve())
    assert novnc.find_version(str(root), status) == "1.3.0"
    assert novnc.find_version(str(root), tmp_path / "gone") is None
