"""Random walks over election cores: everything that could happen next may happen next.

A planted bug is one changed line of a core; the check of the walk's model that is named for it must find it. Bugs that
need a rarer coincidence than a few hundred walks hold are in the tests of their module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from p2premap.sim.electionmodel import Violated
from p2premap.sim.electionsettings import GROWTH, OLD_DISKS, SETTINGS, Faults, Setting
from p2premap.sim.electionwalk import CHANGE_STEPS, SHORT_STEPS, STEPS, Walk, walk_of
from tests.sim.planting import Planted, plant

WALKS = 500
SHORT_WALKS = 1_000


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(16))
def test_short_walks(shard: int, record_property: Callable[[str, object], None]) -> None:
    """Without the liveness phase: what must never happen is seen on the acceptors' disks while it happens."""
    for number in range(SHORT_WALKS):
        walk_of(50_000 + shard * SHORT_WALKS + number).run(SHORT_STEPS, liveness=False)
    record_property("simulated", {"walks of elections": SHORT_WALKS})


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(8))
def test_walks(shard: int, record_property: Callable[[str, object], None]) -> None:
    happened: Counter[str] = Counter()
    takeovers = changes = forks = 0
    for number in range(WALKS):
        walk = walk_of(shard * WALKS + number, encoded=number % 10 == 0)
        walk.run(STEPS)
        happened.update(walk.counts)
        takeovers += walk.model.takeovers
        changes += walk.model.changes
        forks += len(walk.model.forked)
    record_property("simulated", {"walks of elections": WALKS})
    # walks in which nothing happened prove nothing
    assert takeovers > WALKS / 2
    assert changes > WALKS / 30
    assert forks > 0
    for word in ("crash", "back", "unlink", "cut", "false death", "disk full", "hand over", "propose", "append"):
        assert happened[word], word


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", range(2))
def test_walks_of_replica_sets_that_grow(shard: int, record_property: Callable[[str, object], None]) -> None:
    happened: Counter[str] = Counter()
    changes = 0
    for number in range(WALKS):
        walk = walk_of(400_000 + shard * WALKS + number, kind=GROWTH)
        walk.run(CHANGE_STEPS)
        happened.update(walk.counts)
        changes += walk.model.changes
    record_property("simulated", {"walks of elections": WALKS})
    assert changes > WALKS / 4
    assert happened["torn"] > WALKS / 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_walks_of_disks_that_are_set_back(record_property: Callable[[str, object], None]) -> None:
    happened: Counter[str] = Counter()
    for number in range(WALKS):
        walk = walk_of(500_000 + number, kind=OLD_DISKS)
        walk.run(CHANGE_STEPS)
        happened.update(walk.counts)
    record_property("simulated", {"walks of elections": WALKS})
    assert happened["old disk"] > WALKS / 10


def test_walks_repeat() -> None:
    one, two = walk_of(5), walk_of(5)
    one.run(STEPS)
    two.run(STEPS)
    assert one.log == two.log


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_crash_after_each_effect(setting: str) -> None:
    """A quiet run; then the same, with a node that crashes after the n-th effect, for every n."""
    quiet = Faults(propose=40, append=20, false_death=10, time=10)
    count = crash_at(setting, quiet, None)
    assert count > 40
    for number in range(1, count + 1):
        crash_at(setting, quiet, number)


def crash_at(setting: str, faults: Faults, number: int | None) -> int:
    kind = SETTINGS[setting]
    walk = Walk(7, nodes=3, faults=faults, config=kind.config, copies=3, strict=True, crash_after=number)
    walk.run(25)
    assert (walk.counts.get("tick", 0) > 0) or number is not None
    return walk.effects_before_calm


# --- planted bugs -----------------------------------------------------------------------------------------------------

