"""Requirements: what is read, who meets it, and what is said where nobody does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.config import TasksConfig
from p2premap.errors import JobRejected
from p2premap.sim.workloads import Shape
from p2premap.tasks import placement, requirements
from p2premap.tasks.job import JobOptions, Phase
from p2premap.tasks.placement import Facts
from p2premap.tasks.workers import Workers
from tests.tasks.dialogue import Led
from tests.tasks.working import A

BIG = Facts(
    cpus=8,
    memory_bytes=16_000_000_000,
    gpus=2,
    tags=("ssd", "lab"),
    python="3.11.7",
    packages={"numpy": "1.26.4", "scikit-learn": "1.5.0rc1"},
    programs=frozenset(("ffmpeg", "g++")),
)


def places(*lines: str, facts: Facts = BIG, slots: int = 8) -> int:
    found = placement.places(requirements.read(lines), facts, slots)
    assert bool(found) == (not placement.lacks(requirements.read(lines), facts)), "lacking nothing is having a place"
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cpus 4", 2),
        ("cpus=3", 2),
        ("cpus >= 8", 1),
        ("cpus 9", 0),
        ("memory 4G", 4),
        ("memory 500M", 8),
        ("memory=16GB", 1),
        ("memory 16.1g", 0),
        ("gpu", 2),
        ("gpu 2", 1),
        ("gpu 3", 0),
        ("tag ssd", 8),
        ("tag=lab", 8),
        ("tag fast", 0),
        ("python 3.11", 8),
        ("python >=3.11,<3.13", 8),
        ("python>=3.12", 0),
        ("python 3.1", 0),
        ("python ==3.11.*", 8),
        ("python ==3.11", 0),
        ("python ~=3.9", 8),
        ("python ~=3.11.8", 0),
        ("python !=3.11.7", 0),
        ("package numpy", 8),
        ("package NumPy >=1.26", 8),
        ("package numpy >=2", 0),
        ("package numpy <2, >1.26.3", 8),
        ("package Scikit_Learn >=1.5", 8),
        ("package torch", 0),
        ("program ffmpeg", 8),
        ("program g++", 8),
        ("program avconv", 0),
        ("program avconv | program ffmpeg", 8),
        ("gpu 4 | cpus 4", 2),
        ("gpu | cpus 8", 2),
    ],
)
def test_what_a_node_meets(line: str, expected: int) -> None:
    assert places(line) == expected


def test_all_lines_count_and_the_tightest_one_says_how_many() -> None:
    assert places() == 8
    assert places("cpus 2", "memory 5G", "gpu") == 2
    assert places("cpus 2", "tag fast") == 0
    assert places("cpus 1", slots=3) == 3


@pytest.mark.parametrize(
    "line",
    [
        "", "|", "gpu |", "disk 5", "cpus", "cpus many", "cpus 0", "memory", "memory lots", "memory 0", "gpu 0", "tag",
        "tag a b", "python", "python new", "package", "package numpy >=", "package numpy 1.x", "package >=1",
        "program a b", "python >=3.*", "numpy", "cpus4", "gpu\x00",
    ],
)  # fmt: skip
def test_what_is_no_requirement_is_one_sentence(line: str) -> None:
    with pytest.raises(JobRejected) as error:
        requirements.read([line])
    assert str(error.value).count("\n") == 0
    assert str(error.value).startswith("The requirement")


def test_too_many_are_refused() -> None:
    with pytest.raises(JobRejected, match="more than"):
        requirements.read(["gpu"] * 65)
    with pytest.raises(JobRejected, match="alternatives"):
        requirements.read([" | ".join(["gpu"] * 17)])


def test_who_lacks_what_is_told_with_what_it_has() -> None:
    small = Facts(cpus=2, memory_bytes=1_000_000_000, python="3.9.2", packages={"numpy": "1.20"}, programs=frozenset())
    lines = ("cpus 4 | gpu", "package numpy >=1.26", "program ffmpeg", "tag ssd", "python 3.11")
    found = placement.lacks(requirements.read(lines), small)
    assert [lack.has for lack in found] == ["2 CPUs, no GPUs", "numpy 1.20", "no ffmpeg", "no tags", "Python 3.9.2"]
    assert found[0].requires == "cpus 4 | gpu"
    rows = [("pi", *lack) for lack in found]
    table = placement.table(rows).splitlines()
    assert table[0].split() == ["NODE", "LACKS", "HAS"]
    assert len({line.index(has) for line, (_, _, has) in zip(table[1:], rows, strict=True)}) == 1, "columns"
    said = placement.sentence([("pi", lack) for lack in found], shown_max=1)
    assert said == "pi lacks cpus 4 | gpu (it has 2 CPUs, no GPUs); and 4 more"


def test_what_is_not_known_yet_is_not_there_yet() -> None:
    facts = Facts(cpus=4)
    assert placement.places(requirements.read(["package numpy"]), facts, 4) == 0
    assert placement.lacks(requirements.read(["program ffmpeg"]), facts)[0].has == "not known yet"


def test_what_is_not_known_yet_is_not_told_where_something_is_lacking() -> None:
    either = ["package numpy | tag fast", "tag ssd", "program ffmpeg"]
    (lack,) = placement.lacks(requirements.read(either), Facts())
    assert lack == ("tag ssd", "no tags")
    said = placement.lacks(requirements.read(either), Facts(tags=("ssd",)))
    assert [one.has for one in said] == ["not known yet, tags ssd", "not known yet"]


VERSION = st.lists(st.integers(0, 30), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))


@given(version=VERSION, bound=VERSION)
def test_operators_agree_with_each_other(version: str, bound: str) -> None:
    def meets(operator: str) -> bool:
        facts = Facts(packages={"a": version})
        return bool(placement.places(requirements.read([f"package a {operator}{bound}"]), facts, 1))

    assert meets("<") + meets("==") + meets(">") == 1
    assert meets("<=") == (meets("<") or meets("=="))
    assert meets(">=") == (meets(">") or meets("=="))
    assert meets("!=") == (not meets("=="))
    assert meets("~=") <= meets(">=")
    assert meets("==") <= meets("")


PIECES = (
    "cpus",
    "memory",
    "gpu",
    "tag",
    "python",
    "package",
    "program",
    "numpy",
    "a.b",
    "g++",
    "4",
    "8G",
    "1.26",
    "2.*",
)
OPERATORS = ("=", "==", ">=", "~=", "<", ",", "|", " ", "  ", "-", "")


@given(st.lists(st.sampled_from((*PIECES, *OPERATORS)), max_size=8).map("".join) | st.text(max_size=40))
def test_any_text_is_read_or_refused_and_reads_as_it_is_shown(line: str) -> None:
    try:
        (shown,) = requirements.read([line]).clauses
    except JobRejected:
        return
    (again,) = requirements.read([" | ".join(need.text for need in shown)]).clauses
    assert [need[1:] for need in again] == [need[1:] for need in shown]


@given(
    lines=st.lists(st.sampled_from(["cpus 2", "cpus 5", "gpu", "memory 3G", "tag ssd", "tag x", "python 3.11"])),
    more=st.sampled_from(["cpus 1", "gpu 1", "tag x", "package torch"]),
    slots=st.integers(0, 16),
)
def test_more_requirements_never_give_more_places_and_alternatives_never_fewer(
    lines: list[str], more: str, slots: int
) -> None:
    found = placement.places(requirements.read(lines), BIG, slots)
    assert 0 <= placement.places(requirements.read([*lines, more]), BIG, slots) <= found <= slots
    eased = [f"{line} | {more}" for line in lines]
    assert placement.places(requirements.read(eased), BIG, slots) >= found


# --- in the leader --------------------------------------------------------------------------------------------------


def led(*requires: str, tasks: int = 4, shape: Shape | None = None) -> Led:
    return Led(shape or Shape(tasks), options=JobOptions(requires=requires))


def test_tasks_go_only_to_nodes_that_have_what_the_job_requires() -> None:
    job = led("package numpy >=1.26", tasks=2)
    assert job.seen("A", facts=Facts(packages={"numpy": "1.20"})) == []
    assert job.seen("B") == []
    assert job.seen("C", slots=2, facts=BIG) == ["C: map 0", "C: map 1"]
    assert job.view.unmet == ()


def test_a_node_that_gets_what_was_missing_is_given_work_then() -> None:
    job = led("tag ssd", tasks=1)
    assert job.seen("A", facts=Facts(tags=())) == []
    assert job.seen("A", facts=BIG) == ["A: map 0"]
    assert job.done("A", 0) == ["A: forget", "done"]


def test_an_attempt_that_needs_four_cpus_counts_as_four_and_none_is_sent_ahead() -> None:
    job = led("cpus 4", tasks=6)
    assert job.seen("A", slots=8, facts=BIG) == ["A: map 0", "A: map 1"]
    assert job.done("A", 0) == ["A: map 2"]


def test_a_node_that_is_shared_by_need_is_not_sent_the_next_batch_ahead() -> None:
    need = Workers(TasksConfig(), requirements.read(["cpus 4"]))
    assert need.room(need.see(A, "a", 8, b"a", BIG)) == need.slots == 2
    free = Workers(TasksConfig())
    assert free.room(free.see(A, "a", 8, b"a", BIG)) > free.slots == 8


def test_where_nobody_fits_the_job_waits_and_says_who_lacks_what() -> None:
    job = led("gpu", "program ffmpeg")
    job.seen("A", facts=Facts(cpus=1, programs=frozenset(("ls",))))
    job.seen("B", facts=Facts(gpus=1))
    view = job.view
    assert view.phase is Phase.WAITING
    assert view.note.startswith("No node has what the job requires")
    assert "a lacks gpu (it has no GPUs)" in view.note
    assert view.unmet == (
        ("a", "gpu", "no GPUs"),
        ("a", "program ffmpeg", "no ffmpeg"),
        ("b", "program ffmpeg", "not known yet"),
    )
    why = job.core.why(job.now)
    assert "NODE  LACKS           HAS" in why.splitlines()
    job.seen("C", facts=BIG)
    assert job.view.unmet == ()
    assert "a lacks gpu" not in job.view.note
    job.lost("C")
    assert {row[0] for row in job.view.unmet} == {"a", "b"}


def test_requirements_that_are_none_are_refused_before_the_job_begins() -> None:
    with pytest.raises(JobRejected, match="disk 5"):
        led("disk 5")
