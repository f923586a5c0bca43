"""A meeting: one hand-out of all the tasks of a stage that share slots (`StagePlan.shared`), to processes that talk.

Its name is another for each hand-out, by whatever leader: what is left of a former one can be told by it and finds
nobody to talk to. So it is the fence between processes, as the ballot is between leaders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, TypeAlias

import msgspec
from blake3 import blake3

from p2premap.ids import Ballot, JobId, NodeId
from p2premap.tasks.director import TaskInput
from p2premap.tasks.job import StageId
from p2premap.wire import Count, NodeIdField, Record

MEETING_BYTES: Final = 16
HOLDERS_WEIGHED: Final = 8

Seats: TypeAlias = tuple[tuple[NodeId, tuple[int, ...]], ...]
"""(node, its tasks) of every process of a gang, in order of their lowest task."""


class Meeting(Record, frozen=True, kw_only=True):
    """What a process is told of its gang.

    Args:
        id: names the hand-out.
        seats: (node, its tasks) of every process.
        seat: which of them this batch is.
    """

    id: Annotated[bytes, msgspec.Meta(min_length=MEETING_BYTES, max_length=MEETING_BYTES)]
    seats: tuple[tuple[NodeIdField, tuple[Count, ...]], ...]
    seat: Count


def name_of(job: JobId, stage: StageId, ballot: Ballot, attempt: int) -> bytes:
    """The name of a hand-out: of this stage, by this leader, of attempts with this number."""
    said = f"{stage.number}/{stage.lineage.hex()}/{ballot.epoch}/{ballot.n}/{ballot.node.hex()}/{attempt}"
    return blake3(b"p2premap meeting " + job + said.encode()).digest(MEETING_BYTES)


def deal(
    inputs: Sequence[TaskInput],
    slots: Mapping[NodeId, int],
    machine_of: Mapping[NodeId, bytes],
    before: Mapping[int, NodeId],
) -> Seats:
    """Deal tasks out evenly over slots: where they were, then near their data, then anywhere.

    The seats of the same tasks on the same nodes come out as they were, whoever leads.

    Args:
        inputs: of all tasks.
        slots: of each node; at least one.
        machine_of: the machine of each node.
        before: where tasks were the last time.
    """
    neighbours: dict[bytes, list[NodeId]] = {}
    for node in slots:
        neighbours.setdefault(machine_of.get(node, node), []).append(node)
    wishes = [_wishes(task, input, slots, machine_of, neighbours, before) for task, input in enumerate(inputs)]
    liked = Counter(wish[0] for wish in wishes if wish)
    share = len(inputs) // sum(slots.values())
    # who had more than its share is the first to have more again
    order = sorted(slots, key=lambda node: (min(0, share * slots[node] - liked[node]), node))
    rooms = _rooms(len(inputs), order, slots)
    left = {node: sum(sizes) for node, sizes in rooms.items()}
    given: dict[NodeId, list[int]] = {node: [] for node in order}
    waiting = list(range(len(inputs)))
    for place in range(max(map(len, wishes), default=0)):
        waiting = [t for t in waiting if not _give(t, wishes[t][place : place + 1], left, given)]
    for task in waiting:
        _give(task, order, left, given)
    seats = [(node, piece) for node in order for piece in _pieces(sorted(given[node]), rooms[node])]
    return tuple(sorted(seats, key=lambda seat: seat[1]))


def _wishes(
    task: int,
    input: TaskInput,
    slots: Mapping[NodeId, int],
    machine_of: Mapping[NodeId, bytes],
    neighbours: Mapping[bytes, Sequence[NodeId]],
    before: Mapping[int, NodeId],
) -> list[NodeId]:
    """Nodes that a task would rather be on than on others, the best first."""
    scores: Counter[NodeId] = Counter()
    for source in input.sources:
        for place, holder in enumerate(source.holders[:HOLDERS_WEIGHED]):
            for node in neighbours.get(machine_of.get(holder, holder), ()):
                scores[node] += source.size
            if holder in slots:
                scores[holder] += source.size * (1 if place else 2)
    near = sorted(scores, key=lambda node: (-scores[node], node))
    was = before.get(task)
    return near if was is None or was not in slots else [was, *(node for node in near if node != was)]


def _rooms(tasks: int, order: Sequence[NodeId], slots: Mapping[NodeId, int]) -> dict[NodeId, list[int]]:
    """How many tasks each process of each node gets: first one process a node, then a second one, ..."""
    rounds = range(max(slots.values()))
    places = [node for turn in rounds for node in order if slots[node] > turn][:tasks]
    even, more = divmod(tasks, len(places))
    rooms: dict[NodeId, list[int]] = {node: [] for node in order}
    for number, node in enumerate(places):
        rooms[node].append(even + (number < more))
    return rooms


def _give(task: int, nodes: Sequence[NodeId], left: dict[NodeId, int], given: dict[NodeId, list[int]]) -> bool:
    for node in nodes:
        if left[node]:
            left[node] -= 1
            given[node].append(task)
            return True
    return False


def _pieces(tasks: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, ...]]:
    pieces = []
    start = 0
    for size in sizes:
        pieces.append(tuple(tasks[start : start + size]))
        start += size
    return pieces
