"""A job file and the local modules that it imports, checked and packed for the workers.

Nothing here executes user code: a job file may open files or import packages that only the workers have, and the
submitting program must not suffer for it. Everything that can be known from the syntax tree is refused here, before
a job exists; what only running can tell (an import that fails, say) is the job's error, with the worker's traceback.
Which modules are *local*, and so are packed, is said in `p2premap.client.syntax`.
"""

from __future__ import annotations

import ast
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2premap.client.syntax import Collector, Names, parse, statements, top_level
from p2premap.errors import JobRejected
from p2premap.tasks import requirements
from p2premap.tasks.bundle import JOB_MODULE, WRITTEN, Module, pack_bundle
from p2premap.tasks.mapreduce_plan import EACH_KEY, EACH_NODE, ENDLESS, READERS, SUFFIXES, WRITERS

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

GIVEN_THE_SET: Final = frozenset(("combine", "partition", "sort_key", "reduce"))
_WAYS: Final = {"reader": READERS, "writer": WRITERS}
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SUFFIX: Final = re.compile(r"(\.[A-Za-z0-9_-]{1,16}){0,3}")
_SETS_MAX: Final = 64
_AT_THE_END: Final = ("reduce", "finish", "partition", "sort_key", "sets")
"""What cannot begin as long as there is more to map."""
_NUMBERS: Final = ("no", "one", "two", "three")
_OF_TEXT: Final = frozenset(("lines", "blocks", "task", "csv", "jsonl"))
"""Readers of inputs that must be text, unless ``encoding = None``."""
_CUTS: Final = {"lines": "lines", "blocks": "lines", "task": "lines", "jsonl": "lines", "csv": "rows"}


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
        open: nobody can count its map tasks: see `p2premap.tasks.mapreduce_plan.OPEN`.
        lasts_s: then, for how long at most.
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
    open: str = ""
    lasts_s: float = math.inf


ACTION: Final = "Action"
"""A job file with a class that derives from `p2premap.Action` is an action."""
PROGRAMS: Final = ("VertexProgram", "ArrayProgram")
"""One with a class that derives from one of these is a vertex job."""


@dataclass(frozen=True, slots=True)
class Source:
    """A job file, whatever its kind.

    Args:
        name: the file's name without ".py".
        bundle: the blob for the workers.
        actions: classes that derive from `p2premap.Action`, by name.
        programs: those that derive from `p2premap.VertexProgram` or `p2premap.ArrayProgram`, or from each other.
        per_vertex: those of them that derive from `p2premap.VertexProgram`.
        functions: it has functions `prepare` and `compute`: a vertex job in remap's form.
    """

    name: str
    bundle: bytes
    actions: dict[str, ast.ClassDef]
    programs: dict[str, ast.ClassDef]
    per_vertex: frozenset[str]
    functions: bool = False


def kind_of(path: str) -> str:
    """Of which of the built-in kinds a job file is.

    Raises:
        JobRejected: it is no Python file.
    """
    _, tree = parse(Path(path), shown=path)
    if _derived(tree, *PROGRAMS) or _in_functions(tree):
        return "vertex"
    return "action" if _derived(tree, ACTION) else "mapreduce"


def pack_file(path: str) -> Source:
    """Read and pack a job file, whatever its kind, with the local modules that it imports.

    Raises:
        JobRejected: it is no Python file.
    """
    file = Path(path)
    source, tree = parse(file, shown=path)
    collector = Collector.of(file, tree)
    return Source(
        file.stem,
        collector.bundle(file, source),
        actions=_derived(tree, ACTION),
        programs=_with_heirs(path, tree, _derived(tree, *PROGRAMS)),
        per_vertex=frozenset(_with_heirs(path, tree, _derived(tree, PROGRAMS[0]))),
        functions=_in_functions(tree),
    )


def requires_of(path: str) -> tuple[str, ...]:
    """What a job file, of whatever kind, says that nodes must have: ``requires = [...]`` at its top level.

    Raises:
        JobRejected: it is no Python file, or says something else than a list of requirements.
    """
    _, tree = parse(Path(path), shown=path)
    for statement in statements(tree.body):
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


def _in_functions(tree: ast.Module) -> bool:
    names = {statement.name for statement in statements(tree.body) if isinstance(statement, ast.FunctionDef)}
    return {"prepare", "compute"} <= names and "map" not in names


