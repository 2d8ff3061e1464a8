# SPDX-License-Identifier: Apache-2.0
"""How a user calls this ``porthole``: a command in a message must work as it is printed.

Why: the command of a virtual environment that is not activated is not on the PATH, and in a checkout the command may
have been started by ``python -m``. Called wherever a message names a command.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "porthole"
MODULE = "porthole_cli.main"


def find_command(everywhere: bool = False) -> str:
    """Return the command that runs the ``porthole`` of this process, quoted for a shell.

    ``everywhere``: the command works also in another user's shell or another directory, where the PATH may differ.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return build_command(sys.argv[0], spec.name if spec else "", os.environ.get("PATH", ""), everywhere)


def build_command(argv0: str, module: str, search_path: str, everywhere: bool = False) -> str:
    """Return the command of a process: ``argv0``, or ``module`` when it was started by ``python -m``.

    ``search_path`` is a PATH. A process that is not ``porthole`` (such as a test) gets the bare name.
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
