"""NodeCore with a scripted gossip room: what one room says is what another one hears."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Sequence
from random import Random

import cbor2
import pytest

from p2premap.config import ElectionConfig, OwnerLimits, TasksConfig
from p2premap.control.nodes import Stop
from p2premap.election import events as election
from p2premap.election.ballot import first
from p2premap.election.core import ElectionCore
from p2premap.election.records import Stored
from p2premap.errors import RemoteProtocolError
from p2premap.gossip import events as gossip
from p2premap.gossip.events import GossipEffect, GossipEvent, MemberState, MemberView
from p2premap.gossip.facts import LoadMeter
from p2premap.ids import Address, Boot, Incarnation, JobId, NodeId, RequestId, short
from p2premap.node.capabilities import FACT, Capabilities
from p2premap.node.charter import job_id
from p2premap.node.core import NodeCore
from p2premap.node.events import CancelJob, JobAccepted, JobRefused, NodeEffect, ShareFiles, SubmitJob, Tick
from p2premap.node.outbox import ASK_AGAIN_S, Outbox
from p2premap.ports import FrameReceived
from p2premap.sim.workloads import KIND, Shape, ShapeDirector, digest_of, spec_of
from p2premap.tasks import events as tasks
from p2premap.tasks import messages
from p2premap.tasks.coordinator import Coordinator
from p2premap.tasks.job import AttemptEnd, AttemptSpec, BlobRef, JobOptions, JobSpec, Outcome, Phase, Source, StageId
from p2premap.wire import Frame, Message

A, B, C = (NodeId(letter * 16) for letter in (b"A", b"B", b"C"))
HERE = Address("127.0.0.1", 7321)


class ScriptedGossip:
    """Says what the test wants, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[GossipEvent] = []
        self.says: list[GossipEffect] = []
        self.when = math.inf
        self.known: list[MemberView] = []

    def deadline(self) -> float:
        return self.when

    def step(self, now: float, event: GossipEvent) -> Sequence[GossipEffect]:
        self.told.append(event)
        says, self.says = self.says, []
        return says

    def members(self) -> Sequence[MemberView]:
        return self.known


class Node:
    """Node A's core."""

    def __init__(self, slots: int = 1, config: TasksConfig | None = None, *, tolerant: bool = False) -> None:
        self.now = 0.0
        config = config or TasksConfig()
        elections = ElectionConfig(concluded_max=config.jobs_kept_max)
        self.gossip = ScriptedGossip()
        self.faults: list[tuple[JobId, Exception]] = []
        self.core = NodeCore(
            me=A,
            name="a",
            gossip=self.gossip,
            capabilities=Capabilities(machine=b"M", slots=slots, pid=7, cpus=2, memory_bytes=1000),
            directors={KIND: ShapeDirector},
            elections=ElectionCore(
                me=A, boot=Boot(1), former=(), name="a", config=elections, rng=Random(1), now=0.0, stored=Stored()
            ),
            config=config,
            now=0.0,
            faulted=(lambda job, error: self.faults.append((job, error))) if tolerant else None,
        )

    def step(self, event: object) -> list[NodeEffect]:
        """One event, and what follows from it; the disk answers at once."""
        told: list[NodeEffect] = []
        events = deque([event])
        while events:
            effects = self.core.step(self.now, events.popleft())  # type: ignore[arg-type]
            self.core.check_invariants()
            events.extend(election.Persisted(token=e.token) for e in effects if isinstance(e, election.Persist))
            told += [e for e in effects if not isinstance(e, election.Persist)]
        return told

    def submit(self, shape: Shape, *, key: bytes = b"k", request: int = 1) -> list[NodeEffect]:
        spec = spec_of(shape, key=key, options=JobOptions(copies=1))
        return self.step(SubmitJob(request=request, spec=spec, plan=shape.encode()))

    def member(
        self, node: NodeId, state: MemberState = MemberState.ALIVE, *, boot: int = 1, slots: int | None = 1
    ) -> list[NodeEffect]:
        """Gossip believes this of a member; with slots, it has published its capabilities."""
        self.gossip.says = [
            gossip.MemberChanged(
                node=node,
                boot=Boot(boot),
                incarnation=Incarnation(0),
                state=state,
                name=chr(node[0]).lower(),
                addresses=(HERE,),
            )
        ]
        if slots is not None and state is MemberState.ALIVE:
            value = Capabilities(machine=node, slots=slots).encode()
            self.gossip.says.append(gossip.FactChanged(node=node, key=FACT, value=value))
        return self.step(gossip.Hinted(address=HERE, node=None))

    def link(self, node: NodeId, boot: int = 1) -> list[NodeEffect]:
        return self.step(gossip.LinkUp(peer=node, boot=Boot(boot), address=None))

    def unlink(self, node: NodeId, boot: int = 1) -> list[NodeEffect]:
        return self.step(gossip.LinkDown(peer=node, boot=Boot(boot)))

    def frame(self, node: NodeId, message: Message) -> list[NodeEffect]:
        return self.step(FrameReceived(peer=node, frame=Frame(message, b"")))

    def wanted(self) -> list[NodeId]:
        """Peers to which gossip was asked for a link."""
        return [event.peer for event in self.gossip.told if isinstance(event, gossip.WantLink)]


