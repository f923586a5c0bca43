"""A job file and the local modules that it imports, checked and packed for the workers.

Nothing here executes user code: a job file may open files or import packages that only the workers have, and the
submitting program must not suffer for it. Everything that can be known from the syntax tree is refused here, before
a job exists; what only running can tell (an import that fails, say) is the job's error, with the worker's traceback.

*Local* is what Python would find beside the script: modules and packages in the job file's own directory, and what
they import in turn. The standard library and installed packages stay where they are.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2premap.errors import JobRejected
from p2premap.tasks import requirements
from p2premap.tasks.bundle import JOB_MODULE, Module, pack_bundle
from p2premap.tasks.mapreduce import READERS, SUFFIXES, WRITERS

FUNCTIONS: Final = {
    "map": (("key", "value"),),
    "combine": (("key", "values"),),
    "partition": (("key", "n"),),
    "sort_key": (("key",), ("key", "value")),
    "reduce": (("key", "values"),),
    "finish": (("pairs",),),
    "reader": (("stream",),),
    "writer": (("pairs", "stream"),),
}
"""The functions of a job file and what they may be called with."""

_GIVEN_THE_SET: Final = frozenset(("combine", "partition", "sort_key", "reduce"))
_WAYS: Final = {"reader": READERS, "writer": WRITERS}
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SUFFIX: Final = re.compile(r"(\.[A-Za-z0-9_-]{1,16}){0,3}")
_SETS_MAX: Final = 64
_NUMBERS: Final = ("no", "one", "two", "three")
_OF_TEXT: Final = frozenset(("lines", "blocks", "task", "csv", "jsonl"))
"""Readers of inputs that must be text, unless ``encoding = None``."""
_CUTS: Final = {"lines": "lines", "blocks": "lines", "task": "lines", "jsonl": "lines", "csv": "rows"}

_LIBRARY: Final = {("functools", "reduce"), ("builtins", "map")}
"""Imports that bind a job function's name to something that is none."""


@dataclass(frozen=True, slots=True)
class JobCode:
    """A job file that may be submitted.

    Args:
        name: the file's name without ".py".
        bundle: the blob for the workers.
        has_reduce: it defines `reduce`.
        shuffles: pairs are brought together by key: for `reduce`, or to write them in order.
        finishes: it defines `finish`.
        sets: names of its outputs, where it has several.
        text: its inputs must be text.
        cut: where files may be cut: behind "lines", behind "rows" of CSV, or nowhere: "".
        header: the first row of a CSV file names the fields.
        suffix: what the names of output parts end in.
        datasource: it lists its keys itself, and reads no files.
    """

    name: str
    bundle: bytes
    has_reduce: bool
    text: bool
    shuffles: bool = False
    finishes: bool = False
    sets: tuple[str, ...] = ()
    cut: str = "lines"
    header: bool = True
    suffix: str = ""
    datasource: bool = False


@dataclass(slots=True)
class _Names:
    """What the top level of a module binds."""

    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    coroutines: set[str] = field(default_factory=set)
    constants: dict[str, object] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)

    def __contains__(self, name: str) -> bool:
        return name in self.functions or name in self.constants or name in self.others


ACTION: Final = "Action"
"""A job file with a class that derives from `p2premap.Action` is an action."""


@dataclass(frozen=True, slots=True)
class Source:
    """A job file, whatever its kind.

    Args:
        name: the file's name without ".py".
        bundle: the blob for the workers.
        actions: classes that derive from `p2premap.Action`, by name.
    """

    name: str
    bundle: bytes
    actions: dict[str, ast.ClassDef]


def kind_of(path: str) -> str:
    """Of which of the built-in kinds a job file is.

    Raises:
        JobRejected: it is no Python file.
    """
    _, tree = _parse(Path(path), shown=path)
    return "action" if _actions(tree) else "mapreduce"


def pack_file(path: str) -> Source:
    """Read and pack a job file, whatever its kind, with the local modules that it imports.

    Raises:
        JobRejected: it is no Python file.
    """
    file = Path(path)
    source, tree = _parse(file, shown=path)
    collector = _Collector(file.absolute().parent)
    collector.follow(tree, package="")
    return Source(file.stem, collector.bundle(file, source), _actions(tree))


