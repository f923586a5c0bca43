"""The checkers find bugs: each of these is one line changed, and names the checker that must fail.

A bug is caught by its checker, not by a time-out, and the same seeds pass without it. Every real bug that the
simulator finds becomes one.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from p2premap.sim.checkers import ByteBudget
from p2premap.sim.cluster import Cluster
from p2premap.sim.jobs import JobWorld
from p2premap.sim.machines import Disk
from p2premap.sim.network import NetworkConfig
from p2premap.sim.ports import Executors
from p2premap.sim.workloads import Shape
from tests.sim.planting import Planted, assert_caught
from tests.sim.test_faults import storm

SEEDS = range(4)


# --- scenarios: short, each around one promise ------------------------------------------------------------------------


def anything(seed: int) -> None:
    storm(seed, 5)


def stall(seed: int) -> None:
    """A node stands still for ten seconds."""
    cluster = Cluster(5, seed=seed)
    cluster.form()
    cluster.world.run_for(5.0)
    seat = cluster.random.choice(cluster.seats)
    cluster.world.pause(seat)
    cluster.world.run_for(10.0)
    cluster.world.resume(seat)
    cluster.world.run_for(10.0)
    cluster.check_quiet()


def stall_of_all(seed: int) -> None:
    """While one stands still, the clocks of all others leap: they were not there to hear it either."""
    cluster = Cluster(5, seed=seed)
    cluster.form()
    cluster.world.run_for(5.0)
    cluster.world.pause(cluster.seats[0])
    cluster.world.run_for(4.0)
    for seat in cluster.seats[1:]:
        cluster.world.jump(seat, 14.0)
    cluster.world.run_for(5.0)
    cluster.world.resume(cluster.seats[0])
    cluster.world.run_for(10.0)
    cluster.check_quiet()


def glitches(seed: int) -> None:
    """Now and then a node is cut off for a little less than it takes to be called dead."""
    cluster = Cluster(6, seed=seed)
    world = cluster.world
    cluster.form()
    for _ in range(4):
        world.run_for(12.0)
        seat = cluster.random.choice(cluster.seats)
        broken = world.network.cut([seat], [other for other in cluster.seats if other is not seat])
        world.run_for(1.8)
        world.network.heal(broken)
    world.run_for(10.0)
    cluster.check_quiet()


def leave(seed: int) -> None:
    """Two nodes leave in good order."""
    cluster = Cluster(6, seed=seed)
    cluster.form()
    for seat in cluster.seats[:2]:
        cluster.world.leave(seat)
        cluster.world.run_for(8.0)
    cluster.check_quiet()


def cut(seed: int) -> None:
    """Cut into halves, and healed."""
    cluster = Cluster(6, seed=seed)
    cluster.form()
    cluster.world.run_for(3.0)
    broken = cluster.world.network.cut(cluster.seats[:3], cluster.seats[3:])
    cluster.world.run_for(15.0)
    cluster.world.network.heal(broken)
    cluster.until_whole(10.0, "heals")


def facts(seed: int) -> None:
    """Facts change often, on a network that repeats and reorders, while one node sleeps."""
    bad = NetworkConfig(duplicate=0.3, reorder=0.5, reorder_s=1.0, loss=0.1)
    cluster = Cluster(6, seed=seed, network=bad, strict=False)
    cluster.form(limit_s=60.0)
    cluster.world.sleep(cluster.seats[5])
    for _ in range(40):
        cluster.publish(cluster.random.choice(cluster.seats[:5]), cluster.random.choice("ab"))
        cluster.world.run_for(0.2)
    cluster.world.resume(cluster.seats[5])
    cluster.world.run_for(20.0)
    cluster.check_quiet()


def rest(seed: int) -> None:
    """A fact spreads, then there is nothing more to say."""
    cluster = Cluster(8, seed=seed)
    cluster.form()
    for seat in cluster.seats:
        cluster.publish(seat, "a", size=100)
    cluster.world.run_for(20.0)
    ByteBudget(cluster.world, bytes_max=1_500)
    cluster.world.run_for(20.0)


def losses(seed: int) -> None:
    """A process is killed, then a machine loses power."""
    cluster = Cluster(6, seed=seed)
    world = cluster.world
    cluster.form()
    world.run_for(5.0)
    for seat, how, limit_s in ((cluster.seats[1], world.crash, 0.5), (cluster.seats[2], world.power_off, 6.0)):
        watch = cluster.known_gone(seat)
        how(seat)
        if not world.run_until(lambda watch=watch: watch.done, limit_s=limit_s):
            raise world.broken("detection", f"{len(watch.missing)} nodes do not know of {seat} after {limit_s} s")
        world.run_for(5.0)


def nap(seed: int) -> None:
    """One of two machines sleeps for minutes; soon after it woke, the other loses power."""
    cluster = Cluster(2, seed=seed)
    world, (sleeper, other) = cluster.world, cluster.seats
    cluster.form()
    world.run_for(5.0)
    world.sleep(sleeper)
    world.run_for(200.0)
    world.resume(sleeper)
    cluster.until_whole(10.0)
    world.run_for(2.0)
    watch = cluster.known_gone(other)
    world.power_off(other)
    if not world.run_until(lambda: watch.done, limit_s=12.0):
        raise world.broken("detection", f"{sleeper} does not know that {other} lost power", sleeper)


def old_disk(seed: int) -> None:
    """A machine comes back from an image of before its first start, or from older and older ones."""
    cluster = Cluster(4, seed=seed)
    cluster.form()
    seat = cluster.seats[1]
    cluster.publish(seat, "a")
    for disk in (Disk.OLD,) if seed % 2 else (Disk.KEPT, Disk.KEPT, Disk.OLD):
        cluster.world.run_for(5.0)
        cluster.world.crash(seat)
        cluster.world.run_for(2.0)
        cluster.start(seat, disk)
        cluster.publish(seat, "b")
    cluster.until_whole(15.0, "old-disk")
    cluster.world.run_for(10.0)
    cluster.check_quiet()


def cancelled(seed: int) -> None:
    """A job whose attempts take longer and longer is cancelled while batches are queued behind others."""
    jobs = JobWorld(2, seed=seed, executors=Executors(slow=2_000.0))
    job = jobs.submit(Shape(500, 4))
    jobs.world.run_for(0.5)
    for desk in jobs.hosts.desks.values():
        desk.slow = True
    jobs.world.run_for(0.5)
    assert any(len(slot.queue) > 1 for seat in jobs.world.seats for slot in jobs.core(seat).worker._shares.slots)
    jobs.cancel(job)
    jobs.until_over(job, limit_s=20.0)


SCENARIOS: dict[str, Callable[[int], None]] = {
    scenario.__name__: scenario
    for scenario in (anything, stall, stall_of_all, glitches, leave, cut, facts, rest, losses, nap, old_disk, cancelled)
}


# --- bugs -------------------------------------------------------------------------------------------------------------

BUGS = (
    Planted(
        what="of two records the last one heard wins",
        where="gossip.members:newer",
        line="precedence(b) > precedence(a)",
        becomes="precedence(b) != precedence(a)",
        caught_by="monotone",
        scenario="anything",
    ),
    Planted(
        what="whoever accuses a member raises its incarnation",
        where="gossip.beliefs:Beliefs.declare",
        line="state=state, age=0",
        becomes="state=state, age=0, incarnation=member.entry.incarnation + 1",
        caught_by="owner-only",
        scenario="stall",
    ),
    Planted(
        what="a suspicion kills at once",
        where="gossip.suspicion:Suspicion.judged",
        line="self._suspect(node)",
        becomes="self._kill(node)",
        caught_by="false-dead",
        scenario="glitches",
    ),
    Planted(
        what="a process that stands still counts as silent",
        where="gossip.verdicts:finding",
        line="return Finding.STALLED",
        becomes="return Finding.SILENT",
        caught_by="false-dead",
        scenario="stall",
    ),
    Planted(
        what="a suspect does not refute",
        where="gossip.beliefs:Beliefs._hear_about_me",
        line="elif entry.state > own.state:",
        becomes="elif entry.state > MemberState.LEFT:",
        caught_by="whole",
        scenario="glitches",
    ),
    Planted(
        what="a node that leaves does not say so",
        where="gossip.beliefs:Beliefs.renew",
        line="state=state if self.own.state != MemberState.LEFT else MemberState.LEFT",
        becomes="state=MemberState.ALIVE",
        caught_by="left-not-dead",
        scenario="leave",
    ),
    Planted(
        what="nobody repairs",
        where="gossip.repair:Repair.compare",
        line="if root == context.table.root:",
        becomes="if root != 0:",
        caught_by="facts",
        scenario="facts",
    ),
    Planted(
        what="a rumour is told for ever",
        where="gossip.spread:Spread.flush",
        line="self.times - len(eager)",
        becomes="100_000",
        caught_by="byte-budget",
        scenario="rest",
    ),
    Planted(
        what="nobody dials the dead",
        where="gossip.links:Links._is_lost",
        line="== MemberState.DEAD",
        becomes="== MemberState.LEFT",
        caught_by="heals",
        scenario="cut",
    ),
    Planted(
        what="of two versions of a fact the last one heard wins",
        where="gossip.members:newer_fact",
        line="> (a.boot",
        becomes="!= (a.boot",
        caught_by="single-writer",
        scenario="facts",
    ),
    Planted(
        what="a changed fact keeps its version",
        where="gossip.beliefs:Beliefs.set_fact",
        line="self._version += 1",
        becomes="self._version = 1",
        caught_by="single-writer",
        scenario="facts",
    ),
    Planted(
        what="a replaced record stays in the root hash",
        where="gossip.members:MemberTable._account",
        line="self.root ^= change",
        becomes="self.root ^= 0 if new is None else new.total",
        caught_by="core",
        scenario="anything",
    ),
    Planted(
        what="a link that closed is no reason to look",
        where="gossip.core:GossipCore._on_link_down",
        line="if member is not None and member.live and",
        becomes="if member is not None and not member.live and",
        caught_by="detection",
        scenario="losses",
    ),
    Planted(
        what="a node with an old disk keeps its identity",
        where="gossip.beliefs:Beliefs._hear_about_me",
        line="if entry.boot > own.boot:",
        becomes="if entry.boot > own.boot << 10:",
        caught_by="old-disk",
        scenario="old_disk",
    ),
    # found by the simulator
    Planted(
        what="after a sleep every timer is put off by its length, although the clock stood still",
        where="gossip.core:GossipCore._on_woke",
        line="min(lost_s, late_s)",
        becomes="lost_s",
        caught_by="detection",
        scenario="nap",
    ),
    Planted(
        what="a doubt grows older while its accuser does not run",
        where="gossip.suspicion:Suspicion.credit",
        line="doubt.stalled_since += lost_s",
        becomes="doubt.stalled_since += 0.0",
        caught_by="false-dead",
        scenario="stall_of_all",
    ),
    # found by reading, which the simulator could not see while its executor left a batch before it told of its end
    Planted(
        what="an order to stop reaches whichever batch is at the head of the slot",
        where="sim.ports:VirtualExecutor.stop",
        line="queued.batch.batch == order.batch",
        becomes="queued is queue[0]",
        caught_by="ends",
        scenario="cancelled",
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=[bug.what for bug in BUGS])
def test_a_planted_bug_is_caught_by_its_checker(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_caught(bug, monkeypatch, SCENARIOS[bug.scenario], SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_seeds_pass_without_a_bug(name: str, seed: int) -> None:
    SCENARIOS[name](seed)


def test_there_are_enough_bugs_for_every_checker() -> None:
    assert len(BUGS) >= 8
    assert {bug.scenario for bug in BUGS} == set(SCENARIOS)
