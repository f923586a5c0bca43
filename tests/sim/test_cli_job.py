"""`p2premap sim JOB.PY`: a user's own job in a cluster that loses its leader."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from p2premap.errors import ConfigError, JobRejected
from p2premap.sim.cli import sim_command

JOB = """
def map(_, line):
    for word in line.split():
        yield word, 1

def reduce(word, counts):
    return sum(counts)
"""


PROGRAM = """
import p2premap

class Seen:
    def __init__(self):
        self.ids = set()

class Reach(p2premap.VertexProgram):
    def create(self, id):
        return Seen()

    def compute(self, ctx, vertex, messages):
        fresh = set().union(*messages, {vertex.id}) - vertex.value.ids
        vertex.value.ids |= fresh
        if fresh:
            ctx.send.all(fresh)
        ctx.halt()

    def result(self, vertex):
        return len(vertex.value.ids)
"""


@pytest.fixture
def job(tmp_path: Path) -> tuple[str, str]:
    path, text = tmp_path / "count.py", tmp_path / "text"
    path.write_text(JOB)
    text.write_text("".join(f"word{n % 97} and more\n" for n in range(4_000)))
    return str(path), str(text)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(sim_command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout


def test_a_job_that_loses_its_leader_gives_the_same_answer(job: tuple[str, str], tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    code, text = run(*job, "--nodes", "5", "--seed", "3", "--kill-leader", "--plot", str(picture))
    assert code == 0, text
    assert "which leads the job, loses power" in text
    assert "redone            0 finished tasks" in text
    assert "answer            the same as without faults" in text
    assert f"again             p2premap sim {job[0]} {job[1]} --nodes 5 --seed 3 --kill-leader" in text
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_a_vertex_program_that_loses_its_leader_gives_the_same_answer(tmp_path: Path) -> None:
    program, edges = tmp_path / "reach.py", tmp_path / "edges.txt"
    program.write_text(PROGRAM)
    edges.write_text("".join(f"{n} {(7 * n + 3) % 101}\n{n} {(n * n) % 101}\n" for n in range(101)))
    code, text = run(str(program), str(edges), "--nodes", "4", "--seed", "2", "--kill-leader")
    assert code == 0, text
    assert "which leads the job, loses power" in text
    assert "answer            the same as without faults" in text


def test_json_is_one_object_and_the_seed_decides(job: tuple[str, str]) -> None:
    arguments = (*job, "--nodes", "4", "--kill-leader", "--kill", "1", "--json")
    (code, first), (_, second) = run(*arguments), run(*arguments)
    story = json.loads(first)
    assert code == 0
    assert story["ok"] is story["same"] is True
    assert (story["redone"], story["takeovers"] >= 1) == (0, True)
    assert len(story["takeover_s"]) == 1
    assert story["trace"] == json.loads(second)["trace"]


def test_a_job_whose_answer_depends_on_chance_is_told(job: tuple[str, str]) -> None:
    path = Path(job[0])
    path.write_text(f"import random\n{JOB}".replace("sum(counts)", "random.random()"))
    code, text = run(*job, "--nodes", "3")
    assert code == 1
    assert "NOT the same as" in text
    assert "random numbers" in text


def test_what_cannot_be_simulated_is_refused(job: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one must stay"):
        run(*job, "--nodes", "2", "--kill-leader", "--kill", "1")
    with pytest.raises(JobRejected):
        run(str(tmp_path / "none.py"), job[1])
    action = tmp_path / "action.py"
    action.write_text("import p2premap\nclass A(p2premap.Action):\n    def process(self): return self.input\n")
    with pytest.raises(ConfigError, match=r"is a job of kind action; map/reduce jobs and vertex programs"):
        run(str(action), "1")