BUGS = (
    Planted(
        what="A replica promises one (epoch, n) to two candidates.",
        where="election.replica:Replica.admits",
        line="ballot.n > promised.n",
        becomes="ballot[1:] > promised[1:]",
        caught_by="leaders",
        scenario="walk",
    ),
    Planted(
        what="A candidate asks others before its own promise is on disk.",
        where="election.candidate:Candidacy.start",
        line="self._replica.promise(self.ballot, lambda: self._promised() if still(self) else None)",
        becomes="self._replica.promise(self.ballot); self._promised()",
        caught_by="persist before you speak: Prepare",
        scenario="walk",
    ),
    Planted(
        what="An acceptance is told before it is on disk.",
        where="election.follower:on_accept",
        line="replica.accept(accepted, lambda: context.send(node, answer))",
        becomes="replica.accept(accepted); context.send(node, answer)",
        caught_by="persist before you speak: Accepted",
        scenario="walk",
    ),
    Planted(
        what="A promise is told before it is on disk.",
        where="election.follower:on_prepare",
        line="replica.write(sync=True, then=lambda: answer(()))",
        becomes="answer(())",
        caught_by="persist before you speak: Promise",
        scenario="walk",
    ),
    Planted(
        what="Facts are acknowledged that are only in memory.",
        where="election.follower:_ack",
        line="replica.durable.get(ballot)",
        becomes="replica.streams.serials.get(ballot)",
        caught_by="persist before you speak: Heard",
        scenario="walk",
    ),
    Planted(
        what="Facts count as protected when one replica has them.",
        where="election.leader:Leadership._measure",
        line="reached(self._replica.members, serials)",
        becomes="max(serials.values())",
        caught_by="protected",
        scenario="walk",
    ),
    Planted(
        what="A cell is voted on before the facts that it speaks of are protected.",
        where="election.leader:Leadership.propose_ready",
        line="proposal.after <= self.protected",
        becomes="True",
        caught_by="pin",
        scenario="walk",
    ),
    Planted(
        what="A cell counts as decided without a quorum.",
        where="election.leader:Leadership._decide",
        line="not is_quorum(replica.members, proposal.accepted)",
        becomes="False",
        caught_by="one value a cell",
        scenario="walk",
    ),
    Planted(
        what="Either half of a replica set is a quorum.",
        where="election.quorum:is_quorum",
        line="members[0] in votes",
        becomes="True",
        caught_by="(one value a cell|protected)",
        scenario="walk",
    ),
    Planted(
        what="What a leader did not have comes before what it did.",
        where="election.streams:Streams.fold",
        line="(top, *sorted(level))",
        becomes="sorted(level)",
        caught_by="(protected|pin)",
        scenario="walk",
    ),
    Planted(
        what="A promise does not tell what was accepted.",
        where="election.replica:Replica.promised_cells",
        line="cell.chosen or cell.ballot.epoch == epoch",
        becomes="cell.chosen",
        caught_by="one value a cell",
        scenario="walk",
    ),
    Planted(
        what="A candidate leads without a quorum of promises.",
        where="election.candidate:Candidacy._decide",
        line="not self._replica.has_quorum(self.promises)",
        becomes="False",
        caught_by="(leaders|protected)",
        scenario="walk",
    ),
    Planted(
        what="A strict job is forked.",
        where="election.job:Job._fork_at",
        line="replica.record.strict or ",
        becomes="",
        caught_by="strict",
        scenario="walk",
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_planted_bugs_are_caught(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, bug)
    with pytest.raises(Violated, match=f"^{bug.caught_by}"):
        walks(400)


def walks(count: int) -> None:
    for seed in range(count):
        walk_of(seed).run(STEPS)


OF_CHANGES = (
    Planted(
        what="The stop sign is voted before the new set has the state.",
        where="election.reconfigure:Reconfiguration._go_on",
        line=" and self._is_given(target)",
        becomes="",
        caught_by="(protected|one value a cell)",
        scenario="growth",
    ),
    Planted(
        what="The stop sign is voted while cells are.",
        where="election.reconfigure:Reconfiguration._go_on",
        line="not self._leadership.under_way() and ",
        becomes="",
        caught_by="one value a cell",
        scenario="growth, to its end",
    ),
    Planted(
        what="Who knows nothing of a job counts as one that has never voted in it.",
        where="election.hearing:Hearing._store",
        line="context.me not in record.members or replica.boot_of(context.me) == context.boot",
        becomes="True",
        caught_by="(promises|one value a cell|protected|leaders)",
        scenario="old disks",
    ),
    Planted(
        what="A replica votes whatever it has forgotten.",
        where="election.boots:BootCheck.confirmed",
        line="not self.amnesiac and (self._fresh or is_quorum(members, self._votes))",
        becomes="True",
        caught_by="(promises|one value a cell|protected|leaders)",
        scenario="old disks",
    ),
)
KINDS = {"growth": (GROWTH, False), "growth, to its end": (GROWTH, True), "old disks": (OLD_DISKS, False)}


@pytest.mark.parametrize("bug", OF_CHANGES, ids=lambda bug: bug.what)
def test_planted_bugs_of_changes_are_caught(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, bug)
    with pytest.raises(Violated, match=f"^{bug.caught_by}"):
        walks_of_kind(*KINDS[bug.scenario])


def walks_of_kind(kind: Setting, liveness: bool) -> None:
    for seed in range(WALKS):
        walk_of(seed, kind=kind).run(CHANGE_STEPS, liveness=liveness)
