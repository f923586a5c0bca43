"""The local modules of a running program, packed for the workers.

What a script itself defines is pickled by value. What it imports from beside it is sent as source, so that workers
can import it too. *Local* is what was imported from the script's own directory (in a notebook: from the current one);
the standard library and installed packages stay where they are. A module that is imported after `connect` is not in
the bundle: its functions are pickled by value.
"""

from __future__ import annotations

import sys
import tokenize
from pathlib import Path
from types import ModuleType
from typing import Final

from p2premap.tasks.bundle import JOB_MODULE, Module, pack_bundle

_SOURCE_BYTES_MAX: Final = 16 << 20
_INSTALLED: Final = ("site-packages", "dist-packages")


def bundle_of_program() -> bytes:
    """The bundle blob: an empty job file, and the local modules."""
    modules = [Module(name=JOB_MODULE, path="", source="")]
    left = _SOURCE_BYTES_MAX
    for name, module in sorted(sys.modules.items()):
        if name != "__main__" and (path := _local_file(module)) is not None and (source := _read(path)) is not None:
            left -= len(source)
            if left < 0:
                break
            modules.append(Module(name=name, path=str(path), source=source, package=path.name == "__init__.py"))
    return pack_bundle(modules)


def _local_file(module: ModuleType) -> Path | None:
    """The module's source file, if it is local."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py") or module.__name__.partition(".")[0] == "p2premap":
        return None
    path = Path(file).absolute()
    home = Path(sys.path[0] or ".").absolute()
    if home not in path.parents or any(part in _INSTALLED for part in path.parts):
        return None
    return None if Path(sys.base_prefix) in path.parents else path


def _read(path: Path) -> str | None:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
