"""The local modules of a running program: packed for the workers, or taken by value.

What a script itself defines is pickled by value. What it has imported that is not installed (modules beside it, or on
PYTHONPATH) is sent as source when it connects, so that workers can import it too; the standard library and installed
packages stay where they are. What is imported, or loaded anew, after that is pickled by value as well: a notebook
imports as it goes.
"""

from __future__ import annotations

import os
import sys
import tokenize
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

from p2premap.node.paths import LINKS_NAME
from p2premap.tasks.bundle import JOB_MODULE, Module, pack_bundle

_SOURCE_BYTES_MAX: Final = 16 << 20
_INSTALLED: Final = ("site-packages", "dist-packages", LINKS_NAME)
_LIBRARY: Final = Path(os.__file__).absolute().parent


class _Travelled:
    """What the last bundle of this program holds, and what therefore has to go by value.

    Attributes:
        late: modules by name, and their names as they stand in pickles.
    """

    def __init__(self) -> None:
        self.late: dict[str, bytes] = {}
        self._specs: dict[str, ModuleSpec | None] | None = None
        self._modules = 0

    def note(self, names: Iterable[str]) -> None:
        """A bundle with these modules has been made."""
        self._specs = {name: sys.modules[name].__spec__ for name in names}
        self._modules = len(sys.modules)
        self.late = {name: data for name, data in self.late.items() if name not in self._specs}

    def look(self) -> None:
        """See whether something has been imported, or loaded anew, since."""
        if self._specs is None:
            return
        changed = {n for n, spec in self._specs.items() if getattr(sys.modules.get(n), "__spec__", spec) is not spec}
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            changed |= {n for n, m in list(sys.modules.items()) if n not in self._specs and _local_file(n, m)}
        self.late |= {name: name.encode() for name in changed}


travelled: Final = _Travelled()


def bundle_of_program() -> bytes:
    """The bundle blob of the program's calls: an empty job file, and its modules.

    What it imports from now on goes by value.
    """
    modules = modules_of_program()
    travelled.note(module.name for module in modules if module.path)
    return pack_bundle([Module(name=JOB_MODULE, path="", source=""), *modules])


def modules_of_program() -> list[Module]:
    """The local modules that the program has imported, with the packages that they are in."""
    found: dict[str, Module] = {}
    left = _SOURCE_BYTES_MAX
    for name, module in sorted(sys.modules.items()):
        path = _local_file(name, module)
        source = _source(name, module, path) if path is not None else None
        if path is None or source is None or len(source) > left:
            continue
        left -= len(source)
        found[name] = Module(name=name, path=str(path), source=source, package=path.name == "__init__.py")
    for name in list(found):
        while name := name.rpartition(".")[0]:
            # a directory without an __init__.py
            found.setdefault(name, Module(name=name, path="", source="", package=True))
    return list(found.values())


def is_installed(path: Path) -> bool:
    """Whether a file belongs to the standard library or to an installed package."""
    return any(part in _INSTALLED for part in path.parts) or _LIBRARY in path.parents


def _local_file(name: str, module: ModuleType) -> Path | None:
    """The module's source file, if it is local."""
    file = getattr(module, "__file__", None)
    own = str(getattr(module, "__name__", name)).partition(".")[0] == "p2premap"  # also under another name
    if name == "__main__" or own or not isinstance(file, str):
        return None
    path = Path(file).absolute()
    return None if path.suffix != ".py" or is_installed(path) else path


def _source(name: str, module: ModuleType, path: Path) -> str | None:
    """What it was loaded from; in a worker process, that is what came with the job."""
    read = getattr(getattr(module.__spec__, "loader", None), "get_source", None)
    try:
        if read is not None:
            return str(read(name))
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, ImportError, SyntaxError, UnicodeDecodeError):
        return None