def runs(effects: Sequence[NodeEffect]) -> list[tuple[int, list[int]]]:
    return [(e.slot, [a.task for a in e.attempts]) for e in effects if isinstance(e, tasks.RunBatch)]


def sent(effects: Sequence[NodeEffect], node: NodeId) -> list[Message]:
    return [e.message for e in effects if isinstance(e, gossip.SendLink) and e.peer == node]


def assigned(effects: Sequence[NodeEffect], node: NodeId) -> list[int]:
    return [a.task for m in sent(effects, node) if isinstance(m, messages.Assign) for a in m.attempts]


def views(effects: Sequence[NodeEffect]) -> list[Phase]:
    return [e.view.phase for e in effects if isinstance(e, tasks.JobChanged)]


def done(slot: int, *pairs: tuple[int, int]) -> tasks.SlotReported:
    ends = tuple(AttemptEnd(task=t, attempt=a, outcome=Outcome.DONE, seconds=5.0) for t, a in pairs)
    return tasks.SlotReported(slot=slot, ends=ends, batch_over=True)


# --- a node alone -------------------------------------------------------------------------------------------------


def test_the_first_thing_that_a_node_says_is_what_it_offers() -> None:
    node = Node()
    assert node.core.deadline() == 0.0
    node.step(Tick())
    fact = node.gossip.told[0]
    assert isinstance(fact, gossip.SetFact)
    assert fact.key == FACT
    assert Capabilities.decode(fact.value).slots == 1
    assert node.core.deadline() == math.inf


def test_a_job_runs_on_a_node_alone_without_a_network() -> None:
    node = Node()
    effects = node.submit(Shape(2))
    accepted = [e for e in effects if isinstance(e, JobAccepted)]
    assert [(e.request, e.copies) for e in accepted] == [(1, 1)]
    assert runs(effects) == [(0, [0])]
    assert runs(node.step(done(0, (0, 0)))) == [(0, [1])]
    effects = node.step(done(0, (1, 0)))
    assert views(effects) == [Phase.DONE]
    assert any(isinstance(e, tasks.EndJob) for e in effects)
    assert not any(isinstance(e, gossip.SendLink) for e in effects)
    (view,) = node.core.job_views(9.0, accepted[0].job)
    assert (view.phase, view.leader, view.leader_pid, view.age_s) == (Phase.DONE, A, 7, 9.0)


