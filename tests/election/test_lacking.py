"""A replica that lacks what is needed to lead says so."""

from __future__ import annotations

from random import Random

from p2premap.config import ElectionConfig
from p2premap.election.core import ElectionCore
from p2premap.election.events import Bring, Brought, ElectionEffect, LeaderKnown, PeerSeen, Tick
from p2premap.election.records import JobRecord, Stored
from p2premap.ids import Ballot, Boot, JobId, NodeId

A, B, C = (NodeId(letter * 16) for letter in (b"a", b"b", b"c"))
JOB = JobId(b"j" * 16)


def test_what_a_job_without_a_leader_lacks_is_told() -> None:
    record = JobRecord(job=JOB, key=b"k", spec=b"s", members=(C, A, B), promised=Ballot(0, 0, C), boots=(1, 1, 1))
    core = ElectionCore(
        me=A,
        boot=Boot(2),
        former=(Boot(1),),
        name="a",
        config=ElectionConfig(),
        rng=Random(1),
        now=0.0,
        stored=Stored(jobs=(record,)),
    )
    effects: list[ElectionEffect] = []
    for peer in (B, C):
        effects += core.step(0.0, PeerSeen(node=peer, boot=Boot(1)))
    now = 0.0
    while not any(isinstance(effect, Bring) for effect in effects):
        now = core.deadline()
        effects += core.step(now, Tick())
    effects = list(core.step(now, Brought(job=JOB, error="Its plan is nowhere.")))
    told = [effect for effect in effects if isinstance(effect, LeaderKnown)]
    assert [(effect.leader, effect.note) for effect in told] == [(None, "Its plan is nowhere.")]
    told = [e for e in core.step(now, Brought(job=JOB)) if isinstance(e, LeaderKnown)]
    assert core.job(JOB) is not None
    assert all(effect.note == "" for effect in told)
