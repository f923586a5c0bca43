"""The shipped algorithms: equal to other people's, whatever the number of partitions and wherever they lie."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping

import networkx
import numpy as np
import pytest

from p2premap.vertex.barrier import VertexError
from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex.algorithms import (
    BFS,
    LCC,
    SSSP,
    Components,
    Degrees,
    KCore,
    LabelPropagation,
    PageRank,
    Triangles,
)
from p2premap.worker.vertex.algorithms.paths import NEVER
from p2premap.worker.vertex.kernels import matrices
from p2premap.worker.vertex.owners import key_of
from tests.vertex.graphs import Graph, Id, random_graph, run, unique

FLORENCE = Graph([(a, b) for a, b in networkx.florentine_families_graph().edges], undirected=True)
KARATE = Graph(list(networkx.karate_club_graph().edges), undirected=True)
HUB = Graph([(vertex, 0) for vertex in range(1, 3000)] + [(0, vertex) for vertex in range(1, 3000, 2)])
PATH = Graph([(vertex, vertex + 1) for vertex in range(200)])
GRAPHS = {
    "random": random_graph(1, 300, 1500),
    "sparse": random_graph(2, 400, 350),
    "undirected": random_graph(3, 200, 800, undirected=True),
    "families": FLORENCE,
    "karate": KARATE,
    "hub": HUB,
}

CASES = [
    *((name, partitions) for name in ("random", "undirected") for partitions in (1, 2, 3, 7)),
    ("sparse", 3),
    ("families", 2),
    ("karate", 7),
    ("hub", 3),
]

on_graphs = pytest.mark.parametrize(
    ("graph", "partitions"), [(GRAPHS[n], p) for n, p in CASES], ids=[f"{n}-{p}" for n, p in CASES]
)
in_one_and_in_three = pytest.mark.parametrize("partitions", [1, 3])
in_three = pytest.mark.parametrize("partitions", [3])


def in_networkx(graph: Graph, *, simple: bool = False) -> networkx.Graph:
    """The same there, with repeated edges."""
    result = networkx.MultiGraph() if graph.undirected else networkx.MultiDiGraph()
    result.add_nodes_from(graph.ids)
    for source, target, *weight in graph.edges:
        result.add_edge(source, target, weight=weight[0] if weight else 1.0)
    if simple:
        result = networkx.Graph(result)
        result.remove_edges_from(list(networkx.selfloop_edges(result)))
    return result


def arcs_of(graph: Graph) -> list[tuple[Id, Id]]:
    """The edges as they are gone along."""
    back = [(target, source) for source, target, *_ in graph.edges if source != target] if graph.undirected else []
    return [(source, target) for source, target, *_ in graph.edges] + back


def ranks(graph: Graph, iterations: int, damping: float = 0.85) -> dict[Id, float]:
    """PageRank as LDBC Graphalytics defines it, on a dense matrix."""
    place = {vertex: number for number, vertex in enumerate(graph.ids)}
    matrix = np.zeros((len(place), len(place)))
    for source, target in arcs_of(graph):
        matrix[place[target], place[source]] += 1
    out = matrix.sum(axis=0)
    rank = np.full(len(place), 1 / len(place))
    for _ in range(iterations):
        share = np.divide(rank, out, out=np.zeros_like(rank), where=out > 0)
        rank = (1 - damping + damping * rank[out == 0].sum()) / len(place) + damping * (matrix @ share)
    return dict(zip(graph.ids, rank.tolist(), strict=True))


@on_graphs
@pytest.mark.parametrize("with_scipy", [True, False])
def test_pagerank(graph: Graph, partitions: int, with_scipy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_scipy:
        monkeypatch.setattr("p2premap.worker.vertex.kernels.matrices", lambda: None)
    assert not with_scipy or matrices() is not None
    ran = run(PageRank, graph, partitions=partitions, seats=2, options={"iterations": 20})
    assert ran.rows == pytest.approx(ranks(graph, 20), rel=1e-9)
    assert sum(ran.rows.values()) == pytest.approx(1)
    assert ran.supersteps == 21


@in_one_and_in_three
def test_pagerank_ends_when_ranks_change_little(partitions: int) -> None:
    graph = GRAPHS["random"]
    ran = run(PageRank, graph, partitions=partitions, options={"tolerance": 1e-13})
    theirs = networkx.pagerank(in_networkx(graph), tol=1e-16, max_iter=1000)
    assert ran.rows == pytest.approx(theirs, rel=1e-9)
    assert "found after" in ran.why
    assert 20 < ran.supersteps < 101
    assert run(PageRank, graph, partitions=partitions).supersteps < ran.supersteps, "1e-9 is reached earlier"


@on_graphs
@pytest.mark.parametrize("method", ["label", "jump", "auto"])
def test_components(graph: Graph, partitions: int, method: str) -> None:
    ran = run(Components, graph, partitions=partitions, seats=2, options={"method": method})
    parts = networkx.connected_components(networkx.Graph(in_networkx(graph)))
    least = [(min(part, key=key_of), part) for part in parts]
    assert ran.rows == {vertex: label for label, part in least for vertex in part}


@in_one_and_in_three
def test_components_of_a_long_path(partitions: int) -> None:
    labels = run(Components, PATH, partitions=partitions, options={"method": "label"})
    jumps = run(Components, PATH, partitions=partitions, options={"method": "jump"})
    assert labels.rows == jumps.rows == dict.fromkeys(range(201), 0)
    assert labels.supersteps > 200
    assert jumps.supersteps < 40


@on_graphs
def test_bfs(graph: Graph, partitions: int) -> None:
    source = graph.edges[0][0]
    ran = run(BFS, graph, partitions=partitions, seats=2, options={"source": source})
    theirs = networkx.single_source_shortest_path_length(in_networkx(graph), source)
    assert ran.rows == {vertex: theirs.get(vertex, NEVER) for vertex in graph.ids}


@pytest.mark.parametrize("partitions", [1, 2, 3, 7])
@pytest.mark.parametrize("undirected", [False, True])
def test_sssp(partitions: int, undirected: bool) -> None:
    graph = random_graph(5, 300, 1200, weights=True, undirected=undirected)
    source = graph.edges[0][0]
    ran = run(SSSP, graph, partitions=partitions, seats=2, options={"source": source})
    theirs = networkx.single_source_dijkstra_path_length(in_networkx(graph), source)
    assert ran.rows == pytest.approx({vertex: theirs.get(vertex, np.inf) for vertex in graph.ids}, rel=1e-12)


@in_three
def test_sssp_of_edges_without_weights(partitions: int) -> None:
    ran = run(SSSP, PATH, partitions=partitions, options={"source": "7"})
    assert ran.rows == {vertex: vertex - 7.0 if vertex >= 7 else np.inf for vertex in PATH.ids}


def propagated(graph: Graph, iterations: int) -> Mapping[Id, Id]:
    """Labels as LDBC Graphalytics defines them; of ids that are text the one with the smallest key is the smallest."""
    neighbours = defaultdict(list)
    for source, target in arcs_of(graph):
        neighbours[target].append(source)
        if not graph.undirected and source != target:
            neighbours[source].append(target)
    labels = {vertex: vertex for vertex in graph.ids}
    for _ in range(iterations):
        counts = {vertex: Counter(labels[other] for other in neighbours[vertex]) for vertex in graph.ids}
        labels = {
            vertex: min(count, key=lambda label: (-count[label], key_of(label))) if count else labels[vertex]
            for vertex, count in counts.items()
        }
    return labels


@on_graphs
@pytest.mark.parametrize("iterations", [1, 10])
def test_label_propagation(graph: Graph, partitions: int, iterations: int) -> None:
    ran = run(LabelPropagation, graph, partitions=partitions, seats=2, options={"iterations": iterations})
    assert ran.rows == propagated(graph, iterations)


def clustering(graph: Graph) -> dict[Id, float]:
    """The local clustering coefficient as LDBC Graphalytics defines it."""
    out, neighbours = defaultdict(set), defaultdict(set)
    for source, target in arcs_of(graph):
        if source != target:
            out[source].add(target)
            neighbours[source].add(target)
            neighbours[target].add(source)
    result = {}
    for vertex in graph.ids:
        others = neighbours[vertex]
        closed = sum(len(out[other] & others) for other in others)
        result[vertex] = closed / (len(others) * (len(others) - 1)) if closed else 0.0
    return result


@on_graphs
def test_lcc(graph: Graph, partitions: int) -> None:
    ran = run(LCC, graph, partitions=partitions, seats=2)
    assert ran.rows == pytest.approx(clustering(graph), rel=1e-9, abs=0)
    if graph.undirected:
        assert ran.rows == pytest.approx(networkx.clustering(in_networkx(graph, simple=True)), rel=1e-9, abs=1e-12)


@on_graphs
def test_triangles(graph: Graph, partitions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2premap.worker.vertex.algorithms.triangles.PATHS_MAX", 50)
    ran = run(Triangles, graph, partitions=partitions, seats=2)
    assert ran.rows == networkx.triangles(in_networkx(graph, simple=True))


@on_graphs
def test_core_numbers(graph: Graph, partitions: int) -> None:
    ran = run(KCore, graph, partitions=partitions, seats=2)
    assert ran.rows == networkx.core_number(in_networkx(graph, simple=True))


@on_graphs
def test_degrees(graph: Graph, partitions: int) -> None:
    ran = run(Degrees, graph, partitions=partitions, seats=2)
    arcs = arcs_of(graph)
    into, out = Counter(target for _, target in arcs), Counter(source for source, _ in arcs)
    assert ran.rows == {vertex: (into[vertex], out[vertex]) for vertex in graph.ids}


ALL: Mapping[type[ArrayProgram], Mapping[str, object]] = {
    PageRank: {"iterations": 10},
    Components: {"method": "jump"},
    BFS: {"source": 3},
    SSSP: {"source": 3},
    LabelPropagation: {},
    LCC: {},
    Triangles: {},
    KCore: {},
    Degrees: {},
}
every_program = pytest.mark.parametrize("program", ALL, ids=lambda program: program.__name__)


@pytest.mark.parametrize("partitions", [2, 7])
@every_program
def test_bits_are_the_same_wherever_partitions_lie_and_whatever_is_lost(
    program: type[ArrayProgram], partitions: int
) -> None:
    graph = random_graph(9, 120, 700, weights=True)
    once = run(program, graph, partitions=partitions, options=ALL[program])
    spread = run(program, graph, partitions=partitions, seats=3, options=ALL[program])
    again = run(program, graph, partitions=partitions, restart_every=1, options=ALL[program])
    assert once.digest == spread.digest == again.digest
    assert once.rows == spread.rows == again.rows
    assert once.supersteps == spread.supersteps == again.supersteps


@in_one_and_in_three
@every_program
@pytest.mark.parametrize("graph", [Graph([]), Graph([], (1, 2, 3)), Graph([(3, 3), (3, 3)], (1, 2, 3))])
def test_graphs_with_next_to_nothing_in_them(program: type[ArrayProgram], graph: Graph, partitions: int) -> None:
    options = ALL[program]
    ran = run(program, graph, partitions=partitions, options=options)
    assert list(ran.rows) == sorted(ran.rows, key=list(ran.rows).index)
    assert set(ran.rows) == set(graph.ids)


@in_three
@every_program
def test_ids_that_are_text(program: type[ArrayProgram], partitions: int) -> None:
    """Ids beyond 2^63 are text as well."""
    numbers = random_graph(4, 60, 240)
    named = Graph([(f"{2**64 + s}", f"{2**64 + t}") for s, t in numbers.edges])
    options = dict(ALL[program])
    if "source" in options:
        options["source"] = named.edges[0][0]
    ran = run(program, named, partitions=partitions, seats=2, options=options)
    assert set(ran.rows) == set(named.ids)
    assert run(program, named, partitions=partitions, restart_every=1, options=options).digest == ran.digest
    if program in (Components, LabelPropagation):
        assert set(ran.rows.values()) <= set(named.ids)
    if program in (PageRank, LCC, KCore, Triangles, Degrees):
        back = {int(name) - 2**64: value for name, value in ran.rows.items()}
        plain = run(program, Graph(numbers.edges), partitions=1, options=options)
        assert {key: pytest.approx(value) for key, value in plain.rows.items()} == back


@in_three
def test_sources_that_are_not_there(partitions: int) -> None:
    for program, source in itertools.product((BFS, SSSP), (99, "nobody")):
        with pytest.raises(VertexError, match=f"The source, {source!r}, is no vertex of this graph"):
            run(program, KARATE, partitions=partitions, options={"source": source})


@in_one_and_in_three
@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_sssp_refuses_weights_that_make_no_sense(partitions: int, weight: float) -> None:
    graph = Graph([(1, 2, 1.0), (2, 3, weight)])
    with pytest.raises(VertexError, match=f"An edge of vertex 2 has the weight {weight}; shortest paths need"):
        run(SSSP, graph, partitions=partitions, options={"source": 1})


@in_one_and_in_three
def test_edges_that_lead_nowhere_are_counted(partitions: int) -> None:
    graph = Graph([(1, 2), (2, 1), (2, 9), (2, 9), (1, 8)])
    ran = run(Degrees, graph, partitions=partitions, ids=[1, 2])
    assert ran.rows == {1: (1, 2), 2: (1, 3)}
    assert ran.dropped == 3
    with pytest.raises(VertexError, match="went to vertices that do not exist"):
        run(Degrees, graph, partitions=partitions, ids=[1, 2], unknown="error")


@in_three
@pytest.mark.parametrize(
    ("program", "options", "sentence"),
    [
        (PageRank, {"damping": 1.5}, "damping is a probability"),
        (PageRank, {"iterations": -1}, "must not be negative"),
        (LabelPropagation, {"iterations": -1}, "must not be negative"),
        (Components, {"method": "magic"}, "method is one of"),
    ],
)
def test_options_that_make_no_sense(
    partitions: int, program: type[ArrayProgram], options: Mapping[str, object], sentence: str
) -> None:
    with pytest.raises(VertexError, match=sentence):
        run(program, KARATE, partitions=partitions, options=options)


@in_three
def test_unique_edges_are_what_simple_graphs_have(partitions: int) -> None:
    """Repeating all edges changes neither triangles nor cores."""
    graph = GRAPHS["random"]
    doubled = Graph([*graph.edges, *unique(graph)], graph.vertices)
    for program in (Triangles, LCC, KCore):
        assert run(program, doubled, partitions=partitions).rows == run(program, graph, partitions=partitions).rows
