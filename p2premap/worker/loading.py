"""A job's bundle, loaded in a worker process: an import hook over the sources, nothing unpacked.

Each module is compiled under the path that it has on the machine that submitted it, and its source is given to
`linecache`, so that tracebacks name the user's own file and show the user's own lines on every node.
"""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

from p2premap.tasks.bundle import Module, unpack_bundle

if TYPE_CHECKING:
    from importlib.abc import Loader
else:  # importing it takes a worker's start 14 ms
    Loader = object


class BundleImporter(Loader):
    """Finds and loads the modules of one bundle, before anything that is installed."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self._modules = {module.name: module for module in modules}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        module = self._modules.get(fullname)
        if module is None:
            return None
        spec = spec_from_loader(fullname, self, origin=module.path, is_package=module.package)
        assert spec is not None
        spec.has_location = True
        return spec

    def get_source(self, fullname: str) -> str:
        """For `linecache` and `inspect`."""
        return self._modules[fullname].source

    def get_code(self, fullname: str) -> CodeType:
        """The module's code, compiled under its original path."""
        module = self._modules[fullname]
        # No modification time: linecache then never prefers a file of that path on this machine.
        linecache.cache[module.path] = (
            len(module.source),
            None,
            module.source.splitlines(keepends=True),
            module.path,
        )
        return compile(module.source, module.path, "exec", dont_inherit=True)

    def create_module(self, spec: ModuleSpec) -> None:
        """See `importlib.abc.Loader`: an ordinary module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """See `importlib.abc.Loader`."""
        exec(self.get_code(module.__name__), module.__dict__)  # noqa: S102  (running user code is a worker's work)

    def forget(self) -> None:
        """Take the bundle's modules out of this process again."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        for name in self._modules:
            sys.modules.pop(name, None)


def load_bundle(bundle: bytes) -> ModuleType:
    """Import the job file of a bundle. A process holds one bundle at a time: an earlier one is forgotten.

    Raises:
        JobRejected: it is no bundle.
        Exception: what the job file or a module raises when it is imported.
    """
    modules = unpack_bundle(bundle)
    for finder in list(sys.meta_path):
        if isinstance(finder, BundleImporter):
            finder.forget()
    sys.meta_path.insert(0, BundleImporter(modules))
    for module in modules:
        sys.modules.pop(module.name, None)
    return importlib.import_module(modules[0].name)
