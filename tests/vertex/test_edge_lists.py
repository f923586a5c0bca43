"""Programs of the per-vertex form over lists of edges: the graph blobs that the build stage makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import job_file, p2premap

ROADS = "Ulm,Augsburg,80\nAugsburg,Munich,70\nUlm,Stuttgart,90\nStuttgart,Munich,220\nMunich,Salzburg,140\n"

PROGRAM = """
import p2premap

class Neighbours(p2premap.VertexProgram):
    aggregators = {"total": "sum"}

    def create(self, id):
        return []

    def compute(self, ctx, vertex, messages):
        if ctx.superstep == 0:
            ctx.send.all(vertex.id)
            for to, length in zip(vertex.edges, vertex.edge_values or ()):
                ctx.send(to, length)
            ctx.aggregate("total", len(vertex.edges))
        if ctx.superstep == 2:
            vertex.value = [ctx.vertices, ctx.edges, sorted(vertex.edges), sorted(map(str, vertex.value))]
            ctx.halt()
        vertex.value = [*vertex.value, *messages]
"""


@pytest.mark.parametrize("every", ["0", "1"])
def test_edges_show_the_ids_that_they_lead_to(three_nodes: PrivateCluster, tmp_path: Path, every: str) -> None:
    (tmp_path / "roads.csv").write_text(ROADS)
    done = p2premap(
        three_nodes.home,
        *("run", job_file(tmp_path, PROGRAM), str(tmp_path / "roads.csv"), "--partitions", "4"),
        *("--option", "weights=yes", "--option", f"checkpoint-every={every}", "--option", "writer=jsonl"),
    )
    assert done.exit_code == 0, done.stderr
    rows = map(json.loads, done.stdout.splitlines())
    assert {row["key"]: row["value"] for row in rows} == {
        "Ulm": [5, 5, ["Augsburg", "Stuttgart"], []],
        "Augsburg": [5, 5, ["Munich"], ["80.0", "Ulm"]],
        "Stuttgart": [5, 5, ["Munich"], ["90.0", "Ulm"]],
        "Munich": [5, 5, ["Salzburg"], ["220.0", "70.0", "Augsburg", "Stuttgart"]],
        "Salzburg": [5, 5, [], ["140.0", "Munich"]],
    }