def _derived(tree: ast.Module, *bases: str) -> dict[str, ast.ClassDef]:
    """The classes of a job file that derive from one of p2premap's, by name."""
    names = {"p2premap": "p2premap", **{base: base for base in bases}}
    classes = []
    for statement in statements(tree.body):
        match statement:
            case ast.ClassDef():
                classes.append(statement)
            case ast.Import(names=aliases):
                names |= {alias.asname: alias.name for alias in aliases if alias.asname}
            case ast.ImportFrom(module=module, names=aliases, level=0):
                other = module in sys.stdlib_module_names  # argparse.Action, say
                names |= {alias.asname or alias.name: "" if other else alias.name for alias in aliases}
            case _:
                pass
    return {found.name: found for found in classes if any(_base_of(base, names) in bases for base in found.bases)}


def _with_heirs(path: str, tree: ast.Module, found: dict[str, ast.ClassDef]) -> dict[str, ast.ClassDef]:
    """These classes, and those of the job file that derive from them.

    Raises:
        JobRejected: one derives from another of its own name.
    """
    heirs = dict(found)
    for statement in statements(tree.body):
        if isinstance(statement, ast.ClassDef) and not heirs.keys().isdisjoint(bases := named_bases(statement)):
            if statement.name in bases and heirs.get(statement.name, statement) is not statement:
                said = f"{path}, line {statement.lineno}: {statement.name} derives from an earlier class of its name"
                raise JobRejected(f"{said}: give each class a name of its own.")
            heirs[statement.name] = statement
    return heirs


def named_bases(found: ast.ClassDef) -> list[str]:
    """What a class derives from, as far as those are plain names."""
    return [base.id for base in found.bases if isinstance(base, ast.Name)]


def _base_of(base: ast.expr, names: Mapping[str, str]) -> str:
    """The name of a base class that may be p2premap's; "" of any other expression.

    Args:
        names: what names mean that the job file has imported.
    """
    match base:
        case ast.Name(id=name):
            return names.get(name, "")
        case ast.Attribute(value=ast.Name(id=module), attr=name) if names.get(module) == "p2premap":
            return name
        case _:
            return ""


def load_job(path: str, *, writer: str = "") -> JobCode:
    """Read, check and pack a job file.

    Args:
        writer: of its output, where it does not say one itself; "": the usual one.

    Raises:
        JobRejected: one sentence: it is no Python file, has no `map`, a function takes wrong arguments, ...
    """
    file = Path(path)
    source, tree = parse(file, shown=path)
    collector = Collector.of(file, tree)
    if writer and "writer" not in top_level(tree, collector):
        source = f"{source}\nwriter = {writer!r}\n"  # at the end: tracebacks name lines
        tree = ast.parse(source)
    return _job_code(path, file, tree, collector, collector.bundle(file, source))


def written_job(name: str, text: str, others: Sequence[Module]) -> JobCode:
    """A job file that p2premap has written itself.

    Args:
        name: for people: of what it was made from.
        others: modules that it imports.

    Raises:
        JobRejected: as `load_job`.
    """
    tree = ast.parse(text)
    return _job_code(name, Path(f"{name}.py"), tree, Collector(), pack_written(name, text, others))


def pack_written(name: str, text: str, others: Sequence[Module]) -> bytes:
    """The same for job files of any kind: the bundle."""
    return pack_bundle([Module(name=JOB_MODULE, path=f"{WRITTEN}{name}.py", source=text), *others])


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
    collector, text = _adapted(path, module, adapt)
    return _job_code(path, Path(path), ast.parse(text), collector, collector.bundle(adapter, text))


def pack_adapted(path: str, *, module: str, adapter: Path, adapt: Callable[[ast.Module], str]) -> bytes:
    """As `load_adapted`, for job files of other kinds: the bundle.

    Raises:
        JobRejected: it is no Python file, or `adapt` refuses.
    """
    collector, text = _adapted(path, module, adapt)
    return collector.bundle(adapter, text)


def _adapted(path: str, module: str, adapt: Callable[[ast.Module], str]) -> tuple[Collector, str]:
    file = Path(path)
    source, tree = parse(file, shown=path)
    collector = Collector.of(file, tree)
    collector.modules[module] = Module(name=module, path=str(file.absolute()), source=source)
    return collector, adapt(tree)


def _job_code(path: str, file: Path, tree: ast.Module, collector: Collector, bundle: bytes) -> JobCode:
    names = top_level(tree, collector)
    sets = _sets(path, names)
    _check(path, names, sets)
    open, lasts_s = _duration(path, names)
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
        open=open,
        lasts_s=lasts_s,
    )


