"""An untimed random walk over the election cores of a few nodes, with a disk and a gossip for each.

Whatever could happen next may happen next: any message in flight is delivered (in order on each link), or lost with
its link; a write reaches the disk, or fails, or is lost with its node; a node crashes at any step, or right
after the n-th effect of the walk, and comes back with what its disk held; anybody is taken for dead or doubtful,
rightly or not; nodes are cut from each other; jobs are created, their leaders append, propose, hand over and conclude.
Time only moves when somebody's deadline is the next thing. Then a liveness phase: nothing more goes wrong among some
nodes that have a quorum, the others are gone for good, and everything that was begun must be brought to its end.

The model beside it (`Model`) knows nothing of how the cores work; it checks what they promise. Every check has a name,
which begins the text of `Violated`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from p2premap.config import ElectionConfig
from p2premap.election import events, messages
from p2premap.election.core import ElectionCore
from p2premap.election.quorum import is_quorum
from p2premap.election.records import (
    CellRecord,
    ForgetBatches,
    ForgetJob,
    JobRecord,
    Stored,
    StoredBatch,
    StoredRecord,
    StoredStream,
)
from p2premap.ids import JOB_ID_BYTES, NODE_ID_BYTES, Ballot, Boot, JobId, NodeId
from p2premap.protocol import LINK
from p2premap.wire import Message

LOOK = 0.15
LIVENESS_STEPS_MAX = 20_000
CELLS = ("m0", "m1", "end")
"""What every leader proposes, sooner or later: so that what is decided by one and forgotten is decided otherwise."""

STEP_EFFECTS_MAX = 1_000


class Violated(AssertionError):
    """The cores broke a promise. The text begins with the name of the check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often things go wrong: the weight of each beside 100 for every ordinary step."""

    crash: float = 0.0
    back: float = 20.0
    unlink: float = 0.0
    cut: float = 0.0
    heal: float = 20.0
    false_death: float = 0.0
    doubt: float = 0.0
    disk_full: float = 0.0
    time: float = 5.0
    woke: float = 0.0
    create: float = 10.0
    append: float = 30.0
    propose: float = 10.0
    conclude: float = 0.0
    hand_over: float = 0.0


HASTY = ElectionConfig(replace_s=0.5, fork_s=1.0, create_wait_s=0.4, decide_wait_s=0.5)
"""Intervals with which a short walk sees everything."""

CALM = Faults(create=0.0, append=0.0, propose=0.0, time=1.0)


class Disk:
    """What one node's disk holds."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, JobRecord] = {}
        self.cells: dict[tuple[JobId, str], CellRecord] = {}
        self.batches: dict[JobId, dict[tuple[Ballot, int], StoredBatch]] = {}

    def write(self, records: tuple[StoredRecord, ...]) -> None:
        """All or nothing."""
        for record in records:
            match record:
                case JobRecord():
                    self.jobs[record.job] = record
                case CellRecord():
                    self.cells[record.job, record.cell] = record
                case StoredBatch():
                    self.batches.setdefault(record.job, {})[record.ballot, record.serial] = record
                case ForgetBatches(job=job):
                    self._forget(job)
                case ForgetJob(job=job):
                    self._forget(job)
                    self.jobs.pop(job, None)

    def _forget(self, job: JobId) -> None:
        self.batches.pop(job, None)
        self.cells = {key: cell for key, cell in self.cells.items() if key[0] != job}

    def beyond(self, load: events.LoadBatches) -> tuple[StoredBatch, ...]:
        """What `LoadBatches` asks for."""
        held = self.batches.get(load.job, {})
        return tuple(held[key] for key in sorted(held) if key[1] > load.beyond.get(key[0], 0))

    def stored(self) -> Stored:
        """What a start finds."""
        streams = []
        for job, batches in self.batches.items():
            for ballot in sorted({ballot for ballot, _ in batches}):
                serials = [serial for b, serial in batches if b == ballot]
                if sorted(serials) != list(range(len(serials))):
                    raise Violated("contiguous: a stream on disk has a gap")
                streams.append(StoredStream(job, ballot, max(serials), batches[ballot, 0].batch))
        return Stored(jobs=tuple(self.jobs.values()), cells=tuple(self.cells.values()), streams=tuple(streams))


