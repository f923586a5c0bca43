"""What a node offers under its owner's limits."""

from __future__ import annotations

import pytest

from p2premap.config import OwnerLimits, TasksConfig
from p2premap.tasks import events
from p2premap.tasks.allowance import Allowance, Offer
from p2premap.tasks.job import Outcome
from tests.tasks.working import Working

CONFIG = TasksConfig()
GIB = 1 << 30


def machine(
    others_cpus: float = 0.0, memory: int = 8 * GIB, *, on_battery: bool = False, user_active: bool = False
) -> events.MachineNow:
    """A machine with eight CPUs."""
    return events.MachineNow(
        cpus=8, others_cpus=others_cpus, memory_free_bytes=memory, on_battery=on_battery, user_active=user_active
    )


class Machine:
    """An allowance of eight slots that hears of its machine once a second."""

    def __init__(self, limits: OwnerLimits) -> None:
        self.now = 0.0
        self.allowance = Allowance(8, CONFIG)
        self.allowance.limit(limits)

    def stays(self, state: events.MachineNow, seconds: int) -> list[int]:
        """Slots offered after each second."""
        offered = []
        for _ in range(seconds):
            self.now += 1.0
            self.allowance.hear(self.now, state)
            offered.append(self.allowance.offer.slots)
        return offered


def test_without_limits_everything_is_offered() -> None:
    busy = machine(8.0, 0, on_battery=True, user_active=True)
    assert Machine(OwnerLimits()).stays(busy, 30) == [8] * 30


@pytest.mark.parametrize(
    ("limits", "state", "why"),
    [
        (OwnerLimits(not_on_battery=True), machine(on_battery=True), "it runs from its battery"),
        (OwnerLimits(only_when_idle=True), machine(user_active=True), "somebody uses the machine"),
        (OwnerLimits(only_when_idle=True), machine(1.7), "somebody uses the machine"),
        (OwnerLimits(memory_free_bytes_min=GIB), machine(memory=GIB - 1), "less memory is free than its owner wants"),
    ],
)
def test_a_limit_takes_all_slots_after_a_moment_and_gives_them_back_after_a_while(
    limits: OwnerLimits, state: events.MachineNow, why: str
) -> None:
    it = Machine(limits)
    assert it.stays(machine(), 5) == [8] * 5
    assert it.stays(state, 4) == [8, 8, 0, 0]
    assert it.allowance.offer.why == why
    assert it.stays(machine(), 12) == [0] * 10 + [8, 8]
    assert it.allowance.offer == Offer(8)


def test_what_others_use_of_the_machine_takes_slots_one_by_one() -> None:
    it = Machine(OwnerLimits(load_max=0.75))
    assert it.stays(machine(), 4) == [8, 8, 6, 6]
    assert it.stays(machine(2.3), 3) == [6, 6, 4]
    assert it.stays(machine(7.9), 3) == [4, 4, 0]
    assert it.allowance.offer.why == "it may be loaded to 75% only, by others too"


def test_a_twitch_changes_nothing() -> None:
    it = Machine(OwnerLimits(load_max=1.0))
    for _ in range(20):
        assert it.stays(machine(4.0), 1) + it.stays(machine(0.2), 1) == [8, 8]


def test_what_comes_back_is_the_least_that_was_there_all_the_time() -> None:
    it = Machine(OwnerLimits(load_max=1.0))
    it.stays(machine(8.0), 3)
    it.stays(machine(1.0), 5)
    it.stays(machine(4.0), 1)
    assert it.stays(machine(1.0), 5)[-1] == 4


def test_memory_must_be_free_with_room_to_spare_before_it_counts() -> None:
    it = Machine(OwnerLimits(memory_free_bytes_min=4 * GIB))
    it.stays(machine(memory=3 * GIB), 3)
    assert it.stays(machine(memory=4 * GIB + 1), 30)[-1] == 0
    assert it.stays(machine(memory=5 * GIB), 11)[-1] == 8


# --- in the worker's core -----------------------------------------------------------------------------------------


def limited(limits: OwnerLimits) -> Working:
    """A node with one slot that runs something, and its owner's limits."""
    node = Working()
    node.hear(events.SetLimits(limits=limits))
    node.assign(0)
    return node


def stays(node: Working, state: events.MachineNow, seconds: int) -> list[str]:
    """What is said meanwhile."""
    lines: list[str] = []
    for _ in range(seconds):
        node.now += 1.0
        lines += node.hear(state)
    return lines


def test_what_runs_is_stopped_when_the_owner_needs_the_machine_and_taken_again_later() -> None:
    node = limited(OwnerLimits(only_when_idle=True))
    assert stays(node, machine(user_active=True), 3) == ["slot 0: stop"]
    assert node.report(0, 0, outcome=Outcome.STOPPED) == ["A: ended 0 STOPPED free 0 serial 1"]
    assert node.assign(1) == ["A: busy j 1 free 0"]
    busy = node.effects[-1]
    assert isinstance(busy, events.ToLeader)
    assert busy.message.reason == "somebody uses the machine"  # type: ignore[attr-defined]
    assert node.core.held_back == "somebody uses the machine"
    stays(node, machine(), 12)
    assert node.assign(1) == ["slot 0: run j 1"]
    assert node.core.held_back == ""


def test_what_runs_ends_in_its_own_time_when_memory_is_short() -> None:
    node = limited(OwnerLimits(memory_free_bytes_min=GIB))
    assert stays(node, machine(memory=0), 3) == []
    assert node.core.slots == 0
    assert node.report(0, 0) == ["A: ended 0 free 0 serial 1"]


def test_a_node_that_is_about_to_go_takes_nothing_more_and_ends_what_it_has() -> None:
    node = Working()
    node.assign(0)
    assert node.hear(events.StopTaking()) == []
    assert node.assign(1) == ["A: busy j 1 free 0"]
    assert node.report(0, 0) == ["A: ended 0 free 0 serial 1"]
    assert node.core.held_back == "it is being drained"
    node.hear(events.StopTaking(again=True))
    assert node.assign(1) == ["slot 0: run j 1"]
