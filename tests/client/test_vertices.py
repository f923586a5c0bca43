"""`Cluster.run_vertex` on three nodes: algorithms, classes and job files, over files and graphs of other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import p2premap
import p2premap.aio
from p2premap.client.cluster import Cluster
from p2premap.client.private import PrivateCluster
from p2premap.control.jobs import Jobs, ListJobs
from p2premap.errors import JobFailed, JobRejected
from p2premap.tasks.job import JobView, Phase
from tests.cluster import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def cluster(three_nodes: PrivateCluster) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("P2PREMAP_HOME", three_nodes.home)
        with p2premap.connect(name="vertices") as connected:
            yield connected


class Longest(p2premap.VertexProgram):
    """Each vertex hears of the largest number that leads to it."""

    combiner = max
    least = 0

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        best = max([vertex.value or vertex.id, self.least, *messages])
        if ctx.superstep == 0 or best != vertex.value:
            vertex.value = best
            ctx.send.all(best)
        ctx.halt()


def test_an_algorithm_over_a_file(cluster: Cluster, tmp_path: Path) -> None:
    graph = tmp_path / "graph.txt"
    graph.write_text("1 2\n2 3\n4 5\n")
    result = cluster.run_vertex("components", graph)
    assert result == {1: 1, 2: 1, 3: 1, 4: 4, 5: 4}
    assert (result.vertices, result.edges, result.bad_lines) == (5, 3, 0)
    assert [step.superstep for step in result.steps] == list(range(len(result.steps)))


def test_trio_waits_and_cancels(three_nodes: PrivateCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PREMAP_HOME", three_nodes.home)
    graph = tmp_path / "graph.txt"
    graph.write_text("1 2\n")
    jobs: list[str] = []

    async def main() -> None:
        async with p2premap.aio.connect() as cluster:
            assert await cluster.run_vertex("degrees", graph) == {1: (0, 1), 2: (1, 0)}
            scope = trio.CancelScope()

            async def endless() -> None:
                with scope:
                    await cluster.run_vertex(EXAMPLES / "rank_pages.py", graph, supersteps_max=10**9)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(endless)
                await trio.to_thread.run_sync(eventually, partial(_runs, cluster.blocking))
                scope.cancel()
            assert scope.cancelled_caught
            jobs.extend(f"{view.phase.value} {view.error}" for view in vertex_jobs(cluster.blocking))

    trio.run(main)
    assert any(job.startswith("cancelled") for job in jobs), jobs


def _runs(cluster: Cluster) -> bool:
    return any(view.phase is Phase.RUNNING and view.stages for view in vertex_jobs(cluster))


def vertex_jobs(cluster: Cluster) -> list[JobView]:
    with cluster.connection() as line:
        views = line.ask(lambda n: ListJobs(request=n), Jobs).views
    return [view for view in views if view.kind == "vertex"]


def test_a_class_of_this_program_over_networkx(cluster: Cluster) -> None:
    networkx = pytest.importorskip("networkx")
    graph = networkx.path_graph(6, create_using=networkx.DiGraph)
    graph.add_node(9)
    assert cluster.run_vertex(Longest, graph, least=2) == {0: 2, 1: 2, 2: 2, 3: 3, 4: 4, 5: 5, 9: 9}


def test_weights_and_names_of_networkx(cluster: Cluster) -> None:
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph()
    graph.add_edge("Ulm", "Augsburg", km=79.5)
    graph.add_edge("Augsburg", "Munich", km=62.0)
    graph.add_node("Rome")
    found = cluster.run_vertex("sssp", graph, source="Munich", weights="km")
    assert found == {"Ulm": 141.5, "Augsburg": 62.0, "Munich": 0.0, "Rome": float("inf")}
    with pytest.raises(JobRejected, match="types str, tuple: relabel them"):
        cluster.run_vertex("degrees", networkx.Graph([("a", (1, 2))]))


def test_a_matrix_of_scipy(cluster: Cluster) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.csr_matrix(([1.0, 1.0, 5.0], ([0, 1, 3], [1, 0, 0])), shape=(5, 5))
    assert cluster.run_vertex("bfs", matrix, source=3)[1] == 2
    assert cluster.run_vertex("degrees", matrix)[4] == (0, 0)
    with pytest.raises(JobRejected, match="2 rows and 3 columns is no graph"):
        cluster.run_vertex("degrees", sparse.csr_matrix((2, 3)))


def test_edges_in_a_list(cluster: Cluster) -> None:
    assert cluster.run_vertex("bfs", [("ada", "bob"), ("bob", "eve")], source="ada") == {"ada": 0, "bob": 1, "eve": 2}
    numpy = pytest.importorskip("numpy")
    found = cluster.run_vertex("degrees", numpy.array([[1, 2], [1, 3]]))
    assert found == {1: (0, 2), 2: (1, 0), 3: (1, 0)}
    weighed = numpy.array([[0, 1, 2.5], [1, 2, 0.5]])
    assert cluster.run_vertex("sssp", weighed, weights=True, source=0) == {0: 0.0, 1: 2.5, 2: 3.0}
    for edges, options, said in (
        ([(1, 2), (3, 4, 5)], {}, r"\(3, 4, 5\) is no edge: give \(source, target\); with weights=True"),
        ([(1, 2)], {"weights": True}, r"\(1, 2\) is no edge: give \(source, target, weight\)"),
        ([(1, "x")], {}, "types int, str: make them integers or text"),
        ([(1, 2, "far")], {"weights": True}, "'weight' of an edge is no number"),
        ([(1, 1 << 64)], {}, "do not all fit into 64 bits"),
    ):
        with pytest.raises(JobRejected, match=said):
            cluster.run_vertex("degrees", edges, **options)


def test_what_is_wrong_is_told(cluster: Cluster, tmp_path: Path) -> None:
    graph = tmp_path / "graph.txt"
    graph.write_text("1 2\nx\n")
    with pytest.raises(JobFailed, match=r"graph.txt, line 2: 'x' has 1 field"):
        cluster.run_vertex("degrees", graph)
    with pytest.raises(JobRejected, match="pagerang is neither a job file nor one of pagerank"):
        cluster.run_vertex("pagerang", graph)
    with pytest.raises(JobRejected, match="degrees has no option 'dampin'"):
        cluster.run_vertex("degrees", graph, dampin=1)
    with pytest.raises(JobRejected, match="bfs has no source: say at which vertex it begins"):
        cluster.run_vertex("bfs", graph)
    with pytest.raises(JobRejected, match="Longest has no option 'most'"):
        cluster.run_vertex(Longest, graph, most=1)
    with pytest.raises(JobRejected, match="dict is no input of a vertex job"):
        cluster.run_vertex("degrees", {1: 2})
    with pytest.raises(JobRejected, match="is no vertex program"):
        cluster.run_vertex(dict, graph)  # type: ignore[arg-type]