def test_a_fault_of_ours_in_one_job_costs_no_other_job_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Coordinator.step

    def faulty(self: Coordinator, now: float, event: tasks.CoordinatorEvent) -> list[tasks.CoordinatorEffect]:
        if isinstance(event, tasks.CancelJob):
            raise ZeroDivisionError("planted")
        return step(self, now, event)

    monkeypatch.setattr(Coordinator, "step", faulty)
    node = Node(slots=2, tolerant=True)
    one, two = (
        next(e.job for e in node.submit(Shape(2), key=key) if isinstance(e, JobAccepted)) for key in (b"1", b"2")
    )
    node.step(CancelJob(job=one, reason="x"))
    assert [(job, type(error)) for job, error in node.faults] == [(one, ZeroDivisionError)]
    assert not node.core.jobs.leads(one)
    assert node.core.jobs.leads(two)
    strict = Node(slots=2)
    job = next(e.job for e in strict.submit(Shape(2)) if isinstance(e, JobAccepted))
    with pytest.raises(ZeroDivisionError):
        strict.step(CancelJob(job=job, reason="x"))


def test_a_submission_is_bound_to_its_key() -> None:
    node = Node()
    ids, shared = [], []
    for key in (b"k", b"k", b"other"):
        effects = node.submit(Shape(2), key=key)
        ids += [e.job for e in effects if isinstance(e, JobAccepted)]
        shared += [e.job for e in effects if isinstance(e, ShareFiles)]
    assert ids[0] == ids[1] != ids[2]
    assert shared == [ids[0], ids[2]], "files of a job that was known already are not opened again"
    assert [view.job for view in node.core.job_views(0.0)] == [ids[0], ids[2]]


def test_another_job_under_a_key_that_has_one_is_refused_and_the_same_one_is_not() -> None:
    node = Node()
    (job,) = [e.job for e in node.submit(Shape(2)) if isinstance(e, JobAccepted)]
    effects = node.submit(Shape(3), request=2)
    (refused,) = [e for e in effects if isinstance(e, JobRefused)]
    assert refused.request == 2
    assert f"that of another job, 'shape' ({short(job)})" in refused.text
    assert not [e for e in effects if isinstance(e, JobAccepted)]
    assert [e.job for e in node.submit(Shape(2), request=3) if isinstance(e, JobAccepted)] == [job]
    assert [view.job for view in node.core.job_views(0.0)] == [job]


def test_an_id_names_the_submission_the_spec_and_the_replicas() -> None:
    spec = spec_of(Shape(2), key=b"k")
    ids = {
        job_id(spec, (A,)),
        job_id(spec, (B,)),
        job_id(spec, (A, B)),
        job_id(spec_of(Shape(2), key=b"l"), (A,)),
        job_id(spec_of(Shape(3), key=b"k"), (A,)),
    }
    assert len(ids) == 5
    assert job_id(spec, (A,)) == job_id(spec, (A,))


@pytest.mark.parametrize(
    ("kind", "plan", "said"),
    [("nonsense", b"", "No module for jobs of kind 'nonsense' is installed on a."), (KIND, b"\x01", "not a shape")],
)
def test_a_job_that_makes_no_sense_is_refused_in_one_sentence(kind: str, plan: bytes, said: str) -> None:
    node = Node()
    blob = BlobRef(digest=digest_of(plan), size=len(plan))
    spec = JobSpec(submission_key=b"k", kind=kind, name="n", code=blob, plan=blob)
    refused = [e for e in node.step(SubmitJob(request=5, spec=spec, plan=plan)) if isinstance(e, JobRefused)]
    assert [e.request for e in refused] == [5]
    assert said in refused[0].text
    assert node.core.job_views(0.0) == []


