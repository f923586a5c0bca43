"""Job files: what is refused before a job exists, and what travels with them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from p2premap.client.bundle import kind_of, load_job
from p2premap.errors import JobRejected
from p2premap.tasks.bundle import JOB_MODULE, unpack_bundle
from p2premap.tasks.mapreduce_plan import EACH_KEY, EACH_NODE, ENDLESS

GOOD = "def map(key, value):\n    yield value, 1\n"
REDUCE = "def reduce(key, values):\n    return sum(values)\n"


def job(directory: Path, source: str, name: str = "job.py") -> str:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return str(path)


def modules(path: str) -> dict[str, bool]:
    return {m.name: m.package for m in unpack_bundle(load_job(path).bundle)}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("def reduce(key, values): ...\n", "has no function map"),
        ("import os\n", "has no function map"),
        ("def map(key):\n    pass\n", r"line 1: map must take two arguments, map\(key, value\)"),
        ("def map(key, value, more):\n    pass\n", "map must take two arguments"),
        ("def map(key, value, *, flag):\n    pass\n", "map must take two arguments"),
        (GOOD + "def reduce(values):\n    pass\n", r"line 3: reduce must take two arguments, reduce\(key, values\)"),
        (GOOD + REDUCE + "def combine():\n    pass\n", "combine must take two arguments"),
        (GOOD + REDUCE + "def partition(key):\n    pass\n", r"partition must take two arguments, partition\(key, n\)"),
        (GOOD + "def combine(key, values): return 1\n", "has combine but no reduce"),
        ("async def map(key, value):\n    pass\n", "map is an async function"),
        ("map = 5\n", "map is not a function"),
        (GOOD + "reader = 'words'\n", "reader is 'words'; say one of lines, "),
        ("def map(key, value):\n    yield value 1\n", r"line 2: "),
        ("def map(key, value)\n", r"line 1: expected ':'"),
        ("from functools import reduce\n", "has no function map"),
    ],
)
def test_a_wrong_job_file_is_refused_with_a_sentence(tmp_path: Path, source: str, sentence: str) -> None:
    with pytest.raises(JobRejected, match=sentence) as caught:
        load_job(job(tmp_path, source))
    assert "\n" not in str(caught.value)
    assert "job.py" in str(caught.value)


@pytest.mark.parametrize("data", [b"\0\1\2", "café".encode("utf-16"), b"x = '\xff'\n", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_python_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "picture").write_bytes(data)
    with pytest.raises(JobRejected, match="is not a Python file"):
        load_job(str(tmp_path / "picture"))


def test_a_text_is_no_python_file(tmp_path: Path) -> None:
    with pytest.raises(JobRejected, match="is not a Python file"):
        load_job(job(tmp_path, "Call me Ishmael.\n", "novel.txt"))


def test_a_missing_file_or_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobRejected, match=r"Cannot read the job file .*missing\.py: No such file"):
        load_job(str(tmp_path / "missing.py"))
    with pytest.raises(JobRejected, match="Cannot read the job file"):
        load_job(str(tmp_path))


@pytest.mark.parametrize(
    "source",
    [
        GOOD,
        "def map(*both): return []\n",
        "def map(key, value, extra=None): return []\n",
        "map = lambda key, value: [(value, 1)]\n",
        "if True:\n    def map(key, value): return []\n",
        "try:\n    from fast import map\nexcept ImportError:\n    def map(key, value): return []\n",
        "import functools\n@functools.cache\ndef map(key): return []\n",
        "from somewhere import map\n",
        '"""With \\d an old escape."""\n' + GOOD,
    ],
)
def test_unusual_but_right_job_files_are_accepted(tmp_path: Path, source: str) -> None:
    code = load_job(job(tmp_path, source))
    assert (code.name, code.has_reduce, code.text) == ("job", False, True)


def test_nothing_of_the_job_file_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    load_job(job(tmp_path, f"open({str(witness)!r}, 'w')\n{GOOD}"))
    assert not witness.exists()


def test_the_functions_that_there_are(tmp_path: Path) -> None:
    assert load_job(job(tmp_path, GOOD + REDUCE)).has_reduce
    assert load_job(job(tmp_path, GOOD + "reduce = sum_up = lambda key, values: 1\n")).has_reduce
    assert not load_job(job(tmp_path, "from functools import reduce\n" + GOOD)).has_reduce
    assert not load_job(job(tmp_path, GOOD + "encoding = None\n")).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", math.inf)),
        ("each_node = False\n", ("", math.inf)),
        ("each_node = True\n", (EACH_NODE, 0.0)),
        ("each_node = True\ndatasource = range(9)\nlasts = 60\n", (EACH_KEY, 60.0)),
        ("endless = True\ndatasource = count()\n", (ENDLESS, math.inf)),
        ("endless = True\nlasts = 0.5\ndatasource = count()\n", (ENDLESS, 0.5)),
    ],
)
def test_how_long_a_job_goes_on(tmp_path: Path, text: str, expected: tuple[str, float]) -> None:
    code = load_job(job(tmp_path, text + GOOD))
    assert (code.open, code.lasts_s) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("each_node = 'all'\n", "each_node must be True or False"),
        ("endless = datasource = []\n", "endless must be True or False"),
        ("endless = True\n", "has endless but no datasource"),
        ("endless = each_node = True\n", "has each_node and endless"),
        ("endless = True\ndatasource = []\ndef finish(pairs): pass\n", "has endless and finish, which waits"),
        ("lasts = 5\n", "has lasts, which is for jobs with each_node or endless"),
        ("each_node = True\nlasts = True\n", "lasts must be a number of seconds"),
        ("each_node = True\nlasts = -1\n", "lasts must be a number of seconds"),
    ],
)
def test_a_duration_that_makes_no_sense_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(JobRejected, match=sentence):
        load_job(job(tmp_path, text + GOOD))


def test_local_modules_travel_with_what_they_import(tmp_path: Path) -> None:
    job(tmp_path, "import stop\nfrom kit import clean\nimport kit.deep.well\n", "words.py")
    job(tmp_path, "LIST = []\n", "stop.py")
    job(tmp_path, "from . import tools\nfrom .deep import well\n", "kit/__init__.py")
    job(tmp_path, "def f():\n    import late\n", "kit/clean.py")
    job(tmp_path, "", "kit/tools.py")
    job(tmp_path, "", "kit/unused.py")
    job(tmp_path, "from ..tools import x\n", "kit/deep/well.py")  # kit.deep has no __init__.py
    job(tmp_path, "import json\n", "late.py")
    job(tmp_path, "", "alone.py")
    path = job(tmp_path, "import words, numpy, os.path\n" + GOOD)
    assert modules(path) == {
        JOB_MODULE: False,
        "words": False,
        "stop": False,
        "kit": True,
        "kit.clean": False,
        "kit.tools": False,
        "kit.deep": True,
        "kit.deep.well": False,
        "late": False,
    }


@pytest.mark.parametrize("name", ["random.py", "json/__init__.py"])
def test_a_module_that_would_be_taken_for_another_is_refused(tmp_path: Path, name: str) -> None:
    job(tmp_path, "X = 1\n", name)
    assert load_job(job(tmp_path, GOOD)), "whoever does not import it does not care"
    module = name.partition("/")[0].removesuffix(".py")
    with pytest.raises(JobRejected, match=rf"{name} has the name of a module of Python's own"):
        load_job(job(tmp_path, f"import {module}\n{GOOD}"))
    assert load_job(job(tmp_path, f"import calendar\n{GOOD}", "calendar.py")), "the job file itself is none"
    job(tmp_path, "", "html/page.py")
    assert load_job(job(tmp_path, f"import html\n{GOOD}")), "Python prefers its own to a directory without __init__.py"


def test_modules_that_import_each_other(tmp_path: Path) -> None:
    job(tmp_path, "import b\n", "a.py")
    job(tmp_path, "import a\n", "b.py")
    assert set(modules(job(tmp_path, "import a\n" + GOOD))) == {JOB_MODULE, "a", "b"}


def test_functions_may_come_from_a_local_module_by_star(tmp_path: Path) -> None:
    job(tmp_path, GOOD + REDUCE, "shared.py")
    code = load_job(job(tmp_path, "from shared import *\n"))
    assert code.has_reduce


def test_a_local_module_with_a_syntax_error_is_named(tmp_path: Path) -> None:
    job(tmp_path, "x = = 1\n", "helper.py")
    with pytest.raises(JobRejected, match=r"helper\.py, line 1: "):
        load_job(job(tmp_path, "import helper\n" + GOOD))


def test_a_file_in_another_declared_encoding(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_bytes(b"# -*- coding: latin-1 -*-\nname = '\xe9'\n" + GOOD.encode())
    (main, *_) = unpack_bundle(load_job(str(tmp_path / "old.py")).bundle)
    assert "name = '\u00e9'" in main.source


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import p2premap\nclass A(p2premap.Action): pass", "action"),
        ("import p2premap as p2\nclass A(p2.Action): pass", "action"),
        ("from p2premap import Action\nclass A(Action): pass", "action"),
        ("from p2premap import Action as Base\nclass A(Base): pass", "action"),
        ("from mine import Action\nclass A(Action): pass", "action"),
        ("from p2premap import VertexProgram as V\nclass A(V): pass", "vertex"),
        ("import argparse\nclass A(argparse.Action): pass", "mapreduce"),
        ("from argparse import Action\nclass A(Action): pass", "mapreduce"),
    ],
)
def test_the_kind_is_told_by_what_a_class_derives_from(tmp_path: Path, source: str, kind: str) -> None:
    assert kind_of(job(tmp_path, source)) == kind
