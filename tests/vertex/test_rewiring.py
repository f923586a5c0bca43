"""The array form changes its graph: edges and vertices come and go between supersteps."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import ClassVar

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2premap.vertex.barrier import VertexError
from p2premap.vertex.loading import BOTH, OUT, Reading
from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex import graphfile
from p2premap.worker.vertex.exchange import unpack
from p2premap.worker.vertex.owners import owner
from p2premap.worker.vertex.part import Inbox, Part
from p2premap.worker.vertex.rewiring import ADD_EDGES, REMOVE_EDGES, Rewiring
from tests.vertex.direct import job
from tests.vertex.graphs import Graph, random_graph, run

# --- against a plain model ----------------------------------------------------------------------------------------

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8)
IDS = st.lists(st.integers(0, 7), max_size=4)


def blob(rows: dict[int, list[tuple[int, int, float]]], *, marked: bool) -> graphfile.Graph:
    """A graph with these (target, forward, weight) of each vertex."""
    edges = [edge for vertex in sorted(rows) for edge in rows[vertex]]
    counts = [len(rows[vertex]) for vertex in sorted(rows)]
    arrays = {
        "keys": np.array(sorted(rows), np.int64),
        "indptr": np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        "targets": np.array([edge[0] for edge in edges], np.int64),
        "weights": np.array([edge[2] for edge in edges], np.float64),
    }
    if marked:
        arrays["forward"] = np.array([edge[1] for edge in edges], np.uint8)
    return graphfile.Graph({}, arrays)


def rows_of(graph: graphfile.Graph) -> dict[int, list[tuple[int, int, float]]]:
    """The other way round."""
    forward = np.ones(len(graph.targets), int) if graph.forward is None else graph.forward
    assert graph.weights is not None
    edges = list(zip(graph.targets.tolist(), forward.tolist(), graph.weights.tolist(), strict=True))
    bounds = graph.indptr.tolist()
    return {key: edges[bounds[i] : bounds[i + 1]] for i, key in enumerate(graph.keys.tolist())}


def told(wanted: Rewiring) -> None:
    """Its mail comes to itself: there is one partition."""
    for kind, arrays in unpack(memoryview(b"".join(wanted.mail(0)))):
        wanted.take(kind, arrays)


@settings(max_examples=60, deadline=None)
@given(edges=PAIRS, cut=PAIRS, gone=IDS, new=IDS, linked=PAIRS, both=st.booleans())
def test_changes_are_made_in_pregels_order(
    edges: list[tuple[int, int]],
    cut: list[tuple[int, int]],
    gone: list[int],
    new: list[int],
    linked: list[tuple[int, int]],
    both: bool,
) -> None:
    rows: dict[int, list[tuple[int, int, float]]] = {vertex: [] for vertex in range(4)}

    def ends(pairs: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
        turned = [(target, source, 0) for source, target in pairs if source != target and both]
        return [(source, target, 1) for source, target in pairs] + turned

    for number, (source, target, forward) in enumerate(ends(edges)):
        if source in rows:
            rows[source].append((target, forward, float(number)))
    wanted = Rewiring(1, None, Reading(view=BOTH if both else OUT))
    wanted.begin()
    wanted.remove_vertices(np.array(gone, np.int64))
    wanted.add_vertices(np.array(new, np.int64))
    for kind, pairs in ((ADD_EDGES, linked), (REMOVE_EDGES, cut)):
        sources, targets = (np.array([pair[end] for pair in pairs], np.int64) for end in (0, 1))
        wanted.change_edges(kind, sources, targets, np.full(len(pairs), 0.5) if kind == ADD_EDGES else None)
    told(wanted)
    found = wanted.rewired(blob(rows, marked=both))

    old = list(rows)
    for source, target, forward in ends(cut):
        alike = [edge for edge in rows.get(source, ()) if edge[:2] == (target, forward)]
        if alike:
            rows[source].remove(alike[0])
    for vertex in gone:
        rows.pop(vertex, None)
    stayed = list(rows)
    for vertex in new:
        rows.setdefault(vertex, [])
    for source, target, forward in ends(linked):
        if source in rows:
            rows[source].append((target, forward, 0.5))
    assert (found is None) == (not (cut or gone or new or linked))
    if found is not None:
        assert rows_of(found.graph) == rows
        before = [old.index(vertex) if vertex in stayed else -1 for vertex in sorted(rows)]
        assert (found.before is None) == (before == list(range(len(old))))
        assert found.before is None or found.before.tolist() == before


# --- programs -----------------------------------------------------------------------------------------------------


class Prune(ArrayProgram):
    """Who has fewer than `k` neighbours goes, until nobody has."""

    dtype = "int64"
    view = "both"
    aggregators: ClassVar = {"gone": "sum"}
    fresh: ClassVar = {"began": 0}
    k = 3

    def start(self, part: Part) -> None:
        part.state["began"] = part.keys.copy()
        part.state["steps"] = np.zeros(1, np.int64)  # not one a vertex, though a partition may have one vertex

    def compute(self, part: Part, inbox: Inbox) -> bool:
        part.state["steps"] += 1
        assert len(part.state["steps"]) == 1
        few = part.degrees < self.k
        along = np.repeat(few, part.degrees)
        part.remove_edges(np.repeat(part.keys, part.degrees)[along], part.edges.targets[along])
        part.remove_vertices(part.keys[few])
        part.aggregate("gone", int(few.sum()))
        return not few.any()

    def result(self, part: Part) -> np.ndarray:
        return part.state["began"]


@pytest.mark.parametrize(("partitions", "restart_every"), [(1, 0), (2, 1), (3, 0), (7, 2)])
def test_vertices_and_edges_go(partitions: int, restart_every: int) -> None:
    plain = nx.gnm_random_graph(60, 110, seed=4)
    graph = Graph(list(plain.edges), tuple(plain.nodes), undirected=True)
    ran = run(Prune, graph, partitions=partitions, seats=2, restart_every=restart_every)
    core = set(nx.k_core(plain, 3).nodes)
    assert 0 < len(core) < 60
    assert ran.rows == {vertex: vertex for vertex in core}
    assert ran.supersteps > 3


class Grow(ArrayProgram):
    """In superstep s vertex s makes the next one, an edge to it, and sends it mail."""

    dtype = "int64"
    fresh: ClassVar = {"began": -1, "got": 0}
    last = 5
    mail = True

    def start(self, part: Part) -> None:
        part.state["began"], part.state["got"] = np.zeros((2, part.n), np.int64)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        part.state["got"] += inbox.values
        part.state["began"][part.state["began"] < 0] = part.superstep
        ends = part.keys[part.keys == part.superstep]
        if part.superstep < self.last:
            part.add_vertices(ends + 1)
            part.add_edges(ends, ends + 1)
            if self.mail:
                part.send(ends + 1, 10 + ends)
                part.send_all(np.full(part.n, 100))  # along the edges that there are
        return True

    def result(self, part: Part) -> tuple[np.ndarray, ...]:
        return part.state["began"], part.state["got"], part.degrees


@pytest.mark.parametrize(("partitions", "restart_every"), [(1, 0), (2, 1), (5, 0), (3, 2)])
def test_vertices_come_and_are_active(partitions: int, restart_every: int) -> None:
    one = Graph([], (0,))
    ran = run(Grow, one, partitions=partitions, seats=2, restart_every=restart_every)
    # vertex v has been there since superstep v; who was there before sends along its edge until superstep 4
    assert ran.rows == {v: (v, (9 + v if v else 0) + 100 * max(5 - v, 0) * (v > 0), int(v < 5)) for v in range(6)}
    quiet = run(Grow, one, partitions=partitions, seats=2, restart_every=restart_every, options={"mail": False})
    assert quiet.rows == {v: (v, 0, int(v < 5)) for v in range(6)}


class Turn(ArrayProgram):
    """Without a combiner: who has sent in superstep 1 is told before the edges are others, and then by the others."""

    combine = ""
    dtype = "int64"

    def start(self, part: Part) -> None:
        part.state["sums"] = np.zeros(part.n, np.int64)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        starts, counts, values = inbox.lists()
        for place in range(part.n):
            part.state["sums"][place] += (
                values[starts[place] : starts[place] + counts[place]].sum() * 10**part.superstep
            )
        if part.superstep < 2:
            part.send_all(part.keys + 1)
        if part.superstep == 0:
            part.remove_edges(part.keys, (part.keys + 1) % 6)
            part.add_edges(part.keys, (part.keys + 2) % 6)
        return part.superstep > 1

    def result(self, part: Part) -> np.ndarray:
        return part.state["sums"]


@pytest.mark.parametrize("restart_every", [0, 1])
@pytest.mark.parametrize("partitions", [1, 3])
def test_lists_are_of_the_edges_along_which_they_came(partitions: int, restart_every: int) -> None:
    ring = Graph([(vertex, (vertex + 1) % 6) for vertex in range(6)])
    ran = run(Turn, ring, partitions=partitions, seats=2, restart_every=restart_every)
    assert ran.rows == {vertex: 10 * ((vertex - 1) % 6 + 1) + 100 * ((vertex - 2) % 6 + 1) for vertex in range(6)}


class Meddle(ArrayProgram):
    """Without a combiner: all send in supersteps 0 and 1, and in the first one partition changes the graph."""

    combine = ""
    dtype = "int64"
    fresh: ClassVar = {"sums": 0}
    cut: ClassVar[list[tuple[int, int]]] = []
    linked: ClassVar[list[tuple[int, int]]] = []
    gone: ClassVar[list[int]] = []

    def start(self, part: Part) -> None:
        part.state["sums"] = np.zeros(part.n, np.int64)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        starts, counts, values = inbox.lists()
        assert all(array.flags.writeable for array in (starts, counts, values))
        for place in range(part.n):
            came = values[starts[place] : starts[place] + counts[place]]
            part.state["sums"][place] += came.sum() * 10 ** (4 * part.superstep)
        if part.superstep < 2:
            part.send_all(part.keys + 1)
        if part.superstep == 0 and part.number == 0:
            part.remove_edges(*np.array(self.cut, np.int64).reshape(-1, 2).T)
            part.add_edges(*np.array(self.linked, np.int64).reshape(-1, 2).T)
            part.remove_vertices(np.array(self.gone, np.int64))
        return part.superstep > 1

    def result(self, part: Part) -> np.ndarray:
        return part.state["sums"]


def heard(graph: Graph, program: Meddle) -> dict[int, int]:
    """What its vertices come to, edge by edge."""
    sums = dict.fromkeys(graph.ids, 0)
    for superstep in (1, 2):
        edges = [edge[:2] for edge in graph.edges]
        if superstep == 2:
            for edge in program.cut:
                edges.remove(edge)
            edges += program.linked
        if program.view == "both":
            edges += [(target, source) for source, target in edges if source != target]
        for source, target in edges:
            if superstep == 1 or source not in program.gone:
                sums[target] += (source + 1) * 10 ** (4 * superstep)
    return {vertex: total for vertex, total in sums.items() if vertex not in program.gone}


@pytest.mark.parametrize("restart_every", [0, 1])
@pytest.mark.parametrize("partitions", [2, 3])
@pytest.mark.parametrize(
    ("view", "what"), [("directed", "cut"), ("directed", "linked"), ("both", "cut"), ("both", "gone")]
)
def test_who_is_told_of_no_change_has_the_mail_that_came_before_it(
    view: str, what: str, partitions: int, restart_every: int
) -> None:
    graph = random_graph(3, 30, 120)
    here = [vertex for vertex in graph.ids if owner(np.array([vertex]), partitions)[0] == 0]
    program = Meddle()
    program.view = view
    if what == "cut":
        program.cut = [edge for edge in dict.fromkeys(graph.edges) if edge[0] in here][::2]
    if what == "linked":
        program.linked = [(vertex, other) for vertex in here[::2] for other in graph.ids[::5]]
    if what == "gone":
        program.gone = here[::2]
    ran = run(program, graph, partitions=partitions, seats=2, restart_every=restart_every)
    assert ran.rows == heard(graph, program)


@pytest.mark.parametrize("partitions", [1, 3])
def test_an_edge_goes_by_the_way_that_it_leads(partitions: int) -> None:
    program = Meddle()
    program.view = "both"
    program.cut = [(0, 1), (1, 0), (2, 1)]  # of an edge either way, and of one that leads the other way
    ran = run(program, Graph([(0, 1), (1, 2)]), partitions=partitions)
    first, second = 10**4, 10**8
    assert ran.rows == {0: 2 * first, 1: (1 + 3) * first + 3 * second, 2: 2 * first + 2 * second}


class Rows(Meddle):
    """Sends lists as well."""

    def compute(self, part: Part, inbox: Inbox) -> bool:
        if part.superstep == 0:
            part.send_rows(np.arange(part.n + 1), part.keys)
        return super().compute(part, inbox)


def test_lists_of_rows_do_not_come_along_edges_that_others_change() -> None:
    ids = np.arange(20)
    owners = owner(ids, 2)
    first, second = ids[owners == 0].tolist()[:2]
    there = int(ids[owners == 1][0])
    program = Rows()
    program.cut = [(first, there)]
    with pytest.raises(VertexError, match="change the graph in another superstep"):
        run(program, Graph([(first, there), (second, there)]), partitions=2)


class Leave(ArrayProgram):
    """In superstep 0 all write along their edges, and to vertex 0 by name, which goes, and perhaps comes back."""

    dtype = "int64"
    fresh: ClassVar = {"got": 100}
    back = False
    letters = False

    def start(self, part: Part) -> None:
        part.state["got"] = np.zeros(part.n, np.int64)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        if self.combine:
            part.state["got"] += inbox.values
        else:
            starts, counts, values = inbox.lists()
            for place in range(part.n):
                part.state["got"][place] += values[starts[place] : starts[place] + counts[place]].sum()
            for slots, values in inbox.letters:
                np.add.at(part.state["got"], slots, values)
        if part.superstep == 0:
            part.send_all(part.keys)
            if self.letters:
                part.send(np.zeros(part.n, np.int64), part.keys)
        if part.superstep == 0 and part.find(5) >= 0:
            part.remove_vertices([0])
            part.add_vertices([0] if self.back else [])
        return True

    def result(self, part: Part) -> np.ndarray:
        return part.state["got"]


STAR = Graph([*((vertex, 0) for vertex in range(1, 6)), (1, 2), (0, 3)])


@pytest.mark.parametrize("restart_every", [0, 1])
@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("combine", ["sum", ""])
def test_mail_along_edges_to_a_vertex_that_goes_is_counted(combine: str, partitions: int, restart_every: int) -> None:
    program = Leave()
    program.combine = combine
    ran = run(program, STAR, partitions=partitions, seats=2, restart_every=restart_every)
    assert ran.rows == {1: 0, 2: 1, 3: 0, 4: 0, 5: 0}
    assert ran.dropped == (1 if combine else 5)
    with pytest.raises(VertexError, match=rf"In superstep 0, {ran.dropped} messages went to vertices that do not"):
        run(program, STAR, partitions=partitions, unknown="error")


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("combine", ["sum", ""])
def test_a_vertex_that_goes_and_comes_back_has_its_mail(combine: str, partitions: int) -> None:
    program = Leave()
    program.combine = combine
    options = {"back": True, "letters": True}
    ran = run(program, STAR, partitions=partitions, seats=2, options=options, unknown="error")
    assert ran.rows == {0: 100 + 15 + 15, 1: 0, 2: 1, 3: 0, 4: 0, 5: 0}


TEXT = """
    import numpy as np
    import p2premap

    class Marry(p2premap.ArrayProgram):
        dtype = "int64"
        fresh = {"heard": 0}

        def start(self, part):
            part.state["heard"] = np.zeros(part.n, np.int64)

        def compute(self, part, inbox):
            part.state["heard"] += inbox.values
            if part.superstep == 0 and part.find("ada") >= 0:
                part.add_vertices(["Zoë", "bob"])
                part.remove_vertices([part.key("eve")])
                part.add_edges([part.key("ada")], [part.key("Zoë")])
            if part.superstep == 1:
                part.send_all(np.ones(part.n, np.int64))
            return part.superstep > 0

        def result(self, part):
            return part.state["heard"]
