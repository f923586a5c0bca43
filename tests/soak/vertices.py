"""Vertex jobs on nodes that die: the same answer to the last digit, and nothing redone that a checkpoint had."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from p2premap.client.graphs import plan
from p2premap.client.planning import Asked
from p2premap.client.session import hand_in
from p2premap.client.submission import Submission
from p2premap.vertex.told import unpack_told
from tests.soak.nodes import Node
from tests.soak.trial import LOOK_S, FaultMissed, Hang, Trial
from tests.soak.work import Work
from tests.vertex.direct import DirectJob

SUPERSTEPS = 40
EPOCH = 5
PARTITIONS = 5
VERTICES = 400
EDGES = 3_000

PROGRAM = """
import json, os, time

import numpy as np
import p2premap


class Ranks(p2premap.ArrayProgram):
    combine = "sum"
    marks = ""
    pause_s = 0.0

    def start(self, part):
        part.state["rank"] = np.full(part.n, 1.0 / part.globals.vertices)

    def compute(self, part, inbox):
        self.mark(part)
        rank = part.state["rank"]
        if part.superstep:
            rank[:] = 0.15 / part.globals.vertices + 0.85 * inbox.values
        part.send_all(rank / np.maximum(part.degrees, 1))
        return False

    def mark(self, part):
        if self.marks:
            time.sleep(self.pause_s)
            line = json.dumps([part.superstep, part.number, os.getcwd(), time.monotonic()])
            file = os.open(self.marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, line.encode() + b"\\n")
            os.close(file)

    def result(self, part):
        return part.state["rank"]
"""


class Step(NamedTuple):
    """A superstep that a partition computed: where, and when by the monotonic clock."""

    superstep: int
    partition: int
    where: str
    at: float


class SlowGraph(Work):
    """A graph, a program that takes its time over it, and the right answer.

    Args:
        directory: seen by all nodes.
    """

    def __init__(self, directory: Path, inputs: Path, rng: Random) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.file, self.text, self.marks = directory / "ranks.py", inputs / "graph", directory / "steps"
        self.file.write_text(PROGRAM)
        edges = [(int(rng.triangular(0, VERTICES, 0)), rng.randrange(VERTICES)) for _ in range(EDGES)]
        self.text.write_text("".join(f"{source} {target}\n" for source, target in edges))
        self.marks.touch()
        plain = directory / "plain"
        plain.mkdir()
        self.right = DirectJob(self.submission(), plain, seats=3).run()

    def submission(self, **options: object) -> Submission:
        """The job."""
        given = {"supersteps": SUPERSTEPS, "checkpoint-every": EPOCH, **options}
        asked = Asked(
            file=str(self.file),
            inputs=[str(self.text)],
            slots=3,
            partitions=PARTITIONS,
            given={name: str(value) for name, value in given.items()},
        )
        return plan(asked)

    def steps(self) -> list[Step]:
        """All marks so far, in order of time; the last line may be half written."""
        whole, _, _ = self.marks.read_bytes().rpartition(b"\n")
        return sorted((Step(*json.loads(line)) for line in whole.splitlines()), key=lambda step: step.at)

    def wrong(self, parts: dict[int, bytes]) -> str:
        """What is wrong with an output, or ""."""
        lines = [line for _, part in sorted(parts.items()) for line in part.decode().splitlines()]
        found = dict(line.split("\t", 1) for line in lines)
        differ = {vertex for vertex in found.keys() | self.right.keys() if found.get(vertex) != self.right.get(vertex)}
        if not differ and len(lines) == len(found):
            return ""
        example = min(differ, default="")
        return (
            f"{len(differ)} of {len(self.right)} vertices differ, such as {example}: "
            f"{found.get(example)} instead of {self.right.get(example)}; {len(lines)} lines"
        )


Strike = Callable[[Trial, Node], tuple[float, list[Node]]]
"""Strikes, given the leader; returns when, and the nodes that are gone for good."""


def strike_in_supersteps(trial: Trial, strike: Strike) -> None:
    """A vertex job that is struck at a random superstep, seen through and judged."""
    graph = SlowGraph(trial.cluster.work_dir / "graph", trial.cluster.inputs_dir, trial.rng)
    trial.work = graph
    home = trial.home = trial.any_node()
    submission = graph.submission(marks=graph.marks, pause_s=0.01)
    trial.facts["tasks"] = submission.tasks
    trial.job = hand_in(home.connect, submission)
    leader, decided = _await_superstep(trial, graph, home)
    trial.fault_at, trial.victims = strike(trial, leader)
    if max(step.superstep for step in graph.steps() if step.at <= trial.fault_at) >= SUPERSTEPS - 1:
        raise FaultMissed("the last superstep was being computed")
    trial.see_through()
    judge_steps(trial, graph.steps(), decided)


def _await_superstep(trial: Trial, graph: SlowGraph, home: Node) -> tuple[Node, int]:
    """Wait for a random superstep; returns the leader, and up to which superstep checkpoints are decided."""
    wanted = trial.rng.randrange(SUPERSTEPS - EPOCH)
    trial.facts["moment"] = wanted
    with home.connect() as line:
        while True:
            view = trial.view(line)
            told = unpack_told(view.told)
            steps = graph.steps()
            if steps and steps[-1].superstep >= wanted:
                return trial.cluster.by_id(view.leader.hex()), told.supersteps if told is not None else 0
            if time.monotonic() > trial.until - trial.limit_s / 2:
                raise Hang(f"superstep {wanted} was not begun in half of the time: {view.note}")
            time.sleep(LOOK_S)


def judge_steps(trial: Trial, steps: Sequence[Step], decided: int) -> None:
    """What the marks tell: nothing is redone that a checkpoint had, and nothing is left out.

    Args:
        decided: so many supersteps the last checkpoint had that was told before the fault.
    """
    dead = {victim.id for victim in trial.victims}
    before = {(step.superstep, step.partition) for step in steps if step.at <= trial.fault_at}
    after = [step for step in steps if step.at > trial.fault_at and not any(node in step.where for node in dead)]
    again = {(step.superstep, step.partition) for step in after} & before
    trial.facts["decided"] = decided
    trial.facts["reached"] = max((superstep for superstep, _ in before), default=-1)
    trial.facts["again"] = len({superstep for superstep, _ in again})
    first = min((superstep for superstep, _ in again), default=decided)
    trial.check(first >= decided, f"superstep {first} was computed again although a checkpoint had {decided} of them")
    # what runs on in the gang's other processes until they hear of the loss tells nothing of who began anew
    anew = [step.at for step in after if (step.superstep, step.partition) in again]
    if anew:
        trial.facts["next_start_s"] = round(anew[0] - trial.fault_at, 4)
    computed = {(step.superstep, step.partition) for step in steps}
    whole = {(superstep, partition) for superstep in range(SUPERSTEPS) for partition in range(PARTITIONS)}
    trial.check(computed == whole, f"{len(whole - computed)} supersteps of partitions were never computed")
    if trial.last is not None:
        failed = sum(stage.failed_attempts for stage in trial.last.stages)
        trial.check(not failed, f"{failed} attempts failed, as the job counts them: a lost node costs them nothing")
        trial.facts.update(
            takeovers=trial.last.takeovers, lost_attempts=sum(stage.lost_attempts for stage in trial.last.stages)
        )