def _way(names: Names, name: str, usual: str) -> object:
    """The name of a reader or writer; None where it is a function, or is only known when it runs."""
    return names.constants.get(name) if name in names else usual


def _duration(path: str, names: Names) -> tuple[str, float]:
    """Whether the map tasks can be counted, and how long they go on for where not."""
    each, endless = (_flag(path, names, name) for name in ("each_node", "endless"))
    if each and endless:
        raise JobRejected(
            f"{path} has each_node and endless: leave endless out; each node takes one key of a datasource, which "
            "may be endless."
        )
    if endless and "datasource" not in names:
        raise JobRejected(f"{path} has endless but no datasource: define one, such as itertools.count().")
    if endless and (found := [name for name in _AT_THE_END if name in names]):
        raise JobRejected(f"{path} has endless and {found[0]}, which waits for the end of map: leave one of them out.")
    if "lasts" in names and not (each or endless):
        raise JobRejected(f"{path} has lasts, which is for jobs with each_node or endless: leave it out.")
    usual = 0.0 if each else math.inf
    lasts = names.constants.get("lasts", usual if "lasts" not in names else None)
    if isinstance(lasts, bool) or not isinstance(lasts, int | float) or ("lasts" in names and not lasts > 0):
        raise JobRejected(f"{path}: lasts must be a number of seconds, such as lasts = 3600.")
    how = EACH_KEY if "datasource" in names else EACH_NODE
    return ENDLESS if endless else how if each else "", float(lasts)


def _flag(path: str, names: Names, name: str) -> bool:
    flag = names.constants.get(name, False if name not in names else None)
    if not isinstance(flag, bool):
        raise JobRejected(f"{path}: {name} must be True or False.")
    return flag


def _sets(path: str, names: Names) -> tuple[str, ...]:
    sets = names.constants.get("sets", () if "sets" not in names else None)
    if not isinstance(sets, tuple) or not all(isinstance(name, str) for name in sets):
        raise JobRejected(f'{path}: sets must be a list of names, such as sets = ["words", "lengths"].')
    for name in sets:
        if not _NAME.fullmatch(name):
            raise JobRejected(f"{path}: the set {name!r} cannot be a directory; use letters, digits, and . _ - inside.")
    if len({name.lower() for name in sets}) < len(sets) or len(sets) > _SETS_MAX:
        raise JobRejected(f"{path}: the names in sets must differ, and be no more than {_SETS_MAX}.")
    return sets


def _suffix(path: str, names: Names, usual: str) -> str:
    suffix = names.constants.get("suffix", usual)
    if not isinstance(suffix, str) or not _SUFFIX.fullmatch(suffix):
        raise JobRejected(f'{path}: suffix is {suffix!r}; say what names of files may end in, such as ".html".')
    return suffix


def _check(path: str, names: Names, sets: Sequence[str]) -> None:
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
        given = ("set",) if sets and name in GIVEN_THE_SET else ()
        forms = tuple((*given, *parameters) for parameters in forms)
        calls = _calls(name, forms)
        if name in names.coroutines:
            raise JobRejected(f"{path}: {name} is an async function; define it with a plain def, {calls}.")
        if name in names.constants and name not in _WAYS:
            raise JobRejected(f"{path}: {name} is not a function; define {calls}.")
        function = names.functions.get(name)
        if function is not None and not any(_accepts(function.args, len(parameters)) for parameters in forms):
            raise JobRejected(f"{path}, line {function.lineno}: {must_take(name, forms)}")


def must_take(name: str, forms: Sequence[tuple[str, ...]]) -> str:
    """What a function of this name is called with, as a sentence."""
    counts = [len(parameters) for parameters in forms]
    number = " or ".join(_NUMBERS[count] for count in counts)
    return f"{name} must take {number} argument{'s' * (counts != [1])}, {_calls(name, forms)}."


def _calls(name: str, forms: Sequence[tuple[str, ...]]) -> str:
    return " or ".join(f"{name}({', '.join(parameters)})" for parameters in forms)


def _accepts(args: ast.arguments, count: int) -> bool:
    """Whether a function can be called with `count` positional arguments."""
    positional = len(args.posonlyargs) + len(args.args)
    required = positional - len(args.defaults)
    keyword_only = any(default is None for default in args.kw_defaults)
    return required <= count and (positional >= count or args.vararg is not None) and not keyword_only
