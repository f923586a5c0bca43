"""From a remap application to a job: see `p2premap.compat.remap`. Nothing of the application is run here.

Applications with `map` become map/reduce jobs, those with `compute` vertex jobs.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from p2premap.client.bundle import load_adapted, pack_adapted
from p2premap.client.plan import plan_asked
from p2premap.client.planning import Asked
from p2premap.client.submission import Submission
from p2premap.client.syntax import parse
from p2premap.errors import JobRejected
from p2premap.tasks.bundle import WRITTEN

MODULE: Final = "p2premap_remap_application"
"""What the application is imported as."""

ADAPTER: Final = Path(WRITTEN, "adapter.py")
"""Where the job file that runs the application seems to be."""

_NEEDED: Final = ("create_mapper_reader", "create_mapper_partitioner", "create_reducer_writer", "map", "reduce")

_VERTEX_NEEDED: Final = ("create_vertex_reader", "prepare", "compute")

_VERTEX: Final = f"""
from p2premap.compat.remap import install

install()
import {MODULE}

compute = {MODULE}.compute


def prepare(line):
    return {MODULE}.prepare(line + "\\n")
"""

_HEAD: Final = f"""
from p2premap.compat.remap import Application, install

install()
import {MODULE}

application = Application({MODULE})


def partition(key, n):
    return application.partition(key, n)


def sort_key(key):
    return application.sort_key(key)


def reduce(key, values):
    yield from application.reduce(key, values)


def writer(pairs, stream):
    application.write(pairs, stream)
"""

_LINES: Final = """

def map(key, value):
    yield from application.map_line(key, value)
"""

_RECORDS: Final = """

def reader(stream):
    yield from application.read(stream)


def map(key, value):
    yield from application.map_record(key, value)
"""

_COMBINES: Final = """

def combine(key, values):
    return application.combine(key, values)
"""


def plan_application(asked: Asked) -> Submission:
    """Plan a remap application.

    Raises:
        JobRejected: one sentence: it is none, or an input is wrong.
    """
    if is_vertex_application(asked.file):
        return _plan_vertices(asked)
    code = load_adapted(asked.file, module=MODULE, adapter=ADAPTER, adapt=lambda tree: _adapter(asked.file, tree))
    return plan_asked(asked, code=code)


def is_vertex_application(path: str) -> bool:
    """Whether a remap application is about vertices.

    Raises:
        JobRejected: it is no Python file.
    """
    _, tree = parse(Path(path), shown=path)
    functions = _functions(tree)
    return "compute" in functions and "map" not in functions


def _plan_vertices(asked: Asked) -> Submission:
    from p2premap.client.graphs import functions_of, plan_vertex  # few need it
    from p2premap.client.graphwish import wish_of

    code = pack_adapted(
        asked.file, module=MODULE, adapter=ADAPTER, adapt=lambda tree: _vertex_adapter(asked.file, tree)
    )
    wish, own = wish_of(asked.given)
    return plan_vertex(functions_of(Path(asked.file).stem, code, own), wish, asked)


def _vertex_adapter(path: str, tree: ast.Module) -> str:
    functions = _functions(tree)
    if missing := [name for name in _VERTEX_NEEDED if name not in functions]:
        raise JobRejected(f"{path} is no vertex application of remap: it lacks {', '.join(missing)}.")
    if not _calls(functions["create_vertex_reader"], "TextFileReader"):
        raise JobRejected(f"create_vertex_reader in {path} must return a remap.TextFileReader: lines become vertices.")
    return _VERTEX


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {found.name: found for found in tree.body if isinstance(found, ast.FunctionDef)}


def _adapter(path: str, tree: ast.Module) -> str:
    functions = _functions(tree)
    if missing := [name for name in _NEEDED if name not in functions]:
        raise JobRejected(f"{path} is no remap application: it lacks {', '.join(missing)}.")
    own_reader = not _calls(functions["create_mapper_reader"], "TextFileReader")
    combines = _says(functions["create_mapper_partitioner"], "combiner")
    return _HEAD + (_RECORDS if own_reader else _LINES) + (_COMBINES if combines else "")


def _calls(function: ast.FunctionDef, name: str) -> bool:
    """Whether its source has a call of this name and nothing else that could be a reader."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return [getattr(call, "attr", getattr(call, "id", "")) for call in calls] == [name]


def _says(function: ast.FunctionDef, keyword: str) -> bool:
    """Whether a call in it gives this keyword a value."""
    given = [one for node in ast.walk(function) if isinstance(node, ast.Call) for one in node.keywords]
    return any(one.arg == keyword and not isinstance(one.value, ast.Constant) for one in given)