def requires_of(path: str) -> tuple[str, ...]:
    """What a job file, of whatever kind, says that nodes must have: ``requires = [...]`` at its top level.

    Raises:
        JobRejected: it is no Python file, or says something else than a list of requirements.
    """
    _, tree = _parse(Path(path), shown=path)
    for statement in _statements(tree.body):
        match statement:
            case ast.Assign(targets=[ast.Name(id="requires")], value=value):
                break
            case ast.AnnAssign(target=ast.Name(id="requires"), value=ast.expr() as value):
                break
    else:
        return ()
    try:
        found = ast.literal_eval(value)
    except ValueError:
        found = None
    if not isinstance(found, str | list | tuple) or not all(isinstance(line, str) for line in found):
        raise JobRejected(
            f'{path}, line {value.lineno}: requires must be a list of texts, such as ["gpu", "package numpy >=2"].'
        )
    return requirements.lines_of(found)


def _actions(tree: ast.Module) -> dict[str, ast.ClassDef]:
    classes = [statement for statement in _statements(tree.body) if isinstance(statement, ast.ClassDef)]
    return {found.name: found for found in classes if any(_is_action(base) for base in found.bases)}


def _is_action(base: ast.expr) -> bool:
    match base:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="p2premap"), attr=name):
            return name == ACTION
        case _:
            return False


def load_job(path: str) -> JobCode:
    """Read, check and pack a job file.

    Raises:
        JobRejected: one sentence: it is no Python file, has no `map`, a function takes wrong arguments, ...
    """
    file = Path(path)
    source, tree = _parse(file, shown=path)
    collector = _Collector(file.absolute().parent)
    collector.follow(tree, package="")
    return _job_code(path, file, tree, collector, collector.bundle(file, source))


def load_adapted(path: str, *, module: str, adapter: Path, adapt: Callable[[ast.Module], str]) -> JobCode:
    """Pack a file that is no job file together with one that makes a job of it.

    Args:
        path: of the file; local modules that it imports come along.
        module: what it is to be imported as.
        adapter: where the job file is said to be.
        adapt: given the file's syntax, writes that job file.

    Raises:
        JobRejected: as `load_job`.
    """
    file = Path(path)
    source, tree = _parse(file, shown=path)
    collector = _Collector(file.absolute().parent)
    collector.follow(tree, package="")
    collector.modules[module] = Module(name=module, path=str(file.absolute()), source=source)
    text = adapt(tree)
    return _job_code(path, file, ast.parse(text), collector, collector.bundle(adapter, text))


def _job_code(path: str, file: Path, tree: ast.Module, collector: _Collector, bundle: bytes) -> JobCode:
    names = _top_level(tree, collector)
    sets = _sets(path, names)
    _check(path, names, sets)
    reader = str(_way(names, "reader", "lines"))
    usual = SUFFIXES.get(str(_way(names, "writer", "text")), "")
    return JobCode(
        name=file.stem,
        bundle=bundle,
        has_reduce="reduce" in names,
        text=reader in _OF_TEXT and names.constants.get("encoding", "utf-8") is not None,
        shuffles=bool(sets) or any(name in names for name in ("reduce", "partition", "sort_key")),
        finishes="finish" in names,
        sets=sets,
        cut=_CUTS.get(reader, ""),
        header=names.constants.get("header", True) is True,
        suffix=_suffix(path, names, usual),
        datasource="datasource" in names,
    )


def _way(names: _Names, name: str, usual: str) -> object:
    """The name of a reader or writer; None where it is a function, or is only known when it runs."""
    return names.constants.get(name) if name in names else usual


def _sets(path: str, names: _Names) -> tuple[str, ...]:
    sets = names.constants.get("sets", () if "sets" not in names else None)
    if not isinstance(sets, tuple) or not all(isinstance(name, str) for name in sets):
        raise JobRejected(f'{path}: sets must be a list of names, such as sets = ["words", "lengths"].')
    for name in sets:
        if not _NAME.fullmatch(name):
            raise JobRejected(f"{path}: the set {name!r} cannot be a directory; use letters, digits, and . _ - inside.")
    if len({name.lower() for name in sets}) < len(sets) or len(sets) > _SETS_MAX:
        raise JobRejected(f"{path}: the names in sets must differ, and be no more than {_SETS_MAX}.")
    return sets


