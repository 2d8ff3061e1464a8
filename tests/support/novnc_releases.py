# SPDX-License-Identifier: Apache-2.0
"""Every release of noVNC that the console page is for, as npm's package of it, below ``.cache/novnc`` of the checkout.

    python3 tests/support/novnc_releases.py

fetches the missing ones; ``tests/run.sh`` calls it. The registry is the one of npm's own configuration, and each
package is held against its checksum here. The standard library alone: no environment has been made by then.

npm's packages of 1.5 and 1.6 have noVNC as CommonJS alone, which no browser loads. From those files a second folder is
made, with an ES module around each: what runs is noVNC's code, in the form that its own releases have it.
"""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".cache" / "novnc"
PACKAGE = "@novnc/novnc"
# As npm's registry has them (dist.integrity).
CHECKSUMS = {
    "1.3.0": "sha512-tR87mY5ADtaELadmZfW937JO/p8fRdz3wkPoqwhqB/vY1XnTQeLSWwkp4yMlr4iIDY0iCficfzFYX5EHMh4MHw==",
    "1.4.0": "sha512-kW6ALMc5BuH08e/ond/I1naYcfjc19JYMN1EdtmgjjjzPGCjW8fMtVM3MwM6q7YLRjPlQ3orEvoKMgSS7RkEVQ==",
    "1.5.0": "sha512-4yGHOtUCnEJUCsgEt/L78eeJu00kthurLBWXFiaXfonNx0pzbs6R/3gJb1byZe6iAE8V9MF0syQb0xIL8MSOtQ==",
    "1.6.0": "sha512-CJrmdSe9Yt2ZbLsJpVFoVkEu0KICEvnr3njW25Nz0jodaiFJtg8AYLGZogRYy0/N5HUWkGUsCmegKXYBSqwygw==",
    "1.7.0": "sha512-ucEJOx4T2avIRCleodk7YobZj5O2Ga2AeLfQ69A/yjG9HHba2+PDgwSkN3FttrmG+70ZGx21sElNFouK13RzyA==",
}
COMMONJS = ("1.5.0", "1.6.0")
_TIMEOUT_S = 300
_REQUIRE = re.compile(r"""\brequire\((["'][./\w-]+["'])\)""")


def find_package(version: str) -> Path:
    """Return the folder with what npm ships of ``version``."""
    return _find(version, "package")


def find_web_root(version: str) -> Path:
    """Return the folder with ``version`` in the form that browsers load."""
    return _find(version, "modules" if version in COMMONJS else "package")


def fetch_all() -> None:
    """Fetch what is not there yet.

    :raises RuntimeError: when npm fails, or a package is not the one whose checksum is known.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    for version in CHECKSUMS:
        if (FOLDER / version).is_dir():
            continue
        print(f"novnc_releases: fetching {PACKAGE}@{version}", file=sys.stderr)
        # Renamed when it is whole, so that a fetch that was cut short leaves nothing that looks like one.
        with tempfile.TemporaryDirectory(dir=FOLDER) as made:
            whole = Path(made) / version
            whole.mkdir()
            # All of it lies below package/. Without a filter of tarfile, which Debian 12 lacks: the checksum is right.
            shutil.unpack_archive(_download(version, Path(made)), whole, "gztar")
            if version in COMMONJS:
                build_modules(whole / "package", whole / "modules")
            whole.rename(FOLDER / version)


def build_modules(package: Path, target: Path) -> None:
    """Write the CommonJS below ``lib/`` of ``package`` to ``target`` as ES modules, with a ``core/rfb.js``."""
    shutil.copytree(package, target)
    for file in sorted((target / "lib").rglob("*.js")):
        file.write_text(wrap_module(file.read_text(encoding="utf-8")), encoding="utf-8")
    (target / "core").mkdir()
    (target / "core" / "rfb.js").write_text('export {default} from "../lib/rfb.js";\n', encoding="utf-8")


def wrap_module(source: str) -> str:
    """Return an ES module around a CommonJS module: its exports are one object, ``exported``, and the default."""
    names = dict.fromkeys(_REQUIRE.findall(source))
    lines = [f"import {{exported as module{at}}} from {name};" for at, name in enumerate(names)]
    lines += ["const exports = {};", "const require = (name) => ({"]
    lines += [f"    {name}: module{at}," for at, name in enumerate(names)]
    lines += ["})[name];", source, "export {exports as exported};", 'export default exports["default"];', ""]
    return "\n".join(lines)


def _find(version: str, name: str) -> Path:
    folder = FOLDER / version / name
    assert folder.is_dir(), f"{folder} is missing; python3 tests/support/novnc_releases.py fetches it"
    return folder


def _download(version: str, folder: Path) -> Path:
    argv = ["npm", "pack", f"{PACKAGE}@{version}", "--silent", "--ignore-scripts", f"--pack-destination={folder}"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise RuntimeError("npm is not installed") from None
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"npm did not deliver {PACKAGE}@{version} within {_TIMEOUT_S} s") from None
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        said = (done.stderr + done.stdout).decode("utf-8", "replace").strip()
        raise RuntimeError(f"npm did not deliver {PACKAGE}@{version}: {said or f'exit status {done.returncode}'}")
    checksum = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
    if f"sha512-{checksum}" != CHECKSUMS[version]:
        raise RuntimeError(f"{PACKAGE}@{version} is not what it was: its checksum is now sha512-{checksum}")
    return archives[0]


if __name__ == "__main__":
    try:
        fetch_all()
    except RuntimeError as exc:
        sys.exit(f"novnc_releases: {exc}")
