# SPDX-License-Identifier: Apache-2.0
"""Which file a URL path names; ``porthole_novncproxy/front/test_pages.py`` has how the proxy answers by these rules."""

import os
from pathlib import Path

from porthole_common import static_files
from support.cases import naming


def test_a_target_that_could_name_another_host_is_not_harmless() -> None:
    for path, is_harmless in (
        ("/", True),
        ("/core/rfb.js", True),
        ("//host/x", False),
        ("/\\host", False),
        ("/x%5Cy", False),
        ("x", False),
        ("/x y", False),
        ("/caf\u00e9", False),
        ("", False),
    ):
        with naming(path):
            assert static_files.is_harmless_target(path, path) is is_harmless


def test_the_parts_of_a_path_are_decoded_and_lead_nowhere_else() -> None:
    for path, names in (
        ("/", [""]),
        ("/a/b%20c.js", ["a", "b c.js"]),
        ("/a//b", None),
        ("/a/", None),
        ("/..", None),
        ("/%2e%2e/x", None),
        ("/a%2Fb", None),
        ("/.git", None),
        ("/a%00", None),
        ("/%ff", None),
    ):
        with naming(path):
            assert static_files.parse_names(path) == names


def test_a_file_is_found_below_its_root_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "page.html").write_text("x")
    (tmp_path / "secret").write_text("x")
    (root / "inside").symlink_to(root / "page.html")
    (root / "outside").symlink_to(tmp_path / "secret")
    (root / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(root / "pipe")
    page = (root / "page.html").resolve()
    for name, found in (("page.html", page), ("inside", page)):
        assert static_files.find_below(root.resolve(), name) == found
    for name in ("outside", "nowhere", "pipe", "folder", "missing", "../secret"):
        with naming(name):
            assert static_files.find_below(root.resolve(), name) is None


def test_a_type_is_that_of_the_name() -> None:
    assert static_files.find_content_type(Path("rfb.js")) == "text/javascript; charset=utf-8"
    assert static_files.find_content_type(Path("rfb.unknown")) == "application/octet-stream"