def _suffix(path: str, names: _Names, usual: str) -> str:
    suffix = names.constants.get("suffix", usual)
    if not isinstance(suffix, str) or not _SUFFIX.fullmatch(suffix):
        raise JobRejected(f'{path}: suffix is {suffix!r}; say what names of files may end in, such as ".html".')
    return suffix


def _parse(file: Path, *, shown: str) -> tuple[str, ast.Module]:
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


def _check(path: str, names: _Names, sets: Sequence[str]) -> None:
    if "map" not in names and not ("reduce" in names and ("reader" in names or "datasource" in names)):
        raise JobRejected(
            f"{path} has no function map: define map(key, value), which yields (key, value) pairs"
            + (', or say what the records are that reduce gets, such as reader = "parts".' * ("reduce" in names) or ".")
        )
    if "combine" in names and "reduce" not in names:
        raise JobRejected(f"{path} has combine but no reduce: nothing would join what each task combined; add reduce.")
    if sets and "finish" in names:
        raise JobRejected(f"{path} has sets and finish: finish makes one output of all; leave one of them out.")
    for name, known in _WAYS.items():
        if name in names.constants and names.constants[name] not in known:
            raise JobRejected(
                f"{path}: {name} is {names.constants[name]!r}; say one of {', '.join(known)}, or define a function."
            )
    for name, forms in FUNCTIONS.items():
        given = ("set",) if sets and name in _GIVEN_THE_SET else ()
        calls = " or ".join(f"{name}({', '.join((*given, *parameters))})" for parameters in forms)
        if name in names.coroutines:
            raise JobRejected(f"{path}: {name} is an async function; define it with a plain def, {calls}.")
        if name in names.constants and name not in _WAYS:
            raise JobRejected(f"{path}: {name} is not a function; define {calls}.")
        function = names.functions.get(name)
        counts = [len(given) + len(parameters) for parameters in forms]
        if function is not None and not any(_accepts(function.args, count) for count in counts):
            number = " or ".join(_NUMBERS[count] for count in counts)
            plural = "s" * (counts != [1])
            raise JobRejected(f"{path}, line {function.lineno}: {name} must take {number} argument{plural}, {calls}.")


def _accepts(args: ast.arguments, count: int) -> bool:
    """Whether a function can be called with `count` positional arguments."""
    positional = len(args.posonlyargs) + len(args.args)
    required = positional - len(args.defaults)
    keyword_only = any(default is None for default in args.kw_defaults)
    return required <= count and (positional >= count or args.vararg is not None) and not keyword_only


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of the top level, also inside if, try, with and loops."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _top_level(tree: ast.Module, collector: _Collector) -> _Names:
    names = _Names()
    for statement in _statements(tree.body):
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


class _Collector:
    """Finds the local modules that a syntax tree imports, transitively."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.modules: dict[str, Module] = {}
        self._trees: dict[str, ast.Module] = {}

    def bundle(self, file: Path, source: str) -> bytes:
        """The bundle blob of a job file and what has been found."""
        main = Module(name=JOB_MODULE, path=str(file.absolute()), source=source)
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
        names = _top_level(tree, self)
        return {n for n in {*names.functions, *names.constants, *names.others} if not n.startswith("_")}

    def _add(self, name: str) -> bool:
        """Take this module and its packages if they are local; whether it is."""
        top = name.partition(".")[0]
        # A local file that bears a standard module's name would not be found either where that one is loaded already.
        if top in sys.stdlib_module_names or top == "p2premap":
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
        source, tree = _parse(file, shown=str(file)) if file.is_file() else ("", ast.Module(body=[], type_ignores=[]))
        self.modules[name] = Module(name=name, path=str(file), source=source, package=package)
        self._trees[name] = tree
        self.follow(tree, package=name if package else parent)
        return True

    def _find(self, name: str) -> tuple[Path, bool] | None:
        """The file of a local module and whether it is a package; a directory for a namespace package."""
        place = self._root.joinpath(*name.split("."))
        if (place / "__init__.py").is_file():
            return place / "__init__.py", True
        if place.with_name(place.name + ".py").is_file():
            return place.with_name(place.name + ".py"), False
        return (place, True) if place.is_dir() and any(place.glob("*.py")) else None


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The full name of the module that a from-import names; "" where it points out of the tree."""
    if node.level == 0:
        return node.module or ""
    parts = package.split(".") if package else []
    if node.level > len(parts):
        return ""
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)
