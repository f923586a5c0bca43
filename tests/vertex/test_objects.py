"""The per-vertex form: what user code can do, and that nothing depends on how partitions lie on processes."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from p2premap.vertex.barrier import Globals, VertexError
from p2premap.vertex.program import STOP, Aggregator, VertexProgram
from tests.vertex.localjob import LocalJob, graph, pregel, run, settings

RING = [(n, (n + 1) % 10) for n in range(10)]
LAYOUTS = [[[0]], [[0, 1, 2]], [[0], [1, 2]], [[2], [0, 1]], [[0], [1], [2]]]


class Smallest(VertexProgram):
    """Each vertex gets the smallest id that reaches it."""

    combiner = "min"

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        least = min([vertex.value, *messages])
        if ctx.superstep == 0 or least < vertex.value:
            vertex.value = least
            ctx.send.all(least)
        ctx.halt()


def test_mail_wakes_and_a_job_ends_when_all_have_halted() -> None:
    assert run(Smallest(), graph(RING, lambda id: id)) == dict.fromkeys(range(10), 0)


@pytest.mark.parametrize("ids", [lambda n: f"v{n}", lambda n: n << 70, lambda n: -n, lambda n: (n, "x")])
def test_ids_may_be_strings_and_integers_of_any_size(ids: Any) -> None:
    found = run(Smallest(), graph([(ids(a), ids(b)) for a, b in RING], lambda id: id))
    assert found == dict.fromkeys(map(ids, range(10)), min(map(ids, range(10))))


class Letters(VertexProgram):
    """Messages of all kinds, sent in all ways, at random; a vertex keeps what came last, in order."""

    aggregators: ClassVar = {"sent": "sum", "most": "max"}

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        vertex.value = [*vertex.value, list(messages)][-3:]
        draw = ctx.rng
        if ctx.superstep < 6:
            for _ in range(draw.randrange(3)):
                ctx.send(draw.randrange(12), draw.choice([1, 2.5, "three", (4, 5), 6]))
            if draw.random() < 0.5:
                ctx.send([draw.randrange(12) for _ in range(draw.randrange(4))], draw.random())
            if draw.random() < 0.5:
                ctx.send.all(draw.randrange(100))
            ctx.aggregate("sent", draw.random())
            ctx.aggregate("most", vertex.id)
        if draw.random() < 0.5:
            ctx.halt()
        if ctx.superstep > 8:
            ctx.halt()


EDGES = [(n, (n * n + k) % 12) for n in range(12) for k in range(n % 4)] + [(3, 3), (3, 3)]


@pytest.mark.parametrize("every", [1, 2, 0])
def test_processes_restarts_and_moves_change_nothing(every: int) -> None:
    def job(seats: Any, **more: Any) -> Any:
        rows = graph(EDGES, lambda _: [])
        made = LocalJob(Letters(), rows, settings(3, checkpoint_every=every), seats, **more)
        return made.run(), made.ends[-1].carried.globals, made.ends[-1].carried.dropped

    expected = job([[[0, 1, 2]]])
    for layout in LAYOUTS[1:]:
        assert job([layout]) == expected
    assert job([[[0], [1, 2]], [[0, 1, 2]], [[2], [0], [1]], [[0, 2], [1]]]) == expected
    assert job([[[0], [1, 2]]], keeps=False) == expected


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    edges=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=60),
    partitions=st.integers(1, 5),
    combiner=st.sampled_from([None, "sum", "min", "max", max]),
    whole=st.booleans(),
)
def test_it_does_what_the_plain_loop_does(edges: Any, partitions: int, combiner: Any, whole: bool) -> None:
    reduce: Any = {"sum": sum, "min": min, "max": max, max: max, None: sum}[combiner]

    class Spread(VertexProgram):
        def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
            vertex.value += reduce(messages) if messages else 0
            if ctx.superstep < 4 and vertex.value % 3:
                ways = (vertex.value + ctx.superstep) % 3
                if ways == 0:
                    ctx.send.all(vertex.value)
                elif ways == 1:
                    ctx.send(list(vertex.edges), vertex.value)
                else:
                    for to in vertex.edges:
                        ctx.send(to, vertex.value)
            ctx.halt()

    Spread.combiner = combiner
    rows = graph(edges, lambda id: id + 1 if whole else id + 0.5)
    targets = {row[0]: row[2] for row in rows}

    def compute(superstep: int, id: Hashable, value: Any, messages: Any, send: Any) -> tuple[Any, bool]:
        value += reduce(messages) if messages else 0
        if superstep < 4 and value % 3:
            for to in targets[id]:
                send(to, value)
        return value, True

    expected = pregel({row[0]: row[1] for row in rows}, compute)
    found = run(Spread(), rows, partitions=partitions)
    assert found == pytest.approx(expected, rel=1e-12)
    assert [type(found[id]) for id in expected] == [type(value) for value in expected.values()]


def test_integers_that_no_array_holds_are_summed_all_the_same() -> None:
    class Total(VertexProgram):
        combiner = "sum"

        def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
            if ctx.superstep == 0:
                ctx.send(0, (1 << 62) + vertex.id)
                ctx.send(1, 1 << 80)
            vertex.value = sum(messages)
            ctx.halt()

    found = run(Total(), graph(RING))
    assert (found[0], found[1]) == (10 * (1 << 62) + 45, 10 << 80)


def test_nan_goes_where_it_goes() -> None:
    class Spoilt(VertexProgram):
        combiner = "min"

        def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
            if ctx.superstep == 0:
                ctx.send(5, math.nan if vertex.id == 3 else float(vertex.id))
            vertex.value = list(messages)
            ctx.halt()

    (value,) = run(Spoilt(), graph(RING))[5]
    assert math.isnan(value)


# --- aggregators and the master hook ------------------------------------------------------------------------------


class Counting(VertexProgram):
    aggregators: ClassVar = {"sum": "sum", "all": "all", "longest": max, "ever": Aggregator("sum", persistent=True)}

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        vertex.value.append(dict(ctx.aggregates))
        ctx.aggregate("sum", vertex.id)
        ctx.aggregate("all", ctx.superstep < 2)
        ctx.aggregate("longest", "x" * vertex.id)
        ctx.aggregate("ever", 1)

    def master(self, now: Globals) -> Any:
        assert (now.vertices, now.edges, now.active, now.sent) == (4, 3, 4, 0)
        return STOP if now.superstep == 4 else {"step": now.superstep * 10}


@pytest.mark.parametrize("every", [0, 1, 3])
def test_aggregates_are_seen_a_superstep_later_with_what_the_master_says(every: int) -> None:
    job = LocalJob(
        Counting(),
        graph([(0, 1), (1, 2), (2, 3)], lambda _: []),
        settings(3, checkpoint_every=every),
        [[[0], [1, 2]]],
        keeps=False,
    )
    seen = job.run()[3]
    assert seen[0] == {}
    expected = {"sum": 6, "longest": "xxx"}
    assert seen[1] == {**expected, "all": True, "ever": 4, "step": 10}
    assert seen[3] == {**expected, "all": False, "ever": 12, "step": 30}
    assert len(seen) == 4
    assert job.ends[-1].why == "The program found after 4 supersteps that it is done."


def test_an_aggregator_that_nobody_declared_is_named() -> None:
    class Wrong(VertexProgram):
        def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
            ctx.aggregate("nonesuch", 1)

    with pytest.raises(VertexError, match="There is no aggregator 'nonesuch'; the program declares none"):
        run(Wrong(), graph(RING))


def test_a_master_hook_that_differs_from_process_to_process_is_noticed() -> None:
    class Moody(VertexProgram):
        calls = 0

        def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
            pass

        def master(self, now: Globals) -> Any:
            Moody.calls += 1
            return {"calls": Moody.calls}

    with pytest.raises(VertexError, match="master hook has said different things"):
        run(Moody(), graph(RING))


# --- limits and errors --------------------------------------------------------------------------------------------


class Restless(VertexProgram):
    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        if ctx.superstep == 7 and vertex.id == 4:
            raise ValueError("no more")


@pytest.mark.parametrize("seats", LAYOUTS[1:])
def test_what_compute_raises_names_vertex_and_superstep(seats: Any) -> None:
    with pytest.raises(VertexError, match=r"compute of vertex 4 in superstep 7: ValueError: no more") as caught:
        run(Restless(), graph(RING), seats=seats)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_job_that_does_not_end_fails_and_one_that_was_told_when_ends() -> None:
    class Forever(VertexProgram):
        def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
            vertex.value = ctx.superstep

    with pytest.raises(VertexError, match="not ended by itself after 5 supersteps: 10 vertices are active"):
        run(Forever(), graph(RING), supersteps_max=5)
    assert run(Forever(), graph(RING), supersteps=5)[3] == 4


class Stray(VertexProgram):
    def create(self, id: Hashable) -> Any:
        return "new"

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        if ctx.superstep < 2 and vertex.id == 1:
            ctx.send(77, "a")
            ctx.send([77, 78, 2], "b")
        if messages:
            vertex.value = (vertex.value, *messages)
        ctx.halt() if vertex.id != 1 or ctx.superstep > 2 else None


@pytest.mark.parametrize("partitions", [1, 3])
def test_mail_to_unknown_vertices_is_dropped_and_counted_or_creates_them_or_ends_the_job(partitions: int) -> None:
    job = LocalJob(Stray(), graph([(1, 2)]), settings(partitions), [[range(partitions)]])
    assert job.run() == {1: None, 2: ((None, "b"), "b")}
    assert job.ends[-1].carried.dropped == 6
    made = run(Stray(), graph([(1, 2)]), partitions=partitions, unknown="create")
    assert made == {1: None, 2: ((None, "b"), "b"), 77: (("new", "a", "b"), "a", "b"), 78: (("new", "b"), "b")}
    with pytest.raises(VertexError, match=r"In superstep 0 mail was sent to 7[78], which is no vertex"):
        run(Stray(), graph([(1, 2)]), partitions=partitions, unknown="error")


class Arriving(VertexProgram):
    """A vertex that mail makes sends along its edges, of which it has none, like all others."""

    def create(self, id: Hashable) -> Any:
        return 0

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        vertex.value += sum(messages)
        if ctx.superstep < 3:
            ctx.send.all(1)
            ctx.send(5 + ctx.superstep, 1)
        else:
            ctx.halt()


@pytest.mark.parametrize("partitions", [1, 3])
def test_vertices_that_mail_has_made_are_like_others(partitions: int) -> None:
    found = run(Arriving(), [(1, 0, [1], None)], partitions=partitions, unknown="create")
    assert found == {1: 3, 5: 1, 6: 2, 7: 3}


def test_an_empty_graph_and_isolated_vertices() -> None:
    assert run(Smallest(), []) == {}
    assert run(Smallest(), [(n, n, (), None) for n in range(4)], partitions=7) == {n: n for n in range(4)}


def test_a_vertex_that_is_described_twice_is_named() -> None:
    with pytest.raises(VertexError, match="The vertex 1 is described twice"):
        run(Smallest(), [(1, 0, (), None), (1, 0, (), None)], partitions=1)


class Unsendable(VertexProgram):
    def __init__(self, what: str) -> None:
        self._what = what

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        if vertex.id != 4 or ctx.superstep != 2:
            return
        if self._what == "target":
            ctx.send({"a": 1}, 1)
        elif self._what == "message":
            ctx.send(1, threading.Lock())
        else:
            vertex.value = threading.Lock()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("target", "Mail of superstep 2 cannot be sent: unhashable type: 'dict'"),
        ("message", "Mail of superstep 2 cannot be sent: cannot pickle '_thread.lock' object"),
        ("value", "The state of vertex 4 cannot be pickled: cannot pickle '_thread.lock' object"),
    ],
)
def test_what_cannot_be_pickled_or_be_an_id_is_told_in_one_sentence(what: str, sentence: str) -> None:
    with pytest.raises(VertexError, match=sentence):
        run(Unsendable(what), graph(RING), checkpoint_every=1)


def test_ids_from_numpy_are_ids() -> None:
    class Numpy(VertexProgram):
        def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
            if ctx.superstep == 0:
                ctx.send(np.int64((vertex.id + 1) % 10), vertex.id)
            vertex.value = messages[0] if messages else None
            ctx.halt()

    assert run(Numpy(), graph(RING)) == {n: (n - 1) % 10 for n in range(10)}


# --- the graph changes --------------------------------------------------------------------------------------------


class Changing(VertexProgram):
    """Superstep 0 changes the graph in all ways at once; what becomes of it is seen afterwards."""

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        if ctx.superstep == 0 and vertex.id == 0:
            ctx.add_edge(1, 5, "late")
            ctx.add_vertex(5, "added", [0, 1], ["x", "y"])
            ctx.remove_vertex(2)
            ctx.add_vertex(2, "again")
            ctx.add_vertex(1, "ignored")
            ctx.remove_vertex(3)
            ctx.remove_edge(0, 1)
            ctx.remove_edge(0, 99)
            ctx.send([2, 3, 5], "mail")
        vertex.value = (vertex.value, vertex.edges, vertex.edge_values, list(messages), ctx.vertices, ctx.edges)
        if ctx.superstep == 1:
            ctx.halt()


@pytest.mark.parametrize("every", [0, 1])
@pytest.mark.parametrize("partitions", [1, 3])
def test_changes_are_made_between_supersteps_in_pregels_order(partitions: int, every: int) -> None:
    rows = [(0, "a", [1, 2, 1], [1, 2, 3]), (1, "b", [2], None), (2, "c", [0], None), (3, "d", [0], None)]
    told = settings(partitions, checkpoint_every=every)
    found = LocalJob(Changing(), rows, told, [[range(partitions)]], keeps=False).run()
    assert found.keys() == {0, 1, 2, 5}
    assert found[0] == (("a", (1, 2, 1), [1, 2, 3], [], 4, 6), (2, 1), [2, 3], [], 4, 6)
    assert found[1][1:] == ((2, 5), [None, "late"], [], 4, 6)
    assert found[2] == ("again", (), None, ["mail"], 4, 6)
    assert found[5] == ("added", (0, 1), ["x", "y"], ["mail"], 4, 6)


class Star(VertexProgram):
    """All write to the hub, and it to all; each message comes by itself."""

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        if ctx.superstep == 0:
            ctx.send.all(float(vertex.id))
            if vertex.id == 0:
                ctx.send(list(range(1, ctx.vertices)), -1.0)
        else:
            vertex.value = sorted(messages)
        ctx.halt()


@pytest.mark.parametrize("every", [0, 1])
def test_a_hub_is_no_special_case(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2premap.worker.vertex.inbox.LISTED_AT_ONCE", 7)  # messages become Python's in many pieces
    rows: Any = [
        (0, None, [], None),
        *((leaf, None, [0, leaf + 1] if leaf % 9 else [0], None) for leaf in range(1, 1000)),
    ]
    found = run(Star(), rows, checkpoint_every=every)
    assert found[0] == [float(leaf) for leaf in range(1, 1000)]
    assert all(found[v] == ([-1.0, v - 1.0] if v > 1 and (v - 1) % 9 else [-1.0]) for v in range(1, 1000))


class Seeds(VertexProgram):
    """All halt at once; the vertices that they made compute all the same, and see what superstep it is."""

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        vertex.value = ctx.superstep
        if vertex.id < 4:
            ctx.add_vertex(vertex.id + 2)
        ctx.halt()


@pytest.mark.parametrize("every", [0, 1])
def test_a_vertex_that_is_added_computes_though_no_mail_comes(every: int) -> None:
    found = run(Seeds(), [(0, None, [], None), (1, None, [], None)], checkpoint_every=every)
    assert found == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2}


class Growth(VertexProgram):
    """A chain grows by a vertex a superstep and loses its tail; every vertex sends along its edges."""

    def create(self, id: Hashable) -> Any:
        return 0

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        vertex.value += len(messages)
        ctx.send.all(1)
        if vertex.id == ctx.superstep:
            ctx.add_vertex(vertex.id + 1, 0, [vertex.id])
            ctx.add_edge(vertex.id, vertex.id + 1)
            if vertex.id >= 3:
                ctx.remove_vertex(vertex.id - 3)


@pytest.mark.parametrize("every", [0, 1, 2])
def test_a_graph_that_changes_all_the_time_goes_through_checkpoints(every: int) -> None:
    def job(seats: Any, *, keeps: bool) -> Any:
        told = settings(3, checkpoint_every=every, supersteps=9)
        made = LocalJob(Growth(), [(0, 0, [], None)], told, seats, keeps=keeps)
        return made.run(), made.ends[-1].carried.globals, made.ends[-1].carried.dropped

    expected = job([[[0, 1, 2]]], keeps=True)
    assert sorted(expected[0]) == [6, 7, 8, 9]
    assert job([[[0], [1, 2]], [[0, 1], [2]]], keeps=True) == expected
    assert job([[[0], [2], [1]]], keeps=False) == expected


# --- subscriptions ------------------------------------------------------------------------------------------------


class Listening(VertexProgram):
    """2 and 3 listen to what is sent to 1 and to "news", which is no vertex."""

    def compute(self, ctx: Any, vertex: Any, messages: Any) -> None:
        vertex.value = [*vertex.value, sorted(map(str, messages))]
        if vertex.id in (2, 3) and ctx.superstep == 0:
            ctx.subscribe(1)
            ctx.subscribe("news")
        if vertex.id == 2 and ctx.superstep == 1:
            ctx.unsubscribe(1)
        if vertex.id == 0 and ctx.superstep < 4:
            ctx.send(1, ctx.superstep)
            ctx.send(["news"], 10 + ctx.superstep)
        if vertex.id == 1 and ctx.superstep == 1:
            ctx.send.all("edge")
        if ctx.superstep == 4:
            ctx.halt()


@pytest.mark.parametrize("every", [0, 1])
@pytest.mark.parametrize("unknown", ["drop", "create"])
def test_subscribers_get_what_is_sent_to_others(unknown: str, every: int) -> None:
    rows = [(0, [], [], None), (1, [], [1], None), (2, [], [], None), (3, [], [], None)]
    told = settings(3, checkpoint_every=every, unknown=unknown)
    job = LocalJob(Listening(), [(id, [], *rest) for id, _, *rest in rows], told, [[[0], [1, 2]]], keeps=False)
    found = job.run()
    assert found[3] == [[], [], ["1", "11", "edge"], ["12", "2"], ["13", "3"]]
    assert found[2] == [[], [], ["1", "11", "edge"], ["12"], ["13"]]
    assert found[1] == [[], ["0"], ["1", "edge"], ["2"], ["3"]]
    assert job.ends[-1].carried.dropped == 0
