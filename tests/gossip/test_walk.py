"""Random walks over gossip cores, without time: everything that could happen next may happen next.

A planted bug is one changed line of a core; the check of the walk's model that is named for it must find it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from p2premap.sim.gossipmodel import Violated
from p2premap.sim.gossipwalk import STEPS, walk_of
from tests.sim.planting import Planted, plant

WALKS = 2_000
HAPPENS = (
    "deliver",
    "again",
    "hear",
    "dialled",
    "tick",
    "lose",
    "unlink",
    "crash",
    "crash in a step",
    "start",
    "leave",
)
DISKS = ("disk kept", "disk old", "disk lost")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", range(10))
def test_walks(shard: int, record_property: Callable[[str, object], None]) -> None:
    happened: Counter[str] = Counter()
    for seed in range(shard * WALKS, (shard + 1) * WALKS):
        walk = walk_of(seed)
        walk.run(STEPS)
        happened.update(walk.counts)
        model = walk.model
        happened.update(deaths=model.deaths, gone=model.gone, refutations=model.refutations, clashes=model.clashes)
    record_property("simulated", {"walks of gossip": WALKS})
    # walks in which nothing happened prove nothing
    for word in (*HAPPENS, *DISKS, "deaths", "gone", "refutations", "clashes"):
        assert happened[word] >= WALKS / 100, (word, happened)


def test_walks_repeat() -> None:
    one, two = walk_of(5), walk_of(5)
    one.run(STEPS)
    two.run(STEPS)
    assert one.log == two.log


# --- planted bugs -----------------------------------------------------------------------------------------------------

BUGS = (
    Planted(
        what="of two records the last one heard wins",
        where="gossip.members:newer",
        line="precedence(b) > precedence(a)",
        becomes="precedence(b) != precedence(a)",
        caught_by="monotone",
        scenario="walk",
    ),
    Planted(
        what="whoever accuses a member raises its incarnation",
        where="gossip.beliefs:Beliefs.declare",
        line="state=state, age=0",
        becomes="state=state, age=0, incarnation=member.entry.incarnation + 1",
        caught_by="(owner-only|identity)",
        scenario="walk",
    ),
    Planted(
        what="a suspect does not refute",
        where="gossip.beliefs:Beliefs._hear_about_me",
        line="elif entry.state > own.state:",
        becomes="elif entry.state > MemberState.LEFT:",
        caught_by="refuted",
        scenario="walk",
    ),
    Planted(
        what="whoever answers nothing counts as seen gone",
        where="gossip.verdicts:own_evidence",
        line="if all(f == Finding.GONE for f in known) else Evidence.SILENT",
        becomes="if all(f != Finding.OPEN for f in known) else Evidence.SILENT",
        caught_by="gone",
        scenario="walk",
    ),
    Planted(
        what="of two versions of a fact the last one heard wins",
        where="gossip.members:newer_fact",
        line="> (a.boot",
        becomes="!= (a.boot",
        caught_by="(single-writer|identity)",
        scenario="walk",
    ),
    Planted(
        what="a changed fact keeps its version",
        where="gossip.beliefs:Beliefs.set_fact",
        line="self._version += 1",
        becomes="self._version = 1",
        caught_by="(versions|identity)",
        scenario="walk",
    ),
    Planted(
        what="a replaced record stays in the root hash",
        where="gossip.members:MemberTable._account",
        line="self.root ^= change",
        becomes="self.root ^= 0 if new is None else new.total",
        caught_by="core",
        scenario="walk",
    ),
    Planted(
        what="a ping is sent back as it came",
        where="gossip.core:GossipCore._on_received",
        line="self._context.reply(sender, address, self._ack(sender, message))",
        becomes="self._context.tell(sender, message)",
        caught_by="answers",
        scenario="walk",
    ),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_planted_bugs_are_caught(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, bug)
    with pytest.raises(Violated, match=f"^{bug.caught_by}:"):
        walks(WALKS)


def walks(count: int) -> None:
    for seed in range(count):
        walk_of(seed).run(STEPS)
