"""The local modules of a running program, packed for the workers.

What a script itself defines is pickled by value. What it has imported that is not installed (modules beside it, or on
PYTHONPATH) is sent as source, so that workers can import it too; the standard library and installed packages stay
where they are. What is imported after `connect` is not in the bundle: where a machine lacks it, the call says so.
"""

from __future__ import annotations

import sys
import sysconfig
import tokenize
from pathlib import Path
from types import ModuleType
from typing import Final

from p2premap.tasks.bundle import JOB_MODULE, Module, pack_bundle

_SOURCE_BYTES_MAX: Final = 16 << 20
_INSTALLED: Final = ("site-packages", "dist-packages")


def bundle_of_program() -> bytes:
    """The bundle blob: an empty job file, and the local modules with the packages that they are in."""
    found: dict[str, Module] = {}
    left = _SOURCE_BYTES_MAX
    for name, module in sorted(sys.modules.items()):
        path = _local_file(name, module)
        source = _read(path) if path is not None else None
        if path is None or source is None or len(source) > left:
            continue
        left -= len(source)
        found[name] = Module(name=name, path=str(path), source=source, package=path.name == "__init__.py")
    for name in list(found):
        while name := name.rpartition(".")[0]:
            # a directory without an __init__.py
            found.setdefault(name, Module(name=name, path="", source="", package=True))
    return pack_bundle([Module(name=JOB_MODULE, path="", source=""), *found.values()])


def _local_file(name: str, module: ModuleType) -> Path | None:
    """The module's source file, if it is local."""
    file = getattr(module, "__file__", None)
    if name == "__main__" or name.partition(".")[0] == "p2premap" or not isinstance(file, str):
        return None
    path = Path(file).absolute()
    if path.suffix != ".py" or any(part in _INSTALLED for part in path.parts):
        return None
    return None if Path(sysconfig.get_path("stdlib")) in path.parents else path


def _read(path: Path) -> str | None:
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
