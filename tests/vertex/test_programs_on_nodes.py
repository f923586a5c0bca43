"""Programs of the per-vertex form on real nodes: what they raise, what they leave on the disks."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import eventually, job_file, p2premap, private

GRAPH = "a b c\nb c\nc a\nd a b c\ne\n"

RAISES = """
import p2premap

class Restless(p2premap.VertexProgram):
    def prepare(self, line):
        id, *targets = line.split()
        return id, 0, targets

    def compute(self, ctx, vertex, messages):
        ctx.send.all("hello")
        if ctx.superstep == 7 and vertex.id == "c":
            vertex.value += len(messages) / 0
"""

COUNTS = """
import p2premap

class Counts(p2premap.VertexProgram):
    combiner = "sum"

    def prepare(self, line):
        id, *targets = line.split()
        return id, 1, targets

    def compute(self, ctx, vertex, messages):
        if ctx.superstep:
            vertex.value = sum(messages)
        ctx.send.all(vertex.value)
"""


@pytest.fixture
def graph(tmp_path: Path) -> str:
    (tmp_path / "graph.txt").write_text(GRAPH)
    return str(tmp_path / "graph.txt")


def test_what_compute_raises_ends_the_job_with_vertex_superstep_and_traceback(
    three_nodes: PrivateCluster, tmp_path: Path, graph: str
) -> None:
    done = p2premap(three_nodes.home, "run", job_file(tmp_path, RAISES), graph, "--partitions", "3")
    assert done.exit_code == 1
    assert "compute of vertex 'c' in superstep 7" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "vertex.value += len(messages) / 0" in done.stderr
    # a process that was told to stop just then has said where it was: that is its output, and no traceback
    assert "p2premap/worker" not in done.stderr.partition("--- the end of its output ---")[0]


def paths(steps: int) -> dict[str, int]:
    """How many ways of so many edges end at each vertex."""
    edges = {line.split()[0]: line.split()[1:] for line in GRAPH.splitlines()}
    counts = dict.fromkeys(edges, 1)
    for _ in range(steps):
        counts = {to: sum(counts[by] * edges[by].count(to) for by in edges) for to in edges}
    return counts


def test_states_of_old_epochs_do_not_stay_on_the_disks(tmp_path: Path, graph: str) -> None:
    with private() as cluster:
        done = p2premap(
            cluster.home,
            *("run", job_file(tmp_path, COUNTS), graph, "--partitions", "3"),
            *("--option", "checkpoint-every=1", "--option", "supersteps=11"),
        )
        assert done.exit_code == 0, done.stderr
        found = dict(line.split("\t") for line in done.stdout.splitlines())
        assert {id: int(count) for id, count in found.items()} == paths(10)
        stores = glob.glob(f"{cluster.home}/**/blobs", recursive=True)
        assert len(stores) == 3
        # of 11 epochs with 3 states in two places each, the last 3; code, plan, graphs, first states and parts besides
        eventually(lambda: sum(len(files) for store in stores for _, _, files in os.walk(store)) < 60)
