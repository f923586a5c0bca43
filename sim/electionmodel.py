"""What the cores of the election room promise, checked from their messages, their effects and their disks alone.

The model knows nothing of how the cores work. Every check has a name, which begins the text of `Violated`:

===================== ==================================================================================================
first replica set     a job id has one
replica sets          so has every epoch of a job
leaders               one a ballot, one ballot for each (epoch, n), no ballot used twice
one value a cell      what a quorum's disks say was accepted under one ballot is chosen, whether anybody knows or not
one value a ballot    a leader proposes one
promises              nothing is accepted or acknowledged below a promise
persist before ...    what a message says is on its sender's disk
protected             a later leader's history begins with it, in the same order
held                  what a quorum's disks hold before anybody leads under a higher ballot is in every later history
based                 a leader's tasks have what the base of its stream says, in the order in which a successor reads it
pin                   what a decided manifest speaks of is the beginning of every later history
strict                a strict job is never forked
liveness              what was begun is brought to its end, once nothing more goes wrong
===================== ==================================================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from p2premap.election import events, messages
from p2premap.election.config import Config, is_config
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
from p2premap.election.streams import Streams, in_order
from p2premap.ids import Ballot, Boot, JobId, NodeId
from p2premap.wire import Message

WORDS = (messages.Prepare, messages.Promise, messages.Accepted, messages.JobStored, messages.Heard)
"""By these a replica gives its word, and must keep it."""

NEVER = Boot(0)

CELLS = ("m0", "m1", "end")
"""What every leader proposes, sooner or later: so that what is decided by one and forgotten is decided otherwise."""


class Violated(AssertionError):
    """The cores broke a promise. The text begins with the name of the check."""


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

    def copy(self) -> Disk:
        """An image of it."""
        image = Disk()
        image.jobs, image.cells = dict(self.jobs), dict(self.cells)
        image.batches = {job: dict(batches) for job, batches in self.batches.items()}
        return image

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
    boot: Boot = NEVER
    former: tuple[Boot, ...] = ()
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
    images: list[tuple[tuple[Boot, ...], Disk]] = field(default_factory=list)
    """What it remembered before each start: its boots, and its disk."""
    spoke: Boot = NEVER
    """The last life in which it has given its word."""
    restored: bool = False
    """Its disk was set back."""

    def __str__(self) -> str:
        return chr(self.id[0])


def _boot_in(record: JobRecord, node: NodeId) -> int:
    return dict(zip(record.members, record.boots, strict=False)).get(node, 0)


class Model:
    """What must hold. See the module.

    Args:
        nodes: of the walk.
        strict: its jobs are.
    """

    def __init__(self, nodes: Mapping[NodeId, Node], *, strict: bool) -> None:
        self._nodes = nodes
        self._strict = strict
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
        self._holders: dict[tuple[JobId, Ballot, int], set[NodeId]] = {}
        self._held: dict[tuple[JobId, int], set[bytes]] = {}
        """Facts that a quorum holds, by job and epoch."""
        self._begun: dict[JobId, Ballot] = {}
        self._based: set[tuple[JobId, Ballot]] = set()
        self.takeovers = 0
        self.changes = 0
        self._epochs: set[tuple[JobId, int]] = set()
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
            elif isinstance(record, StoredBatch):
                self._stored(node, record)

    def _stored(self, node: Node, record: StoredBatch) -> None:
        """What a quorum holds while nobody has begun to lead under a higher ballot is safe, told or not."""
        job, ballot = record.job, record.ballot
        if record.serial == 0:
            self._begun[job] = max(ballot, self._begun.get(job, ballot))
            return
        holders = self._holders.setdefault((job, ballot, record.serial), set())
        holders.add(node.id)
        if ballot == self._begun.get(job) and is_quorum(self._sets.get((job, ballot.epoch), ()), holders):
            self._held.setdefault((job, ballot.epoch), set()).add(record.batch)

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
        if isinstance(message, WORDS):
            node.spoke = node.boot
        match message:
            case messages.Promise(job=job, ballot=ballot) | messages.Prepare(job=job, ballot=ballot):
                if ballot.epoch and (job, ballot.epoch) not in self._epochs:
                    self._epochs.add((job, ballot.epoch))
                    self.changes += 1
                true = job in disk.jobs and disk.jobs[job].promised >= ballot
                if isinstance(message, messages.Promise):
                    self._promised[node.id, job] = max(ballot, self._promised.get((node.id, job), ballot))
            case messages.Accepted(job=job, ballot=ballot, cell=cell):
                record = disk.cells.get((job, cell))
                over = job in disk.jobs and (disk.jobs[job].view or disk.jobs[job].gone)
                true = bool(over) or (record is not None and (record.ballot >= ballot or record.chosen))
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
        protected = self._protected.get(job, [])
        if list(lead.history[: len(protected)]) != protected:
            raise Violated("protected: a leader's history does not begin with what was protected before")
        if not self._held.get((job, ballot.epoch), set()) <= set(lead.history) and not self._set_back():
            raise Violated("held: a leader's history lacks what a quorum holds")
        if len(set(lead.history)) != len(lead.history) and job not in self.forked.values():
            raise Violated("history: a batch is applied twice")
        for cell, value in lead.decided.items():
            self._decide(job, cell, value)
            self._check_pin(cell, value, list(lead.history))
        for (of, cell), value in self.decided.items():
            if of == job:
                self._check_pin(cell, value, list(lead.history))

    def _set_back(self) -> bool:
        return any(node.restored for node in self._nodes.values())

    def forks(self, effect: events.Forked) -> None:
        """A fork is opened."""
        if self._strict:
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
        self._check_base(node, effect.job, led)
        known = self._protected.get(effect.job, [])
        short = min(len(known), len(facts))
        if known[:short] != facts[:short]:
            raise Violated("protected: two leaders' facts are protected in different order")
        if len(facts) > len(known):
            self._protected[effect.job] = facts

    def _check_base(self, node: Node, job: JobId, led: Led) -> None:
        """Tasks that went on through a change of the replica set too; once for each stream."""
        batches = node.disk.batches[job]
        ballot = max(ballot for ballot, _ in batches if ballot.node == node.id)
        if (job, ballot) in self._based:
            return
        self._based.add((job, ballot))
        streams = Streams()
        for of, serial in sorted(batches):
            streams.take(of, serial, batches[of, serial].batch)
        base = list(in_order(streams.fold(streams.base(ballot)), batches.values()))
        if led.facts[: len(base)] != base:
            raise Violated("based: a leader's tasks go on from something else than the base of its stream")

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
        for node in self._nodes.values():
            for record in node.disk.jobs.values():
                found.setdefault(record.job, []).append(record)
        return found

    def can_go_on(self, healthy: set[NodeId]) -> bool:
        """Whether these nodes have a quorum of each job that exists, in the newest replica set that they know of and
        in those that may follow it. Who has forgotten something does not count."""
        return all(self._has_quorum(job, records, healthy) for job, records in self._disks().items())

    def _has_quorum(self, job: JobId, records: list[JobRecord], healthy: set[NodeId]) -> bool:
        held = [record for node in healthy if (record := self._nodes[node].disk.jobs.get(job)) is not None]
        newest = max((record.promised.epoch for record in held), default=-1)
        sets = {record.members for record in held if record.promised.epoch == newest}
        for node in healthy:
            cells = [cell for (of, _), cell in self._nodes[node].disk.cells.items() if of == job]
            sets |= {Config.decode(c.value).members for c in cells if is_config(c.cell) and c.ballot.epoch >= newest}
        sound = [node for node in healthy if not self._has_forgotten(node, records)]
        return bool(sets) and all(is_quorum(members, sound) for members in sets)

    def _has_forgotten(self, node: NodeId, records: list[JobRecord]) -> bool:
        """Whether somebody knows of a life of it that it has lost."""
        at = self._nodes[node]
        return at.restored and any(_boot_in(record, node) not in (0, at.boot, *at.former) for record in records)

    def old_image(self, node: Node) -> tuple[tuple[Boot, ...], Disk] | None:
        """What this machine may be set back to, with the boots that it remembers then; None where it must not be.

        No quorum of any job may depend on it, no other machine has been set back, and it has lost the whole life in
        which it last gave its word, of which all others know. What is left out here is not promised, see
        docs/decisions/0015-what-boot-counters-see.md.
        """
        if self._set_back():
            return None
        for job, records in self._disks().items():
            others = {other.id for other in self._nodes.values() if other is not node and job in other.disk.jobs}
            if not all(is_quorum(record.members, others.intersection(record.members)) for record in records):
                return None  # without this disk nobody could go on
        for other in self._nodes.values():
            if any(_boot_in(record, node.id) != node.spoke for record in other.disk.jobs.values() if other is not node):
                return None
        return next((image for image in reversed(node.images) if node.spoke not in image[0]), None)

    def _active(self, node: Node, job: JobId) -> bool:
        record = node.disk.jobs.get(job)
        return record is not None and not record.view and not record.gone

    def unsettled(self) -> str:
        """What is not brought to its end; "" where all is."""
        up = {node.id: node for node in self._nodes.values() if node.core is not None}
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

    def check_end(self) -> None:
        """After the liveness phase: what is promised of every decided cell."""
        for (job, cell), value in self.decided.items():
            if job in self.forked:
                continue  # its last leader was stopped before it heard everything
            self._check_pin(cell, value, self._protected.get(job, []) if job not in self.over else self._pins[value])
