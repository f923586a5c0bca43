"""From a remap application to a map/reduce job: see `p2premap.compat.remap`. Nothing of the application is run here."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from p2premap.client.bundle import load_adapted
from p2premap.client.plan import plan_asked
from p2premap.client.planning import Asked
from p2premap.client.submission import Submission
from p2premap.errors import JobRejected
from p2premap.tasks.bundle import WRITTEN

MODULE: Final = "p2premap_remap_application"
"""What the application is imported as."""

ADAPTER: Final = Path(WRITTEN, "adapter.py")
"""Where the job file that runs the application seems to be."""

_NEEDED: Final = ("create_mapper_reader", "create_mapper_partitioner", "create_reducer_writer", "map", "reduce")

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
    code = load_adapted(asked.file, module=MODULE, adapter=ADAPTER, adapt=lambda tree: _adapter(asked.file, tree))
    return plan_asked(asked, code=code)


def _adapter(path: str, tree: ast.Module) -> str:
    functions = {found.name: found for found in tree.body if isinstance(found, ast.FunctionDef)}
    if "compute" in functions and "map" not in functions:
        raise JobRejected(f"{path} is a vertex application (it has compute): --compat remap runs map/reduce ones.")
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
