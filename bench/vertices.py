"""Vertex programs that are called for each vertex, on two slots of a node, beside a plain Pregel loop in one process.

PageRank on an R-MAT graph (16 edges a vertex), written as adjacency lines. The plain loop is what one writes first: a
dict of vertices, a dict of messages for the next superstep, a `send` that appends to it; its garbage collector is off.
Both call the same `compute`.

- ``lists``      each message is sent by itself, and a vertex gets a list of them
- ``combiner``   the same, and messages for one vertex are summed up on the way; so does the plain loop
- ``send list``  one call of `send` for all edges of a vertex
- ``send.all``   one call of `send.all`, with a combiner

What is compared is the median superstep, from barrier to barrier, without the first two: `job` says what all of it
took from the plan to the last output part.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import vertexjob
from bench.children import command, said_by
from bench.nodes import Cluster, cpu_s
from bench.report import Emitter
from bench.rmat import rmat

QUICK: Final = {"repeat": 1, "scale": 8}
SCALE = 17
SUPERSTEPS = 10
WARM = 2
REPEATS = 3

HEAD: Final = """
import p2premap

class Rank(p2premap.VertexProgram):
    combiner = {combiner}

    def prepare(self, line):
        id, *edges = map(int, line.split())
        return id, 1.0, edges

    def compute(self, ctx, vertex, messages):
        if ctx.superstep:
            vertex.value = 0.15 + 0.85 * sum(messages)
        edges = vertex.edges
        if edges:
            share = vertex.value / len(edges)
            {send}
"""
_ONE_BY_ONE: Final = """send = ctx.send
            for to in edges:
                send(to, share)"""
FORMS: Final[Mapping[str, tuple[str, str, float]]] = {
    "lists": ("None", _ONE_BY_ONE, 1.2),
    "combiner": ('"sum"', _ONE_BY_ONE, 1.4),
    "send list": ("None", "ctx.send(edges, share)", 3.3),
    "send.all": ('"sum"', "ctx.send.all(share)", 12.0),
}
"""Combiner, how it sends, and how many times as fast as the plain loop it should be."""


def write_lines(path: Path, scale: int) -> int:
    """The graph as adjacency lines; how many edges it has."""
    sources, targets = rmat(scale)
    order = np.argsort(sources, kind="stable")
    ids, starts = np.unique(sources[order], return_index=True)
    lists = np.split(targets[order], starts[1:])
    alone = np.setdiff1d(np.unique(targets), ids)
    with open(path, "w", encoding="ascii") as file:
        for id, found in zip(ids.tolist(), lists, strict=True):
            file.write(f"{id} {' '.join(map(str, found.tolist()))}\n")
        file.writelines(f"{id}\n" for id in alone.tolist())
    return len(sources)


def plain(path: Path, *, combines: bool) -> list[float]:
    """Seconds of each superstep of the plain loop."""
    vertices: dict[int, tuple[float, list[int]]] = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            id, *edges = map(int, line.split())
            vertices[id] = 1.0, edges

    def compute(send: Any, superstep: int, vertex: Any, messages: Any) -> Any:  # noqa: ANN401  (as users write it)
        value, edges = vertex
        if superstep:
            value = 0.15 + 0.85 * sum(messages)
        if edges:
            share = value / len(edges)
            for to in edges:
                send(to, share)
        return (value, edges), False

    return _plain_loop(vertices, compute, combines=combines)


def _plain_loop(vertices: dict[int, Any], compute: Any, *, combines: bool) -> list[float]:  # noqa: ANN401  (see there)
    gc.disable()
    inbox: dict[int, Any] = {}
    taken = []
    for superstep in range(SUPERSTEPS):
        began = time.perf_counter()
        outbox: dict[int, Any] = {}

        def send(to: int, value: float, outbox: dict[int, Any] = outbox) -> None:
            if to in outbox:
                outbox[to].append(value)
            else:
                outbox[to] = [value]

        def add(to: int, value: float, outbox: dict[int, Any] = outbox) -> None:
            if to in outbox:
                outbox[to] += value
            else:
                outbox[to] = value

        for id, vertex in vertices.items():
            if combines:
                messages = (inbox[id],) if id in inbox else ()
                vertices[id], _ = compute(add, superstep, vertex, messages)
            else:
                vertices[id], _ = compute(send, superstep, vertex, inbox.get(id, ()))
        inbox = outbox
        taken.append(time.perf_counter() - began)
    return taken


def _plain_in_own_process(path: Path, *, combines: bool) -> float:
    typed = [sys.executable, "-m", "bench.vertices", "--plain", str(path), *(["--combines"] if combines else [])]
    taken: list[float] = json.loads(said_by(typed))
    return statistics.median(taken[WARM:])


def run(emit: Emitter, *, scale: int = SCALE, repeat: int = REPEATS) -> None:
    """Measure all forms, each beside the plain loop."""
    with tempfile.TemporaryDirectory(prefix="p2p-vertices-") as scratch:
        path = Path(scratch) / "graph.txt"
        edges = write_lines(path, scale)
        for form, (combiner, send, target) in FORMS.items():
            job_file = Path(scratch) / "rank.py"
            job_file.write_text(HEAD.format(combiner=combiner, send=send))
            ours, theirs, walls, used = [], [], [], []
            for _ in range(repeat):
                theirs.append(_plain_in_own_process(path, combines=form == "combiner"))
                with Cluster(["only"], slots=2) as cluster:
                    planner = vertexjob.of_file(job_file, [path], supersteps=SUPERSTEPS)
                    before = cpu_s(cluster.pids)
                    ran = vertexjob.run_once(cluster.paths, planner)
                    used.append(cpu_s(cluster.pids) - before)
                walls.append(ran.wall_s)
                ours.append(statistics.median(row.seconds for row in ran.told.rows[WARM:]))
            name = f"rmat-{scale} {form}"
            emit(f"{name}: job", walls, "s", vertices=ran.told.vertices, edges=edges, checkpoints=ran.told.checkpoints)
            emit(f"{name}: job, CPU of the node", used, "s")
            emit(f"{name}: superstep", ours, "s")
            emit(f"{name}: superstep of the plain loop", theirs, "s")
            ratios = [plain_s / own for plain_s, own in zip(theirs, ours, strict=True)]
            emit(f"{name}: times as fast as the plain loop", ratios, "times", target=target, at_least=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Vertex programs, measured.")
    parser.add_argument("--scale", type=int, default=SCALE)
    parser.add_argument("--repeat", type=int, default=REPEATS)
    parser.add_argument("--plain", default="", help=argparse.SUPPRESS)
    parser.add_argument("--combines", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        print(json.dumps(plain(Path(options.plain), combines=options.combines)))
        return
    run(Emitter("vertices"), scale=options.scale, repeat=options.repeat)


if __name__ == "__main__":
    command(main)