@dataclass(slots=True)
class Led:
    """A job as its tasks at its leader see it."""

    ballot: Ballot
    facts: list[bytes]
    """Everything applied so far, in order."""
    began: int
    """How many of them were history."""
    proposed: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Node:
    """A node, up or not."""

    id: NodeId
    boot: int = 0
    core: ElectionCore | None = None
    disk: Disk = field(default_factory=Disk)
    writes: deque[events.Persist] = field(default_factory=deque)
    asked: deque[events.ElectionEvent] = field(default_factory=deque)
    """Answers to effects other than writes, as soon as they may come; `LoadBatches` is answered when its turn comes."""
    loads: deque[events.LoadBatches] = field(default_factory=deque)
    led: dict[JobId, Led] = field(default_factory=dict)
    told: dict[NodeId, tuple[str, int]] = field(default_factory=dict)
    """What its gossip says of others: seen, doubtful or gone, and the boot."""
    full: bool = False

    def __str__(self) -> str:
        return chr(self.id[0])


class Walk:
    """A few nodes and their jobs.

    Args:
        seed: of every choice.
        nodes: how many.
        faults: what may go wrong.
        jobs: how many are created at most.
        copies: replicas a job.
        strict: the jobs are.
        encoded: messages travel as bytes.
        crash_after: the n-th effect of the whole walk is the last one of its node's life.
    """

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 3,
        faults: Faults | None = None,
        jobs: int = 1,
        copies: int = 3,
        strict: bool = True,
        encoded: bool = False,
        crash_after: int | None = None,
        config: ElectionConfig | None = None,
    ) -> None:
        self.random = Random(f"electionwalk/{seed}")
        self.now = 0.0
        self.config = config or HASTY
        self.faults = faults or Faults()
        self.copies = copies
        self.strict = strict
        self.encoded = encoded
        self.crash_after = crash_after
        self.effects = 0
        self.counts: dict[str, int] = {}
        self._log: list[tuple[float, str, str, object]] = []
        self.jobs_left = jobs
        self.serial = 0
        self.links: dict[tuple[NodeId, NodeId], deque[Message]] = {}
        self.cuts: set[frozenset[NodeId]] = set()
        self.model = Model(self)
        self.nodes = {id: Node(id) for id in (NodeId(bytes([65 + n]) * NODE_ID_BYTES) for n in range(nodes))}
        for node in self.nodes.values():
            self._start(node)
        for node in self.nodes.values():
            for other in self.nodes.values():
                self._tell_truth(node, other)

    def note(self, who: object, what: str, thing: object = "") -> None:
        """Remember for the story; told only when something is wrong."""
        self._log.append((self.now, str(who), what, thing))

    @property
    def log(self) -> list[str]:
        """What happened."""
        return [f"{now:.3f} {who} {what} {thing}" for now, who, what, thing in self._log]

    # --- the two phases -----------------------------------------------------------------------------------------------

    def run(self, steps: int, *, liveness: bool = True) -> None:
        """A safety phase of so many steps, then a liveness phase."""
        self._begin()
        for _ in range(steps):
            self._one(self.faults)
        if liveness:
            self._calm()

    def _begin(self) -> None:
        """A first job is created and led, mostly."""
        if self.faults.create:
            self._create(self.random.choice(self._up()))
            for _ in range(self.random.choice((0, 100, 100, 100))):
                if not self._busy():
                    break
                self._one(CALM)

    def _calm(self) -> None:
        """Nothing more goes wrong among some nodes; the rest are gone for good."""
        self.note("--", "nothing more goes wrong")
        healthy = self._choose_healthy()
        self.crash_after = None
        for node in self.nodes.values():
            if node.id not in healthy and node.core is not None:
                self._crash(node)
            node.full = False
        self.cuts.clear()
        for node in self.nodes.values():
            if node.id in healthy and node.core is None:
                self._start(node)
        for node in self._up():
            for other in self.nodes.values():
                self._tell_truth(node, other)
        for _ in range(LIVENESS_STEPS_MAX):
            if self.model.settled():
                break
            self._one(CALM)
            if not self._busy():
                self._conclude_business()
        else:
            raise Violated(f"liveness: {self.model.unsettled()}")
        self.model.check_end()

    def _choose_healthy(self) -> set[NodeId]:
        """Some nodes with which every job has a quorum in the latest replica set that anybody knows."""
        ids = list(self.nodes)
        self.random.shuffle(ids)
        count = self.random.randint(1, len(ids))
        while not self.model.can_go_on(set(ids[:count])):
            count += 1
        return set(ids[:count])

    def _conclude_business(self) -> None:
        """Every leader proposes what is left to be proposed."""
        for node in self._up():
            for job in list(node.led):
                for cell in CELLS:
                    if job in node.led and cell not in node.led[job].proposed:
                        self._append(node, job)
                        if job in node.led:
                            self._propose(node, job, cell)

    def _one(self, faults: Faults) -> None:
        """One thing happens."""
        choices: list[tuple[float, str, Callable[[], None]]] = []
        if links := [key for key, queue in self.links.items() if queue]:
            choices.append((100.0, "deliver", lambda: self._deliver(links)))
        up = self._up()
        if writing := [node for node in up if node.writes]:
            choices.append((60.0, "persist", lambda: self._persist(self.random.choice(writing))))
        if asked := [node for node in up if node.loads or node.asked]:
            choices.append((60.0, "answer", lambda: self._answer(self.random.choice(asked))))
        if not choices or self.random.random() < LOOK:
            # costly to find out, so looked at now and then, with more weight
            if wrong := [(a, b) for a in up for b in self.nodes.values() if a.told.get(b.id) != self._truth(a, b)]:
                choices.append((15.0 / LOOK, "gossip", lambda: self._tell_truth(*self.random.choice(wrong))))
            if (when := min((n.core.deadline() for n in up if n.core), default=math.inf)) < math.inf:
                choices.append((faults.time / LOOK if choices else 100.0, "tick", lambda: self._tick(when)))
        choices += self._work_choices(faults, up)
        choices += self._fault_choices(faults, up)
        choices = [c for c in choices if c[0] > 0]
        if not choices:
            return
        _, word, act = self.random.choices(choices, [c[0] for c in choices])[0]
        self.counts[word] = self.counts.get(word, 0) + 1
        act()

    def _work_choices(self, faults: Faults, up: list[Node]) -> list[tuple[float, str, Callable[[], None]]]:
        choices: list[tuple[float, str, Callable[[], None]]] = []
        if self.jobs_left and up:
            choices.append((faults.create, "create", lambda: self._create(self.random.choice(up))))
        if leading := [(node, job) for node in up for job in node.led]:

            def pick() -> tuple[Node, JobId]:
                return self.random.choice(leading)

            choices += [
                (faults.append, "append", lambda: self._append(*pick())),
                (faults.propose, "propose", lambda: self._propose(*pick(), self.random.choice(CELLS))),
                (faults.conclude, "conclude", lambda: self._conclude(*pick())),
                (faults.hand_over, "hand over", lambda: self._step(pick()[0], events.HandOver())),
            ]
        return choices

    def _fault_choices(self, faults: Faults, up: list[Node]) -> list[tuple[float, str, Callable[[], None]]]:
        choices: list[tuple[float, str, Callable[[], None]]] = []
        if down := [node for node in self.nodes.values() if node.core is None]:
            choices.append((faults.back, "back", lambda: self._start(self.random.choice(down))))
        if up:
            choices += [
                (faults.crash, "crash", lambda: self._crash(self._one_of(up, [n for n in up if n.writes]))),
                (faults.disk_full, "disk full", lambda: self._fill(self.random.choice(up))),
                (faults.woke, "woke", lambda: self._step(self.random.choice(up), events.Woke(lost_s=1.0))),
            ]
        if len(up) > 1:
            choices += [
                (faults.unlink, "unlink", lambda: self._break(up)),
                (faults.cut, "cut", lambda: self._cut(self.random.sample(up, self.random.randint(1, len(up) - 1)))),
                (faults.false_death, "false death", lambda: self._mistake(up)),
                (faults.doubt, "doubt", lambda: self._tell("doubtful", *self.random.sample(up, 2))),
            ]
        if self.cuts:
            choices.append((faults.heal, "heal", self._heal))
        return choices

    def _up(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.core is not None]

    def _busy(self) -> bool:
        return any(self.links.values()) or any(node.writes or node.loads or node.asked for node in self._up())

    # --- cores --------------------------------------------------------------------------------------------------------

    def _start(self, node: Node) -> None:
        node.boot += 1
        node.full = False
        node.core = ElectionCore(
            me=node.id,
            boot=Boot(node.boot),
            name=str(node),
            config=self.config,
            rng=Random(self.random.random()),
            now=self.now,
            stored=node.disk.stored(),
        )
        self.note(node, "starts, boot", node.boot)

    def _crash(self, node: Node) -> None:
        """What was being written is lost; of what it sent, some may have arrived."""
        self.note(node, "crashes")
        node.core = None
        node.writes.clear()
        node.loads.clear()
        node.asked.clear()
        node.led.clear()
        node.told.clear()
        for other in self.nodes.values():
            if other is not node:
                self._unlink(node, other)
                self.links.pop((other.id, node.id), None)

    def _step(self, node: Node, event: events.ElectionEvent) -> None:
        core = node.core
        assert core is not None, "the dead do nothing"
        self.note(node, "<", event)
        effects = core.step(self.now, event)
        core.check_invariants()
        if len(effects) > STEP_EFFECTS_MAX:
            raise Violated(f"bounded: {len(effects)} effects of one step")
        for effect in effects:
            self.note(node, ">", effect)
            self._perform(node, effect)
            self.effects += 1
            if self.effects == self.crash_after:
                self._crash(node)
                return

    def _perform(self, node: Node, effect: events.ElectionEffect) -> None:  # noqa: C901  (one branch an effect)
        match effect:
            case events.ToReplica(node=to, message=message):
                self._send(node, self.nodes[to], message)
            case events.Persist():
                node.writes.append(effect)
            case events.LoadBatches():
                node.loads.append(effect)
            case events.Bring(job=job):
                node.asked.append(events.Brought(job=job))
            case events.Lead():
                self.model.leads(node, effect)
                node.led[effect.job] = Led(effect.ballot, list(effect.history), len(effect.history))
            case events.Deposed(job=job):
                if job not in node.led:
                    raise Violated("roles: deposed, but it did not lead")
                del node.led[job]
            case events.Decided():
                self.model.decides(node, effect)
            case events.Protected():
                self.model.protects(node, effect)
            case events.Created():
                self.model.created.add(effect.job)
            case events.Forked():
                self.model.forks(effect)
            case events.Concluded():
                self.model.concludes(node, effect)
            case _:
                pass

    def _send(self, node: Node, to: Node, message: Message) -> None:
        if to is node:
            raise Violated("addressing: a node sends to itself")
        if to.core is None or frozenset((node.id, to.id)) in self.cuts:
            return
        if self.encoded:
            message = LINK.decode(LINK.encode(message))
        self.model.sent(node, message)
        self.links.setdefault((node.id, to.id), deque()).append(message)

    def _deliver(self, links: list[tuple[NodeId, NodeId]]) -> None:
        sender, to = self.random.choice(links)
        for _ in range(self.random.choice((1, 1, 1, 2, 5))):
            if queue := self.links.get((sender, to)):
                self._step(self.nodes[to], events.FromReplica(node=sender, message=queue.popleft()))

    def _persist(self, node: Node) -> None:
        write = node.writes.popleft()
        if node.full:
            self._step(node, events.PersistFailed(token=write.token, text="The disk is full."))
            node.full = self.random.random() < 0.5
        else:
            node.disk.write(write.records)
            self.model.wrote(node, write.records)
            self._step(node, events.Persisted(token=write.token))

    def _answer(self, node: Node) -> None:
        if node.loads and (not node.asked or self.random.random() < 0.7):
            load = node.loads.popleft()
            self._step(node, events.BatchesLoaded(token=load.token, batches=node.disk.beyond(load)))
        else:
            self._step(node, node.asked.popleft())

    def _tick(self, when: float) -> None:
        self.now = max(self.now, when)
        for node in self._up():
            if node.core is not None and node.core.deadline() <= self.now:
                self._step(node, events.Tick())
                if node.core is not None and node.core.deadline() <= self.now:
                    raise Violated("time: a tick does not move the deadline")

    # --- work ---------------------------------------------------------------------------------------------------------

    def _create(self, node: Node) -> None:
        self.jobs_left -= 1
        self.serial += 1
        others = [id for id, (state, _) in node.told.items() if state == "seen"]
        self.random.shuffle(others)
        members = (node.id, *others[: self.copies - 1])
        key = b"key-%d" % self.serial
        job = JobId((b"job%d" % self.serial).ljust(JOB_ID_BYTES, b"."))
        self._step(
            node,
            events.CreateJob(
                request=self.serial,
                job=job,
                members=members,
                key=key,
                spec=b"spec",
                strict=self.strict,
                copies=self.copies,
            ),
        )

    def _append(self, node: Node, job: JobId) -> None:
        led = node.led[job]
        for _ in range(self.random.choice((1, 1, 3))):
            self.serial += 1
            batch = b"%d by %s" % (self.serial, str(node).encode())
            led.facts.append(batch)
            self._step(node, events.Append(job=job, batch=batch))
            if job not in node.led:
                return

    def _propose(self, node: Node, job: JobId, cell: str) -> None:
        led = node.led[job]
        if cell not in led.proposed:
            led.proposed[cell] = self.model.pin(led.facts)
            self._step(node, events.Propose(job=job, cell=cell, value=led.proposed[cell]))

    def _conclude(self, node: Node, job: JobId) -> None:
        """Only what was decided ends a job."""
        if (job, "end") in self.model.decided:
            self._step(node, events.Conclude(job=job, view=self.model.decided[job, "end"]))
        else:
            self._propose(node, job, "end")

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def _fill(self, node: Node) -> None:
        node.full = True

    def _one_of(self, any_of: list[Node], rather: list[Node]) -> Node:
        """Where it hurts most, or anywhere."""
        return self.random.choice(rather if rather and self.random.random() < 0.7 else any_of)

    def _mistake(self, up: list[Node]) -> None:
        """Somebody is taken for dead who is not: a leader, rather."""
        other = self._one_of(up, [node for node in up if node.led])
        self._tell("gone", self.random.choice([node for node in up if node is not other]), other)

    def _break(self, up: list[Node]) -> None:
        """A link breaks: one with something on it, rather."""
        one = self._one_of(up, [node for node in up if any(q for k, q in self.links.items() if node.id in k)])
        self._unlink(one, self.random.choice([node for node in up if node is not one]))

    def _unlink(self, one: Node, other: Node) -> None:
        """The end of what was under way is lost, in both directions."""
        for key in ((one.id, other.id), (other.id, one.id)):
            queue = self.links.get(key)
            while queue and self.random.random() < 0.7:
                queue.pop()
        for node, peer in ((one, other), (other, one)):
            if node.core is not None:
                self._step(node, events.PeerUnlinked(node=peer.id))

    def _cut(self, side: list[Node]) -> None:
        """These nodes and the others cannot talk."""
        for one in side:
            for other in self.nodes.values():
                if other not in side:
                    self.cuts.add(frozenset((one.id, other.id)))
                    self._unlink(one, other)

    def _heal(self) -> None:
        if self.random.random() < 0.5:
            self.cuts.clear()
        else:
            self.cuts.remove(self.random.choice(sorted(self.cuts, key=sorted)))

    def _truth(self, node: Node, other: Node) -> tuple[str, int] | None:
        if node is other or (other.core is None and other.boot == 0):
            return node.told.get(other.id)
        if other.core is None or frozenset((node.id, other.id)) in self.cuts:
            known = node.told.get(other.id)
            return known and ("gone", known[1])
        return ("seen", other.boot)

    def _tell_truth(self, node: Node, other: Node) -> None:
        truth = self._truth(node, other)
        if node.core is None or truth is None or truth == node.told.get(other.id):
            return
        node.told[other.id] = truth
        if truth[0] == "seen":
            self._step(node, events.PeerSeen(node=other.id, boot=Boot(other.boot)))
        else:
            certain = other.core is None and self.random.random() < 0.7
            self._step(node, events.PeerGone(node=other.id, certain=certain))

    def _tell(self, state: str, node: Node, other: Node) -> None:
        known = node.told.get(other.id)
        if known is None or known[0] == "gone":
            return
        node.told[other.id] = (state, known[1])
        gone = state == "gone"
        self._step(node, events.PeerGone(node=other.id) if gone else events.PeerDoubtful(node=other.id))


