# SPDX-License-Identifier: Apache-2.0
"""The fetch of noVNC's releases: nothing that is not what it was, or not whole, is left for the browser tests."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from support import novnc_releases


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a PATH with nothing but what a test puts there."""
    monkeypatch.setattr(novnc_releases, "FOLDER", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "cache"


def put_npm(directory: Path, script: str) -> None:
    npm = directory / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    npm.chmod(0o755)


def test_without_npm_it_says_so(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="npm is not installed"):
        novnc_releases.fetch_all()
    assert list(folder.iterdir()) == []


def test_a_failure_of_npm_is_told_in_its_words(folder: Path) -> None:
    for script, words in (("echo 'E404 not here' >&2; exit 1", "E404 not here"), ("exit 3", "exit status 3")):
        put_npm(folder.parent, script)
        with pytest.raises(RuntimeError, match=words):
            novnc_releases.fetch_all()
        assert list(folder.iterdir()) == []


def test_another_package_than_the_known_one_is_refused(folder: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/core/rfb.js"))
    (folder.parent / "other").write_bytes(packed.getvalue())
    # The last argument is --pack-destination=FOLDER.
    put_npm(folder.parent, f'for last; do :; done; /bin/cp {folder.parent}/other "${{last#*=}}/x.tgz"')
    with pytest.raises(RuntimeError, match="is not what it was: its checksum is now sha512-"):
        novnc_releases.fetch_all()
    assert list(folder.iterdir()) == []


def test_what_is_there_is_not_fetched_again(folder: Path) -> None:
    for version in novnc_releases.CHECKSUMS:
        (folder / version).mkdir(parents=True)
    novnc_releases.fetch_all()
    assert sorted(os.listdir(folder)) == sorted(novnc_releases.CHECKSUMS)


def test_a_missing_release_is_named() -> None:
    with pytest.raises(AssertionError, match=r"novnc_releases\.py fetches it"):
        novnc_releases.find_package("0.0.0")


def test_a_commonjs_module_becomes_an_es_module() -> None:
    source = 'var _a = f(require("./a.js"));\nvar b = require("../b-c.js");\nvar again = require("./a.js");'
    assert novnc_releases.wrap_module(source).splitlines() == [
        'import {exported as module0} from "./a.js";',
        'import {exported as module1} from "../b-c.js";',
        "const exports = {};",
        "const require = (name) => ({",
        '    "./a.js": module0,',
        '    "../b-c.js": module1,',
        "})[name];",
        *source.splitlines(),
        "export {exports as exported};",
        'export default exports["default"];',
    ]
