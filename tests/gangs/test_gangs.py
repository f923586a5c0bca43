"""Gangs on real nodes: what they come to, and what becomes of them when nodes die and come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import eventually
from tests.gangs.kind import Plan
from tests.gangs.nodes import Nodes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Nodes]]:
    made: list[Nodes] = []

    def begin(*slots: int) -> Nodes:
        made.append(Nodes(tmp_path, slots))
        return made[-1]

    yield begin
    for nodes in made:
        nodes.close()


def stage(shape: dict[str, object], name: str) -> dict[str, object]:
    return next(s for s in shape["stages"] if s["name"] == name)  # type: ignore[attr-defined]


def test_one_node(start: Callable[..., Nodes]) -> None:
    nodes, plan = start(2), Plan(5, size=1000)
    nodes.finish(nodes.submit(plan), plan)
    (seats,) = nodes.meetings().values()
    assert sorted(len(tasks) for _, tasks in seats.values()) == [2, 3]


def test_three_nodes_two_epochs_and_frames_that_are_large(start: Callable[..., Nodes]) -> None:
    nodes, plan = start(2, 2, 2), Plan(12, exchanges=10, epochs=2, size=300_000)
    nodes.finish(nodes.submit(plan), plan)
    one, two = nodes.meetings().values()
    assert len(one) == 6
    assert one == two, "the same tasks are with the same processes in the next epoch"


def test_a_node_that_dies_costs_its_epoch_and_the_others_run_it_again(start: Callable[..., Nodes]) -> None:
    nodes, plan = start(2, 2, 2), Plan(12, epochs=2)
    nodes.hold()
    running = nodes.submit(plan)
    (seats,) = eventually(lambda: [seats for seats in nodes.meetings().values() if len(seats) == 6])
    nodes.kill("n3")
    nodes.let_go()
    shape = nodes.finish(running, plan)
    meetings = list(nodes.meetings().values())
    meetings.remove(seats)
    assert [len(others) for others in meetings] == [4, 4]
    assert stage(shape, "epoch 0")["lost_attempts"] == 4
    for others in meetings:
        assert sorted(task for _, tasks in others.values() for task in tasks) == list(range(12))


def test_a_gang_goes_on_when_its_leader_dies_and_a_new_node_has_tasks_in_the_next_epoch(
    start: Callable[..., Nodes],
) -> None:
    nodes, plan = start(1), Plan(8, epochs=2)
    for name in ("n2", "n3"):
        nodes.start(name, 2, "--tag", "gang")
    nodes.hold()
    running = nodes.submit(plan, "n1", "--require", "tag gang")
    (seats,) = eventually(lambda: [seats for seats in nodes.meetings().values() if len(seats) == 4])
    nodes.kill("n1")
    nodes.start("n4", 2, "--tag", "gang")
    nodes.let_go()
    shape = nodes.finish(running, plan)
    first, second = sorted(nodes.meetings().values(), key=len)
    assert first == seats, "nobody has begun anew"
    assert len(second) == 6
    assert shape["takeovers"] >= 1
    assert stage(shape, "epoch 0")["lost_attempts"] == 0