class Model:
    """What must hold, from events and messages alone."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self.created: set[JobId] = set()
        self.decided: dict[tuple[JobId, str], bytes] = {}
        self.over: dict[JobId, bytes] = {}
        self._first: dict[JobId, tuple[NodeId, ...]] = {}
        self._leaders: dict[tuple[JobId, int, int], NodeId] = {}
        self._ballots: set[tuple[JobId, Ballot]] = set()
        self._protected: dict[JobId, list[bytes]] = {}
        self._pins: dict[bytes, list[bytes]] = {}
        self._sets: dict[tuple[JobId, int], tuple[NodeId, ...]] = {}
        self._accepts: dict[tuple[JobId, str, Ballot], tuple[bytes, set[NodeId]]] = {}
        self._promised: dict[tuple[NodeId, JobId], Ballot] = {}
        self.takeovers = 0
        self.changes = 0
        self.forked: dict[JobId, JobId] = {}
        self.homecomings: set[JobId] = set()

    def pin(self, facts: list[bytes]) -> bytes:
        """A manifest: a value that stands for exactly these facts in this order."""
        value = b"pin %d" % len(self._pins)
        self._pins[value] = list(facts)
        return value

    # --- what is seen -------------------------------------------------------------------------------------------------

    def wrote(self, node: Node, records: tuple[StoredRecord, ...]) -> None:
        """Records are on a node's disk: only now do they count."""
        for record in records:
            if isinstance(record, JobRecord) and not record.gone:
                key = (record.job, record.promised.epoch)
                if self._sets.setdefault(key, record.members) != record.members:
                    raise Violated("replica sets: an epoch has two")
            elif isinstance(record, CellRecord) and not record.chosen:
                self._accepted(node, record)

    def _accepted(self, node: Node, record: CellRecord) -> None:
        """What a quorum has accepted under one ballot is chosen, whether anybody knows it or not."""
        key = (record.job, record.cell, record.ballot)
        value, acceptors = self._accepts.setdefault(key, (record.value, set()))
        if value != record.value:
            raise Violated("one value a ballot: a leader proposed two for one cell")
        acceptors.add(node.id)
        members = self._sets.get((record.job, record.ballot.epoch), ())
        if is_quorum(members, acceptors):
            self._decide(record.job, record.cell, value)

    def _check_spoken(self, node: Node, message: Message) -> None:
        """Nothing is said that a crash could make untrue."""
        disk = node.disk
        true = True
        match message:
            case messages.Promise(job=job, ballot=ballot) | messages.Prepare(job=job, ballot=ballot):
                true = job in disk.jobs and disk.jobs[job].promised >= ballot
                if isinstance(message, messages.Promise):
                    self._promised[node.id, job] = max(ballot, self._promised.get((node.id, job), ballot))
            case messages.Accepted(job=job, ballot=ballot, cell=cell):
                record = disk.cells.get((job, cell))
                true = record is not None and (record.ballot == ballot or record.chosen)
                if self._promised.get((node.id, job), ballot) > ballot:
                    raise Violated("promises: a value is accepted below a promise")
            case messages.JobStored(job=job):
                true = job in disk.jobs
            case messages.Heard(acks=acks):
                for ack in acks:
                    held = disk.batches.get(ack.job, {})
                    true = true and (ack.serial is None or (ack.ballot, ack.serial) in held)
                    if ack.serial is not None and self._promised.get((node.id, ack.job), ack.ballot) > ack.ballot:
                        raise Violated("promises: facts are acknowledged below a promise")
            case _:
                pass
        if not true:
            raise Violated(f"persist before you speak: {type(message).__name__}")

    def sent(self, node: Node, message: Message) -> None:
        """A message leaves a node."""
        self._check_spoken(node, message)
        if isinstance(message, messages.StoreJob) and message.record.promised.epoch == 0:
            record = message.record
            if self._first.setdefault(record.job, record.members) != record.members:
                raise Violated("first replica set: one job id has two")

    def leads(self, node: Node, lead: events.Lead) -> None:
        """A node leads a job from now on."""
        job, ballot = lead.job, lead.ballot
        if ballot.node != node.id:
            raise Violated("leaders: somebody leads under another's ballot")
        if job in node.led:
            raise Violated("roles: leads twice at once")
        if (job, ballot) in self._ballots:
            raise Violated("leaders: a ballot is used twice")
        self._ballots.add((job, ballot))
        if self._leaders.setdefault((job, ballot.epoch, ballot.n), node.id) != node.id:
            raise Violated("leaders: two of one (epoch, n)")
        self.takeovers += ballot.n > 0 and ballot.epoch == 0
        self.changes += ballot.epoch > 0
        protected = self._protected.get(job, [])
        if list(lead.history[: len(protected)]) != protected:
            raise Violated("protected: a leader's history does not begin with what was protected before")
        if len(set(lead.history)) != len(lead.history) and job not in self.forked.values():
            raise Violated("history: a batch is applied twice")
        for cell, value in lead.decided.items():
            self._decide(job, cell, value)
            self._check_pin(cell, value, list(lead.history))
        for (of, cell), value in self.decided.items():
            if of == job:
                self._check_pin(cell, value, list(lead.history))

    def forks(self, effect: events.Forked) -> None:
        """A fork is opened."""
        if self._walk.strict:
            raise Violated("strict: a strict job was forked")
        if effect.job in self.forked:
            raise Violated("forks: opened twice")
        self.forked[effect.job] = effect.origin

    def protects(self, node: Node, effect: events.Protected) -> None:
        """A leader hears that facts are protected."""
        led = node.led.get(effect.job)
        if led is None:
            raise Violated("roles: facts of a job that is not led here are protected")
        facts = led.facts[: led.began + effect.serial]
        if len(facts) != led.began + effect.serial:
            raise Violated("protected: more than was appended")
        known = self._protected.get(effect.job, [])
        short = min(len(known), len(facts))
        if known[:short] != facts[:short]:
            raise Violated("protected: two leaders' facts are protected in different order")
        if len(facts) > len(known):
            self._protected[effect.job] = facts

    def decides(self, node: Node, effect: events.Decided) -> None:
        """A node says that a cell is decided; where it is the first to know, what the value speaks of is protected."""
        news = (effect.job, effect.cell) not in self.decided
        self._decide(effect.job, effect.cell, effect.value)
        if news and effect.job in node.led:
            self._check_pin(effect.cell, effect.value, self._protected.get(effect.job, []))

    def _decide(self, job: JobId, cell: str, value: bytes) -> None:
        if self.decided.setdefault((job, cell), value) != value:
            raise Violated(f"one value a cell: {cell} is decided twice")

    def _check_pin(self, cell: str, value: bytes, facts: list[bytes]) -> None:
        pinned = self._pins.get(value)
        if pinned is not None and facts[: len(pinned)] != pinned:
            raise Violated(f"pin: what {cell} was decided on is not reproduced")

    def concludes(self, node: Node, effect: events.Concluded) -> None:
        """A replica says that a job is over."""
        if self.over.setdefault(effect.job, effect.view) != effect.view:
            raise Violated("one end: a job is over in two ways")

    # --- the liveness phase -------------------------------------------------------------------------------------------

    def _disks(self) -> dict[JobId, list[JobRecord]]:
        found: dict[JobId, list[JobRecord]] = {}
        for node in self._walk.nodes.values():
            for record in node.disk.jobs.values():
                found.setdefault(record.job, []).append(record)
        return found

    def can_go_on(self, healthy: set[NodeId]) -> bool:
        """Whether these nodes have a quorum of each job that exists."""
        for records in self._disks().values():
            for members in {record.members for record in records}:
                alive = [member for member in members if member in healthy]
                if 2 * len(alive) <= len(members) and (2 * len(alive) < len(members) or members[0] not in healthy):
                    return False
        return True

    def _active(self, node: Node, job: JobId) -> bool:
        record = node.disk.jobs.get(job)
        return record is not None and not record.view and not record.gone

    def unsettled(self) -> str:
        """What is not brought to its end; "" where all is."""
        walk = self._walk
        up = {node.id: node for node in walk._up()}
        disks = self._disks()
        for job in sorted(self.created):
            if job not in disks:
                return f"{job!r} was acknowledged and is lost"
        for fork, origin in self.forked.items():
            if fork in self.over:
                continue
            at = [node for node in up.values() if self._active(node, fork)]
            if any(self._active(node, origin) for node in at):
                return f"the fork {fork!r} of {origin!r} is not home"
            if not at:
                self.homecomings.add(fork)
        for job in sorted(disks):
            if job in self.over or job in self.homecomings or not any(job in node.disk.jobs for node in up.values()):
                continue
            if text := self._unsettled_job(job, [node for node in up.values() if job in node.led]):
                return text
        return ""

    def _unsettled_job(self, job: JobId, leaders: list[Node]) -> str:
        if len(leaders) != 1:
            return f"{job!r} has {len(leaders)} leaders"
        led, core = leaders[0].led[job], leaders[0].core
        assert core is not None, "it is up"
        if any(cell not in led.proposed for cell in CELLS):
            return f"{job!r}: nothing more is proposed"
        if any((job, cell) not in self.decided for cell in CELLS):
            return f"{job!r}: something is not decided"
        state = core.job(job)
        known = state.decided if state is not None else ()
        if any(cell not in known for cell in CELLS):
            return f"{job!r}: its leader does not know all that is decided"
        if len(self._protected.get(job, [])) != len(led.facts):
            return f"facts of {job!r} are not protected"
        return ""

    def settled(self) -> bool:
        """Whether everything is at its end."""
        return not self._walk._busy() and not self.unsettled()

    def check_end(self) -> None:
        """After the liveness phase: what is promised of every decided cell."""
        for (job, cell), value in self.decided.items():
            if job in self.forked:
                continue  # its last leader was stopped before it heard everything
            self._check_pin(cell, value, self._protected.get(job, []) if job not in self.over else self._pins[value])
