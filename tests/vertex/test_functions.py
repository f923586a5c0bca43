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
from p2premap.vertex.program import ArrayProgram, VertexProgram, set_options
from p2premap.worker.vertex.functions import FunctionProgram
from p2premap.worker.vertex.jobcode import find_program, form_of, job_code
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
    made = ModuleType("job")
    for name, value in names.items():
        if isinstance(value, type):
            value.__module__ = "job"
        setattr(made, name, value)
    return made


def program(name: str, base: type = VertexProgram, **names: Any) -> type:
    return type(name, (base,), names)


def test_the_program_of_a_job_file_is_found() -> None:
    one, other = program("One"), program("Other")
    assert type(find_program(module(One=one, imported=VertexProgram))) is one
    assert type(find_program(module(One=one, Derived=program("Derived", one)))).__name__ == "Derived"
    assert type(find_program(module(One=one, Other=other, program=other))) is other
    assert isinstance(find_program(module(prepare=prepare, compute=short)), FunctionProgram)
    assert form_of(find_program(module(One=program("Arrays", ArrayProgram)))) == "arrays"


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({}, "The job file has no vertex program: define a class"),
        ({"A": program("A"), "B": program("B")}, r"several vertex programs \(A, B\): say program = one of them"),
        ({"program": 3}, "3 is no vertex program"),
        ({"A": program("A", __init__=lambda self, x: None)}, "A must be made without arguments"),
    ],
)
def test_a_job_file_without_one_program_is_refused(names: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VertexError, match=sentence):
        find_program(module(**names))


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
    made = Options()
    set_options(made, {"damping": "0.5", "rounds": 7, "loud": "yes", "start": "Ulm"})
    assert (made.damping, made.rounds, made.loud, made.start) == (0.5, 7, True, "Ulm")
    for given, integers, source in (("7", False, "7"), ("7", True, 7), ("Ulm", True, "Ulm"), (7, True, 7)):
        made = Options()
        set_options(made, {"source": given}, integers=integers)
        assert made.source == source, "None stands for the id of a vertex"
    for wrong in ({"nonesuch": 1}, {"compute": 1}, {"_x": 1}):
        with pytest.raises(VertexError, match="Options has no option"):
            set_options(made, wrong)
    for wrong in ({"rounds": "many"}, {"loud": "perhaps"}, {"damping": None}):
        with pytest.raises(VertexError, match="must be of type"):
            set_options(made, wrong)


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
