"""What the syntax of a Python file says without running it: what its top level binds, which local modules it imports.

*Local* is what Python would find beside the script (modules and packages in the file's own directory), on PYTHONPATH,
or where a package is being worked on (an editable install), and what they import in turn. The standard library and
installed packages stay where they are. A file with relative imports is a module of the packages that it lies in.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import sys
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2premap.client.locals import is_installed
from p2premap.errors import JobRejected
from p2premap.tasks.bundle import JOB_MODULE, Module, pack_bundle

_LIBRARY: Final = {("functools", "reduce"), ("builtins", "map")}
"""Imports that bind a job function's name to something that is none."""


@dataclass(slots=True)
class Names:
    """What the top level of a module binds."""

    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    coroutines: set[str] = field(default_factory=set)
    constants: dict[str, object] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return name in self.functions or name in self.constants or name in self.others


def parse(file: Path, *, shown: str) -> tuple[str, ast.Module]:
    """The source of a Python file, and its syntax tree.

    Args:
        shown: its name for people.

    Raises:
        JobRejected: it cannot be read, or is no Python.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise JobRejected(f"Cannot read the job file {shown}: {error.strerror}.") from None
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        source = io.TextIOWrapper(io.BytesIO(data), encoding, newline=None).read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return source, ast.parse(source, filename=shown)
    except SyntaxError as error:
        if error.lineno is None or file.suffix not in (".py", ".pyw", ""):
            raise JobRejected(f"{shown} is not a Python file: {error.msg}.") from None
        raise JobRejected(f"{shown}, line {error.lineno}: {error.msg}.") from None
    except (ValueError, LookupError):  # NUL bytes, or bytes that are not of the encoding that it declares
        raise JobRejected(f"{shown} is not a Python file.") from None


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of the top level, also inside if, try, with and loops."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield from statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from statements(handler.body)


def top_level(tree: ast.Module, collector: Collector) -> Names:
    """What a module's top level binds.

    Args:
        collector: knows the local modules of which it may import everything.
    """
    names = Names()
    for statement in statements(tree.body):
        match statement:
            case ast.FunctionDef(name=name, decorator_list=[]):
                names.functions[name] = statement
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.others.add(name)  # a decorator may change what it takes
            case ast.AsyncFunctionDef(name=name):
                names.others.add(name)
                names.coroutines.add(name)
            case ast.Assign(targets=targets, value=ast.Constant(value=value)):
                names.constants |= {t.id: value for t in targets if isinstance(t, ast.Name)}
            case ast.Assign(targets=[ast.Name(id="sets")], value=ast.List() | ast.Tuple() as value):
                items = [item.value if isinstance(item, ast.Constant) else None for item in value.elts]
                names.constants["sets"] = tuple(items)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                names.constants[name] = value
            case ast.Assign() | ast.AnnAssign():
                names.others |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and _stored(n)}
            case ast.ImportFrom(names=[ast.alias(name="*")], module=module, level=0) if module is not None:
                names.others |= collector.public_names(module)
            case ast.ImportFrom(names=aliases, module=module):
                names.others |= {a.asname or a.name for a in aliases if (module, a.name) not in _LIBRARY}
            case ast.Import(names=aliases):
                names.others |= {a.asname or a.name.partition(".")[0] for a in aliases}
            case _:
                pass
    return names


def _stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


class Collector:
    """Finds the local modules that a syntax tree imports, transitively.

    Args:
        roots: directories in which they are looked for, the first ones first.
        package: in which the job file is; "": in none.
        main: the job file, which nodes know by another name than its own.
    """

    def __init__(self, *roots: Path, package: str = "", main: Path | None = None) -> None:
        self._roots = roots
        self._main = main
        self._package = package
        self.modules: dict[str, Module] = {}
        self._trees: dict[str, ast.Module] = {}
        self._elsewhere: dict[str, Path | None] = {}

    @classmethod
    def of(cls, file: Path, tree: ast.Module) -> Collector:
        """With all that a job file imports."""
        beside = file.absolute().parent
        package = _package_of(beside, tree)
        root = beside.parents[package.count(".")] if package else beside
        collector = cls(beside, root, package=package, main=file.absolute())
        if package:
            collector._add(package)
        collector.follow(tree, package=package)
        return collector

    def bundle(self, file: Path, source: str) -> bytes:
        """The bundle blob of a job file and what has been found."""
        name = f"{self._package}.{JOB_MODULE}" if self._package else JOB_MODULE
        main = Module(name=name, path=str(file.absolute()), source=source)
        return pack_bundle([main, *sorted(self.modules.values(), key=lambda m: m.name)])

    def follow(self, tree: ast.Module, *, package: str) -> None:
        """Add what `tree`, a module of `package`, imports anywhere in it."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._add(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = _absolute(node, package)
                if module and self._add(module):
                    for alias in node.names:
                        self._add(f"{module}.{alias.name}")

    def public_names(self, module: str) -> set[str]:
        """What ``from module import *`` binds, as far as the syntax tells; nothing for a module that is not local."""
        tree = self._trees.get(module)
        if tree is None:
            return set()
        names = top_level(tree, self)
        return {n for n in {*names.functions, *names.constants, *names.others} if not n.startswith("_")}

    def _add(self, name: str) -> bool:
        """Take this module and its packages if they are local; whether it is."""
        top = name.partition(".")[0]
        if top == "p2premap" or top in sys.builtin_module_names:
            return False
        if top in sys.stdlib_module_names:
            found = _in(self._roots[0], top)
            if found is not None and found[0].is_file() and found[0] != self._main:
                # nodes have loaded the other one already; here Python would take this one
                raise JobRejected(
                    f"{found[0]} has the name of a module of Python's own, which nodes import: rename it."
                )
            return False
        if name in self.modules:
            return True
        found = self._find(name)
        if found is None:
            return False
        parent = name.rpartition(".")[0]
        if parent and not self._add(parent):
            return False
        file, package = found
        source, tree = parse(file, shown=str(file)) if file.is_file() else ("", ast.Module(body=[], type_ignores=[]))
        self.modules[name] = Module(name=name, path=str(file), source=source, package=package)
        self._trees[name] = tree
        self.follow(tree, package=name if package else parent)
        return True

    def _find(self, name: str) -> tuple[Path, bool] | None:
        """The file of a local module and whether it is a package; a directory for a namespace package."""
        for root in self._roots:
            if (found := _in(root, name)) is not None:
                return found
        top = name.partition(".")[0]
        if top not in self._elsewhere:
            self._elsewhere[top] = _root_of(top)
        elsewhere = self._elsewhere[top]
        return None if elsewhere is None else _in(elsewhere, name)


def _in(root: Path, name: str) -> tuple[Path, bool] | None:
    place = root.joinpath(*name.split("."))
    if (place / "__init__.py").is_file():
        return place / "__init__.py", True
    if place.with_name(place.name + ".py").is_file():
        return place.with_name(place.name + ".py"), False
    return (place, True) if place.is_dir() and any(place.glob("*.py")) else None


def _root_of(top: str) -> Path | None:
    """Where Python finds this package or module, in source and not installed; None: nowhere. Imports nothing."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
    if not places or not places[0] or is_installed(Path(places[0])):
        return None
    return Path(places[0]).absolute().parent


def _package_of(directory: Path, tree: ast.Module) -> str:
    """The package that a file's relative imports are relative to; "" where it has none, or there is no such package."""
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    deepest = max(levels, default=0)
    names: list[str] = []
    while deepest and (len(names) < deepest or (directory / "__init__.py").is_file()):
        if not directory.name.isidentifier():
            return ""
        names.insert(0, directory.name)
        directory = directory.parent
    return ".".join(names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The full name of the module that a from-import names; "" where it points out of the tree."""
    if node.level == 0:
        return node.module or ""
    parts = package.split(".") if package else []
    if node.level > len(parts):
        return ""
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)
