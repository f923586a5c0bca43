"""Programs of two functions, in remap's form, and how the program in a job file is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from p2premap.client.private import PrivateCluster
from p2premap.vertex.barrier import VertexError
from p2premap.vertex.plan import Settings
from p2premap.vertex.program import VertexProgram, set_options
from p2premap.worker.vertex.functions import FunctionProgram, program_of
from p2premap.worker.vertex.jobcode import form_of, job_code, made
from tests.cluster import job_file, p2premap
from tests.vertex.localjob import run

LINES = ["a 3 b", "b 9 c", "", "c 2 a d", "d 5"]


def prepare(line: str) -> Any:
    if not line:
        return None, None
    name, value, *targets = line.split()
    return name, int(value), targets


def loaded(program: FunctionProgram) -> Any:
    rows = [program.prepare(line) for line in LINES]
    assert rows.pop(2) is None
    return [(*row, None) for row in rows if row is not None]


def short(send: Any, superstep: int, value: int, messages: Any) -> Any:
    highest = max([value, *messages])
    send.all(highest)
    return highest, superstep > 0 and highest == value


def by_list(send: Any, superstep: int, value: int, messages: Any) -> Any:
    send(["a", "b"], value)
    return None if superstep else value + len(messages), superstep == 1


def long(send: Any, subscribe: Any, unsubscribe: Any, superstep: int, value: int, messages: Any) -> Any:
    if superstep == 0:
        subscribe("news")
    if superstep == 1 and value == 9:
        send("news", 100)
    if superstep == 2:
        unsubscribe("news")
        value += sum(messages)
    return value, superstep == 3


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (short, {"a": 9, "b": 9, "c": 9, "d": 9}),
        (by_list, {"a": 3, "b": 9, "c": 2, "d": 5}),
        (long, {"a": 103, "b": 109, "c": 102, "d": 105}),
    ],
)
def test_compute_in_either_form(compute: Callable[..., Any], expected: dict[str, int], partitions: int) -> None:
    program = FunctionProgram(prepare, compute)
    assert run(program, loaded(program), partitions=partitions) == expected


@pytest.mark.parametrize("compute", [lambda send, superstep: None, lambda *args: None])
def test_compute_with_other_arguments_is_refused(compute: Callable[..., Any]) -> None:
    with pytest.raises(VertexError, match=r"it must take 4 .* or 6"):
        FunctionProgram(prepare, compute)


def module(**names: Any) -> ModuleType:
    job = ModuleType("job")
    for name, value in names.items():
        if isinstance(value, type):
            value.__module__ = "job"
        setattr(job, name, value)
    return job


def test_what_a_job_file_says_is_made_a_program() -> None:
    assert isinstance(program_of(module(prepare=prepare, compute=short)), FunctionProgram)
    with pytest.raises(VertexError, match="has no functions prepare and compute"):
        program_of(module(prepare=prepare, compute=3))
    assert form_of(made(Options)) == "objects"
    one = Options()
    assert made(one) is one
    for wrong, said in (
        (3, "3 is no vertex program"),
        (None, "None is no vertex program"),
        (type("A", (VertexProgram,), {"__init__": lambda self, x: None}), "A must be made without arguments"),
    ):
        with pytest.raises(VertexError, match=said):
            made(wrong)


def test_a_program_of_another_form_than_was_planned_is_refused() -> None:
    told = Settings(form="objects", program="p2premap.worker.vertex.algorithms:PageRank")
    with pytest.raises(VertexError, match="planned for a program of the form 'objects'"):
        job_code(b"", told)


class Options(VertexProgram):
    damping = 0.85
    rounds = 3
    loud = False
    start = ""
    source = None


def test_options_are_attributes_of_the_same_type() -> None:
    one = Options()
    set_options(one, {"damping": "0.5", "rounds": 7, "loud": "yes", "start": "Ulm"})
    assert (one.damping, one.rounds, one.loud, one.start) == (0.5, 7, True, "Ulm")
    for given, integers, source in (("7", False, "7"), ("7", True, 7), ("Ulm", True, "Ulm"), (7, True, 7)):
        one = Options()
        set_options(one, {"source": given}, integers=integers)
        assert one.source == source, "None stands for the id of a vertex"
    for wrong in ({"nonesuch": 1}, {"compute": 1}, {"_x": 1}):
        with pytest.raises(VertexError, match="Options has no option"):
            set_options(one, wrong)
    for wrong in ({"rounds": "many"}, {"loud": "perhaps"}, {"damping": None}):
        with pytest.raises(VertexError, match="must be of type"):
            set_options(one, wrong)


FUNCTIONS = """
def prepare(line):
    name, value, *targets = line.split() or [None, 0]
    return name, int(value), targets

def compute(send, superstep, value, messages):
    highest = max([value, *messages])
    send.all(highest)
    return highest, superstep > 0 and highest == value
"""


def test_two_functions_are_a_job_file(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "values.txt").write_text("\n".join(LINES))
    done = p2premap(three_nodes.home, "run", job_file(tmp_path, FUNCTIONS), str(tmp_path / "values.txt"))
    assert done.exit_code == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["a\t9", "b\t9", "c\t9", "d\t9"]
