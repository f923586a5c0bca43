"""The array form beyond what the shipped programs use: letters, questions, lists, and programs that go wrong."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from p2premap.vertex.barrier import VertexError
from p2premap.vertex.program import ArrayProgram
from p2premap.worker.vertex.arrays import ArrayForm
from p2premap.worker.vertex.part import Inbox, Part
from tests.vertex.graphs import Graph, random_graph, run, settings_of

RING = Graph([(vertex, (vertex + 1) % 30) for vertex in range(30)])


class Relay(ArrayProgram):
    """Each vertex writes to three others by name, and sums what comes along edges and by name."""

    dtype = "int64"

    def start(self, part: Part) -> None:
        part.state["sum"] = np.zeros(part.n, np.int64)

    def compute(self, part: Part, inbox: Inbox) -> np.ndarray | None:
        part.state["sum"] += inbox.values
        if part.superstep < 3:
            part.send_all(part.keys, part.keys % 2 == 0)
            for step in (5, 5, 11):
                part.send((part.keys + step) % 31, part.keys)
        return part.keys % 2 == 0 if part.superstep < 2 else None

    def result(self, part: Part) -> np.ndarray:
        return part.state["sum"]


@pytest.mark.parametrize("restart_every", [0, 1])
@pytest.mark.parametrize("partitions", [1, 3])
def test_mail_by_name_is_added_to_mail_along_edges(partitions: int, restart_every: int) -> None:
    ran = run(Relay, RING, partitions=partitions, seats=2, restart_every=restart_every)
    expected = dict.fromkeys(range(31), 0)
    for vertex in range(30):
        expected[(vertex + 1) % 30] += 3 * vertex if vertex % 2 == 0 else 0
        for step in (5, 5, 11):
            expected[(vertex + step) % 31] += 3 * vertex
    del expected[30]
    assert ran.rows == expected
    # the letters of 25 and 19 to vertex 30: those of one partition to the same vertex are one
    assert 2 * 3 >= ran.dropped >= 3


class Pointers(ArrayProgram):
    """Each vertex points to the one before it; asking follows pointers twice as far each time."""

    dtype = "int64"

    def start(self, part: Part) -> None:
        part.state["to"] = np.maximum(part.keys - 1, 0)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        if part.answers is not None:
            part.state["to"] = part.answers.copy()
        if part.superstep % 2 == 0 and part.superstep < 8:
            part.ask("to", part.state["to"])
        return True

    def result(self, part: Part) -> np.ndarray:
        return part.state["to"]


@pytest.mark.parametrize("restart_every", [0, 1, 3])
@pytest.mark.parametrize("partitions", [1, 2, 5])
def test_questions_are_answered_two_supersteps_later(partitions: int, restart_every: int) -> None:
    ran = run(Pointers, RING, partitions=partitions, seats=2, restart_every=restart_every)
    assert ran.rows == {vertex: max(vertex - 16, 0) for vertex in range(30)}


class Gather(ArrayProgram):
    """Each vertex remembers how many values came, and their sum: along edges, as lists, and by name."""

    combine = ""
    dtype = "int64"

    def start(self, part: Part) -> None:
        part.state["seen"] = np.zeros(part.n, np.int64)

    def compute(self, part: Part, inbox: Inbox) -> bool:
        starts, counts, values = inbox.lists()
        for number in range(part.n):
            came = values[starts[number] : starts[number] + counts[number]]
            part.state["seen"][number] += 1000 * len(came) + came.sum()
        for slots, letters in inbox.letters:
            assert slots.flags.writeable
            assert letters.flags.writeable
            np.add.at(part.state["seen"], slots, letters)
        if part.superstep == 0:
            part.send_all(part.keys, part.keys % 3 > 0)
        elif part.superstep == 1:
            part.send(part.keys[:2], np.array([7, 8], np.int64)[: part.n])
        return part.superstep > 1

    def result(self, part: Part) -> np.ndarray:
        return part.state["seen"]


@pytest.mark.parametrize("restart_every", [0, 1])
def test_lists_without_a_combiner(restart_every: int) -> None:
    graph = random_graph(6, 40, 200)
    ran = run(Gather, graph, partitions=1, restart_every=restart_every)
    expected = dict.fromkeys(graph.ids, 0)
    for source, target in graph.edges:
        if source % 3 > 0:
            expected[target] += 1000 + source
    assert all(vertex % 3 == 0 for vertex in graph.ids)
    expected[0] += 7
    expected[3] += 8
    assert ran.rows == expected


class Wrong(ArrayProgram):
    """Does what it is told to do wrongly, in superstep 7."""

    aggregators: ClassVar = {"there": "sum"}
    how = ""

    def start(self, part: Part) -> None:
        part.state["value"] = np.zeros(part.n)

    def compute(self, part: Part, inbox: Inbox) -> object:
        part.aggregate("there", part.n)
        if part.superstep < 7:
            return False
        if self.how == "raise":
            raise RuntimeError("no more")
        if self.how == "values":
            part.send_all(np.zeros(part.n + 1))
        if self.how == "keys":
            part.send(part.keys, np.zeros(part.n + 1))
        return np.zeros(part.n + 1, np.bool_) if self.how == "halted" else True

    def result(self, part: Part) -> np.ndarray:
        return part.state["value"]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("raise", "no more"),
        ("values", "send_all wants"),
        ("keys", "as many values as keys"),
        ("halted", "those that halt"),
    ],
)
def test_what_a_program_raises_says_where(how: str, sentence: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=sentence) as caught:
        run(Wrong, RING, partitions=2, options={"how": how})
    assert any("in superstep 7, partition" in note for note in caught.value.__notes__)
    assert run(Wrong, RING, partitions=2).values == {"there": 30.0}


def test_mail_cannot_create_vertices() -> None:
    with pytest.raises(VertexError, match="cannot create vertices"):
        ArrayForm(Relay(), settings_of(Relay(), 2, ids="int", unknown="create"))