def test_a_job_for_which_nothing_can_be_loaded_now_is_refused_and_the_next_one_is_led(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node()
    with monkeypatch.context() as few:
        few.setitem(sys.modules, "p2premap.tasks.coordinator", None)
        (refused,) = [e for e in node.submit(Shape(2)) if isinstance(e, JobRefused)]
    assert refused.text.startswith("a cannot lead jobs now: ")
    assert any(isinstance(e, JobAccepted) for e in node.submit(Shape(2)))


def test_a_node_leads_so_many_jobs_and_no_more() -> None:
    node = Node(config=TasksConfig(jobs_kept_max=2))
    for key in (b"1", b"2"):
        assert any(isinstance(e, JobAccepted) for e in node.submit(Shape(2), key=key))
    refused = node.submit(Shape(2), key=b"3")
    assert any(isinstance(e, JobRefused) and "leads 2 jobs" in e.text for e in refused)


def test_jobs_that_are_over_stay_listed_up_to_a_number() -> None:
    node = Node(config=TasksConfig(jobs_kept_max=2))
    for key in (b"1", b"2", b"3"):
        node.submit(Shape(1), key=key)
        node.step(done(0, (0, 0)))
    assert [view.phase for view in node.core.job_views(0.0)] == [Phase.DONE] * 2


def test_a_job_is_cancelled_by_its_id_and_others_are_not_known() -> None:
    node = Node()
    job = next(e.job for e in node.submit(Shape(2)) if isinstance(e, JobAccepted))
    assert node.step(CancelJob(job=JobId(b"?" * 16), reason="")) == []
    effects = node.step(CancelJob(job=job, reason="enough"))
    assert any(isinstance(e, tasks.StopSlot) for e in effects)
    stopped = AttemptEnd(task=0, attempt=0, outcome=Outcome.STOPPED)
    effects = node.step(tasks.SlotReported(slot=0, ends=(stopped,), batch_over=True))
    assert views(effects) == [Phase.CANCELLED]


# --- members and links --------------------------------------------------------------------------------------------


def test_what_waits_for_a_link_asks_for_one_and_goes_out_when_it_is_up() -> None:
    node = Node()
    node.submit(Shape(2))
    effects = node.member(B)
    assert sent(effects, B) == []
    assert node.wanted() == [B]
    assert assigned(node.link(B), B) == [1]
    assert assigned(node.link(B), B) == []


def test_a_link_is_asked_for_again_until_it_is_up() -> None:
    node = Node()
    node.submit(Shape(2))
    node.member(B)
    for _ in range(3):
        node.now += ASK_AGAIN_S
        node.step(Tick())
    assert node.wanted() == [B] * 4
    node.link(B)
    node.now += 10 * ASK_AGAIN_S
    node.step(Tick())
    assert node.wanted() == [B] * 4


def test_a_member_without_capabilities_gets_no_work() -> None:
    node = Node()
    node.submit(Shape(4))
    node.link(B)
    assert assigned(node.member(B, slots=None), B) == []
    assert assigned(node.member(B), B) == [1]


def test_a_leader_that_begins_is_told_of_members_in_doubt_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it took them for dead, and what only they hold for lost."""
    told: list[tasks.CoordinatorEvent] = []
    step = Coordinator.step

    def heard(self: Coordinator, now: float, event: tasks.CoordinatorEvent) -> list[tasks.CoordinatorEffect]:
        told.append(event)
        return step(self, now, event)

    monkeypatch.setattr(Coordinator, "step", heard)
    node = Node()
    node.member(B)
    node.member(C)
    node.member(B, MemberState.STALLED)
    node.member(C, MemberState.DEAD)
    node.submit(Shape(3))
    seen = [(e.node, e.doubtful) for e in told if isinstance(e, tasks.WorkerSeen)]
    assert seen == [(A, False), (B, True)]


def test_members_that_were_there_before_the_job_work_for_it() -> None:
    node = Node()
    for other in (B, C):
        node.link(other)
        node.member(other)
    effects = node.submit(Shape(3))
    assert (runs(effects), assigned(effects, B), assigned(effects, C)) == ([(0, [0])], [1], [2])


def test_a_dead_members_work_runs_here() -> None:
    node = Node()
    node.submit(Shape(2))
    node.link(B)
    assert assigned(node.member(B), B) == [1]
    node.member(B, MemberState.DEAD)
    assert runs(node.step(done(0, (0, 0)))) == [(0, [1])]


def test_what_waited_for_a_dead_member_is_dropped() -> None:
    node = Node()
    node.submit(Shape(2))
    node.member(B)
    node.member(B, MemberState.DEAD)
    assert sent(node.link(B), B) == []


def test_a_new_boot_of_a_member_is_another_life() -> None:
    node = Node()
    node.submit(Shape(3))
    node.link(B)
    assert assigned(node.member(B), B) == [1]
    effects = node.member(B, boot=2)
    said = sent(effects, B)
    assert [type(m) for m in said[:2]] == [messages.Recount, messages.StopAttempts]
    assert assigned(effects, B) == [1]


@pytest.mark.parametrize("state", [MemberState.SUSPECT, MemberState.STALLED])
def test_a_doubtful_member_gets_nothing_new(state: MemberState) -> None:
    node = Node()
    node.member(B)
    node.link(B)
    node.member(B, state)
    assert assigned(node.submit(Shape(3)), B) == []
    assert assigned(node.member(B, slots=None), B) == [1]


def test_after_a_broken_link_the_leader_asks() -> None:
    node = Node()
    node.submit(Shape(2))
    node.link(B)
    node.member(B)
    assert node.unlink(B, boot=7) == []
    node.unlink(B)
    assert node.wanted() == [B]
    assert [type(m) for m in sent(node.link(B), B)] == [messages.Recount]


def test_capabilities_that_make_no_sense_change_nothing() -> None:
    node = Node()
    node.member(B, slots=None)
    node.gossip.says = [gossip.FactChanged(node=B, key=FACT, value=b"\xff")]
    node.step(gossip.Hinted(address=HERE, node=None))
    assert node.core.refused_messages == 1
    assert node.core.capabilities(B) is None
    assert node.core.capabilities(C) is None


# --- messages -----------------------------------------------------------------------------------------------------


def _assign(leader: NodeId) -> messages.Assign:
    code = Source(digest=digest_of(b"c"), start=0, end=1, holders=(leader,), blob=digest_of(b"c"))
    return messages.Assign(
        job=JobId(b"j" * 16),
        ballot=first(leader),
        stage=StageId(0, b""),
        runtime="r",
        function="map",
        code=code,
        attempts=(AttemptSpec(task=0, attempt=0),),
    )


def test_another_leaders_work_is_done_and_told() -> None:
    node = Node()
    node.link(B)
    assert runs(node.frame(B, _assign(B))) == [(0, [0])]
    [told] = sent(node.step(done(0, (0, 0))), B)
    assert isinstance(told, messages.AttemptsEnded)
    assert [end.task for end in told.ends] == [0]


def test_when_a_leader_dies_its_attempts_run_on_for_its_successor() -> None:
    node = Node()
    node.member(B)
    node.frame(B, _assign(B))
    effects = node.member(B, MemberState.DEAD)
    assert not [e for e in effects if isinstance(e, tasks.StopSlot)]
    assert node.core.worker.busy == 1


def test_what_the_owner_keeps_for_other_things_is_told_to_everybody() -> None:
    node = Node()
    node.step(tasks.SetLimits(limits=OwnerLimits(not_on_battery=True)))
    for _ in range(4):
        node.now += 1.0
        node.step(tasks.MachineNow(cpus=2, others_cpus=0.0, memory_free_bytes=1, on_battery=True, user_active=False))
    told = [event for event in node.gossip.told if isinstance(event, gossip.SetFact) and event.key == FACT]
    offered = [Capabilities.decode(event.value) for event in told]
    assert [(it.slots, it.held_back) for it in offered] == [(1, ""), (0, "it runs from its battery")]


def test_a_member_cannot_speak_for_another() -> None:
    node = Node()
    assert node.frame(C, _assign(B)) == []
    assert node.core.worker.fenced == 1


def test_work_for_a_job_that_this_node_has_forgotten_is_called_off() -> None:
    node = Node()
    node.link(B)
    report = messages.AttemptsEnded(
        job=JobId(b"j" * 16), ballot=first(A), stage=StageId(0, b""), ends=(), free=1, serial=1
    )
    assert [type(m) for m in sent(node.frame(B, report), B)] == [messages.ForgetJob]


def test_a_message_that_no_room_knows_is_counted() -> None:
    node = Node()
    assert node.frame(B, Stop(request=RequestId(1))) == []
    assert node.core.refused_messages == 1


def test_slots_can_change() -> None:
    node = Node(slots=1)
    node.submit(Shape(3))
    effects = node.step(tasks.SetSlots(slots=2))
    assert runs(effects) == [(1, [1])]
    fact = [e for e in node.gossip.told if isinstance(e, gossip.SetFact)][-1]
    assert Capabilities.decode(fact.value).slots == 2


# --- timers -------------------------------------------------------------------------------------------------------


def test_a_tick_reaches_only_who_is_due() -> None:
    node = Node()
    node.step(Tick())
    node.gossip.when = 5.0
    assert node.core.deadline() == 5.0
    node.now = 4.0
    node.step(Tick())
    assert not any(isinstance(e, gossip.Tick) for e in node.gossip.told)
    node.now = 5.0
    node.step(Tick())
    assert any(isinstance(e, gossip.Tick) for e in node.gossip.told)


# --- what people see ----------------------------------------------------------------------------------------------


def test_nodes_are_shown_with_what_they_offer_and_how_busy_they_are() -> None:
    node = Node(slots=2)
    load = LoadMeter().measure(busy_slots=1.0, cpu=0.5, memory=0.0)
    node.gossip.known = [
        _member(C, "c", MemberState.DEAD),
        _member(B, "b", MemberState.ALIVE, load=load),
        _member(A, "a", MemberState.ALIVE),
    ]
    node.member(B, slots=4)
    node.submit(Shape(1))
    shown = node.core.node_views(0.0)
    assert [(v.name, v.state, v.me) for v in shown] == [
        ("a", "alive", True),
        ("b", "alive", False),
        ("c", "dead", False),
    ]
    assert (shown[0].slots, shown[0].busy, shown[0].pid, shown[0].memory_bytes) == (2, 1, 7, 1000)
    assert (shown[1].slots, shown[1].busy) == (4, 4)
    assert 0.4 < shown[1].load < 0.7


def _member(node: NodeId, name: str, state: MemberState, load: bytes = b"") -> MemberView:
    return MemberView(
        node=node,
        boot=Boot(1),
        incarnation=Incarnation(0),
        state=state,
        name=name,
        addresses=(HERE,),
        facts={},
        load=load,
        linked=False,
    )


# --- small parts --------------------------------------------------------------------------------------------------


def test_an_outbox_is_bounded_and_keeps_the_newest() -> None:
    outbox = Outbox(2)
    said = [messages.ForgetJob(job=JobId(bytes([n]) * 16), ballot=first(A)) for n in range(3)]
    for message in said:
        outbox.put(0.0, B, message)
    assert outbox.dropped == 1
    assert list(outbox.take(B)) == said[1:]
    assert list(outbox.take(B)) == []
    assert outbox.deadline() == math.inf


def test_capabilities_survive_the_wire_and_a_later_release() -> None:
    mine = Capabilities(machine=b"m", slots=3, blob_directory="/x", tags=("gpu",), pid=9)
    assert Capabilities.decode(mine.encode()) == mine
    later = cbor2.dumps([*cbor2.loads(mine.encode()), "a field of the next release"])
    assert Capabilities.decode(later) == mine
    for nonsense in (b"", b"\x80", b"\x82\x41m\x20", cbor2.dumps(["m", 1]), cbor2.dumps([bytes(33), 1])):
        with pytest.raises(RemoteProtocolError):
            Capabilities.decode(nonsense)
