"""How many bugs are planted, room by room: checkers that find nothing are only trusted because they find these."""

from __future__ import annotations

import inspect
from collections import Counter
from types import ModuleType

from tests.election import test_change
from tests.election import test_walk as election_walk
from tests.gossip import test_walk as gossip_walk
from tests.sim import test_planted_bugs, test_planted_takeovers, test_vertex_walk
from tests.sim.planting import Planted
from tests.tasks import test_walk as tasks_walk
from tests.tasks import test_walk_takeover

LEDGER = ("election.journal", "election.replica", "election.streams", "election.follower", "election.copying")
"""What keeps and passes on the facts and cells of a job."""


def planted(module: ModuleType) -> list[Planted]:
    """The bugs that its tests plant one by one, by changed lines."""
    tables = [table for table in vars(module).values() if isinstance(table, tuple)]
    return [bug for table in tables for bug in table if isinstance(bug, Planted)]


def patched(module: ModuleType) -> list[str]:
    """The tests of it that each put a bug in place of a function."""
    return [name for name, _ in inspect.getmembers(module, inspect.isfunction) if name.startswith("test_it_finds")]


def room_of(where: str) -> str:
    """The room of a planted bug."""
    if where.startswith(LEDGER):
        return "ledger"
    return "vertex" if "vertex" in where.split(":")[0] else where.split(".")[0]


def test_each_room_has_its_bugs() -> None:
    modules = (election_walk, gossip_walk, test_planted_bugs, test_planted_takeovers, test_vertex_walk)
    distinct = {(bug.where, bug.line, bug.becomes) for module in modules for bug in planted(module)}
    rooms = Counter(room_of(where) for where, _, _ in distinct)
    rooms["election"] += len(patched(test_change))
    rooms["tasks"] += len(patched(tasks_walk)) + len(patched(test_walk_takeover))
    assert min(rooms[room] for room in ("gossip", "election", "ledger", "tasks", "vertex")) >= 5, rooms
    assert rooms["gossip"] >= 8, rooms
    assert sum(rooms.values()) >= 50, rooms