"""


@pytest.mark.parametrize("every", [1, 100])
def test_vertices_that_are_text_from_files_to_parts(tmp_path: Path, every: int) -> None:
    path = tmp_path / "job.py"
    path.write_text(dedent(TEXT))
    made = job(tmp_path, {"a.txt": b"ada bob\nbob eve\neve ada\n"}, path, checkpoint_every=every)
    # processes keep their partitions from one epoch to the next; the output is made of what they have
    assert made.run() == {"ada": "0", "bob": "1", "Zoë": "1"}
    assert (made.told.vertices, made.told.edges, made.told.dropped) == (3, 3, 1)


class Wrong(Grow):
    """Changes what it must not."""

    fresh: ClassVar = {}
    how = "vertices"

    def compute(self, part: Part, inbox: Inbox) -> bool:
        if self.how == "edges":
            part.add_edges([1, 2], [3])
        part.add_vertices([7])
        return True


@pytest.mark.parametrize(
    ("how", "fresh", "sentence"),
    [
        ("vertices", {}, "say in its attribute `fresh` what a new vertex has"),
        (
            "vertices",
            {"ranks": 0},
            r"'ranks'\] must have one entry for each of 3 vertices, and is not there",
        ),
        ("edges", {}, "as many sources as targets"),
    ],
)
def test_changes_that_make_no_sense(
    how: str, fresh: dict[str, int], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wrong, "fresh", fresh)
    with pytest.raises((VertexError, ValueError), match=sentence):
        run(Wrong, Graph([(0, 1), (1, 2)]), partitions=1, options={"how": how})
