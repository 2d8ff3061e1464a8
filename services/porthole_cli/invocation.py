# SPDX-License-Identifier: Apache-2.0
"""How a user calls this ``porthole``: what messages tell a user to type must work as it is printed.

Why: in a virtual environment that is not activated, the command is not on the PATH, and in a checkout it may have been
started by ``python -m``. Called wherever a message names a command.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "porthole"
MODULE = "porthole_cli.main"


def find_command(everywhere: bool = False) -> str:
    """Return what to type for ``porthole`` to get the one that runs in this process, quoted for a shell.

    ``everywhere`` is for another user's shell, or another directory's, which may have another PATH.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return build_command(sys.argv[0], spec.name if spec else "", os.environ.get("PATH", ""), everywhere)


def build_command(argv0: str, module: str, search_path: str, everywhere: bool = False) -> str:
    """Return the command of a process: ``argv0``, or ``module`` when it was started by ``python -m``.

    ``search_path`` is a PATH. A process that is no ``porthole`` (a test, say) gets the bare name.
    """
    if module == MODULE:
        return f"{shlex.quote(sys.executable)} -m {MODULE}"
    script = Path(argv0).absolute()
    if script.name != NAME or not script.is_file():
        return NAME
    found = shutil.which(NAME, path=search_path)
    if found and not everywhere and Path(found).samefile(script):
        return NAME
    return shlex.quote(str(script))
