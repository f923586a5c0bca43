"""A node's slots, and how the jobs that want them share them.

A slot runs one batch and has at most one more queued behind it. Of several jobs that want places, the highest priority
gets them; among equals each gets a fair share while the others want theirs. A job counts as wanting while it was
refused and has not come back, while it is invited, and for a moment after its own batch has ended (its leader's
next batch is on the way).

A place comes free by itself within a batch's time, a tenth of a second as a rule. A job that has waited for
`preempt_s` behind jobs of lower priority takes slots back from them, those that have run for the shortest time first:
one slot, and twice as many each time that it has to wait again, since nobody knows how many it could use.

Tasks that start all at once need their slots at the same time, on several nodes. Their leader reserves: slots are kept
idle for it, and those that are busy get nothing new. If two such jobs each kept half of what they need, neither would
ever start; so the older one of equal priority takes what the younger one was kept (wound-wait: Rosenkrantz, Stearns
and Lewis, 1978), and a reservation that is not renewed lapses after `reserve_s`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from p2premap.config import TasksConfig
from p2premap.ids import Ballot, Digest, JobId, NodeId
from p2premap.tasks.job import AttemptEnd, AttemptSpec, StageId
from p2premap.tasks.unheard import Unheard

PREEMPTED = "a job of higher priority took its place"


class Held(msgspec.Struct, eq=False):
    """One batch in a slot.

    Args:
        batch: its number.
        left: (task, attempt) of those that have not ended.
        since: when it came.
        unwanted: it is to be stopped as soon as it is at the head.
        silent: nobody wants to hear how it ends.
    """

    batch: int
    job: JobId
    stage: StageId
    left: dict[tuple[int, int], None]
    since: float
    unwanted: str = ""
    silent: bool = False


class Slot(msgspec.Struct):
    """One worker process's place. `queue[0]` runs; `last_job`: whose process is warm there.

    A process that stands aside has such a place of its own, beside the node's slots; `waits`: it runs nothing now.
    `kept_for`: the job of a reservation; the slot is given to no other of the same or lower priority.
    """

    number: int
    queue: deque[Held] = msgspec.field(default_factory=deque)
    last_job: JobId | None = None
    stopping: bool = False
    waits: bool = False
    kept_for: JobId | None = None


class Reservation(msgspec.Struct):
    """Slots that are kept for tasks that start all at once.

    Args:
        slots: wanted, beside those that the job has.
        submitted: when the job was, by this node's clock.
        since: when it was first asked for.
        until: it lapses then.
        told: how many were idle and kept when its leader was told last.
    """

    job: JobId
    slots: int
    priority: int
    submitted: float
    since: float
    until: float
    told: int = -1


class LedJob(msgspec.Struct):
    """A job that this node works for.

    Args:
        unheard: reports that the leader has not confirmed.
        ends: reports that wait for company until `report_at`.
        refused_until: it was refused, and will ask again by then at the latest.
        waits_since: when it was first refused of late; inf: it has what it wants.
        takes: slots that it takes back the next time that it has to.
        held_until: a place is held for it until then: it was invited, or its own batch has just ended.
        places: batches that it has in slots.
        former: names of the job before it was forked, under which its processes may have been started.
        used: when its leader or its attempts were last heard of.
        orphan_until: its leader is dead: without a word from that one or a successor, it is forgotten then.
        awaits: the environment for which it was refused.
    """

    job: JobId
    leader: NodeId
    ballot: Ballot
    priority: int
    unheard: Unheard
    stage: StageId
    ends: dict[StageId, list[AttemptEnd]] = msgspec.field(default_factory=dict)
    report_at: float = math.inf
    refused_until: float = -math.inf
    waits_since: float = math.inf
    takes: int = 1
    held_until: float = -math.inf
    places: int = 0
    former: tuple[JobId, ...] = ()
    used: float = 0.0
    answers: int = 0
    forgotten: bool = False
    orphan_until: float = math.inf
    awaits: Digest | None = None

    def refuse(self, now: float, until: float) -> None:
        """It gets no place now, and will ask again."""
        if self.refused_until <= now:
            self.waits_since = now
        self.refused_until = until

    def serve(self) -> None:
        """It has got a place."""
        self.refused_until, self.waits_since = -math.inf, math.inf

    @property
    def orphaned(self) -> bool:
        """Whether nobody leads it, as far as is known."""
        return self.orphan_until < math.inf

    def competes(self, now: float) -> bool:
        """Whether it would take a place now, as far as is known."""
        waits = self.refused_until > now or self.held_until > now
        return waits and not self.forgotten and not self.orphaned


class Shares:
    """The slots, and the jobs that this node works for.

    Args:
        slots: worker processes that the owner allows.
        config: intervals and limits.
    """

    def __init__(self, slots: int, config: TasksConfig) -> None:
        self.allowed = slots
        self.slots = [Slot(n) for n in range(slots)]
        self.aside: dict[int, Slot] = {}
        """Attempts that wait for other tasks, or have done so, by the number of their batch."""
        self.jobs: dict[JobId, LedJob] = {}
        self.reservations: dict[JobId, Reservation] = {}
        self._keeps = False
        self._config = config

    def resize(self, slots: int) -> None:
        """The owner allows so many from now on; those beyond end what they have."""
        self.allowed = slots
        for number in range(len(self.slots), slots):
            self.slots.append(Slot(number))
        self.trim()

    def trim(self) -> None:
        """Drop slots that are beyond what is allowed and have nothing to do."""
        while len(self.slots) > self.allowed and not self.slots[-1].queue:
            self.slots.pop()

    def everywhere(self) -> Iterator[Slot]:
        """The slots, and what stands aside."""
        yield from self.slots
        yield from self.aside.values()

    def step_aside(self, slot: Slot) -> None:
        """What the slot runs waits for other tasks: it makes room."""
        held = slot.queue.popleft()
        self.aside[held.batch] = Slot(slot.number, deque([held]), stopping=slot.stopping, waits=True)
        slot.stopping = False
        self.trim()

    def rename(self, led: LedJob, job: JobId) -> None:
        """The job has another name from now on."""
        former = led.job
        led.former = (*led.former, former)
        led.job = job
        self.jobs[job] = self.jobs.pop(former)
        for slot in self.everywhere():
            if slot.last_job == former:
                slot.last_job = job
            for held in slot.queue:
                if held.job == former:
                    held.job = job

    def place(self, led: LedJob) -> Slot | None:
        """The slot for the job's next batch: the emptiest, best one whose process is the job's; None: all are full."""
        if not self._free():
            return None
        open_slots = [s for s in self.slots[: self.allowed] if self._open_for(s, led)]
        return min(open_slots, key=lambda s: (len(s.queue), s.last_job != led.job, s.number), default=None)

    def free_for(self, now: float, led: LedJob) -> int:
        """How many further batches of this job would be taken now."""
        if led.job in self.reservations:
            return self.idle_kept(led.job)
        free = self._free(led)
        rivals = [j for j in self.jobs.values() if j is not led and j.competes(now) and j.priority >= led.priority]
        if not free or not rivals:
            return free
        if any(j.priority > led.priority for j in rivals):
            return 0
        present = sum(1 for j in self.jobs.values() if j.priority == led.priority and (j.places or j.competes(now)))
        share = -(-self.allowed * self._config.queue_batches // max(2, present + (not led.places)))
        if all(j.places >= share for j in rivals):
            return free
        return max(0, min(free, share - led.places))

    def invited(self, now: float) -> list[tuple[LedJob, int]]:
        """Jobs that were refused and for which there is a place now, which is held for them; and how many."""
        refused = [j for j in self.jobs.values() if j.refused_until > now and j.held_until <= now and not j.orphaned]
        if not refused or not self._free():
            return []
        invited = []
        for led in sorted(refused, key=lambda j: (-j.priority, j.places, j.job)):
            if free := self.free_for(now, led):
                led.refused_until, led.held_until = -math.inf, now + self._config.hold_s
                invited.append((led, free))
        return invited

    def invite_at(self, now: float) -> float:
        """When somebody who waits may be invited because a place that is held for somebody else lapses."""
        if not any(j.refused_until > now for j in self.jobs.values()) or not self._free():
            return math.inf
        ends = (t for j in self.jobs.values() for t in (j.refused_until, j.held_until))
        return min((t for t in ends if t > now), default=math.inf)

    def take_back(self, now: float) -> list[Slot]:
        """Mark what must go for jobs of higher priority that have waited long enough; its slots."""
        marked: dict[int, Slot] = {}
        if len(self.jobs) < 2:
            return []
        for led in sorted(self._waiting(now), key=lambda j: (-j.priority, j.waits_since, j.job)):
            if self._may_take_at(led) > now or self.free_for(now, led):
                continue
            victims = self._beneath(led)
            if victims and not any(h.unwanted == PREEMPTED for slot in self.slots for h in slot.queue):
                marked |= {slot.number: slot for slot in victims[: led.takes]}
                led.takes = min(2 * led.takes, max(1, len(self.slots)))
                for slot in marked.values():
                    self._mark(slot, led.priority)
        for wanted in self.reservations.values():
            if wanted.since + self._config.preempt_s <= now:
                for slot in self.slots:
                    lower = slot.queue and self.jobs[slot.queue[0].job].priority < wanted.priority
                    if slot.kept_for == wanted.job and lower and not slot.queue[0].unwanted:
                        self._mark(slot, wanted.priority)
                        marked[slot.number] = slot
        for slot, behind in self._stuck():
            if now - behind.since >= self._config.preempt_s and not (slot.queue[0].unwanted or behind.unwanted):
                self._mark(slot, self.jobs[behind.job].priority)
                marked[slot.number] = slot
        return list(marked.values())

    def take_back_at(self, now: float) -> float:
        """When a job that waits may take slots back."""
        if len(self.jobs) < 2:
            return math.inf
        times = [self._may_take_at(led) for led in self._waiting(now)]
        times += [behind.since + self._config.preempt_s for _, behind in self._stuck()]
        times += [wanted.since + self._config.preempt_s for wanted in self.reservations.values()]
        return min((t for t in times if t > now), default=math.inf)

    def _waiting(self, now: float) -> list[LedJob]:
        return [j for j in self.jobs.values() if j.refused_until > now and not (j.forgotten or j.orphaned)]

    def _stuck(self) -> Iterator[tuple[Slot, Held]]:
        """Batches that are queued behind one of lower priority."""
        if len(self.jobs) > 1:
            for slot in self.slots:
                for behind in list(slot.queue)[1:]:
                    if self.jobs[behind.job].priority > self.jobs[slot.queue[0].job].priority:
                        yield slot, behind

    def _may_take_at(self, led: LedJob) -> float:
        return led.waits_since + self._config.preempt_s

    def _beneath(self, led: LedJob) -> list[Slot]:
        """Slots that run something of lower priority: the lowest first, then what has run for the shortest time."""
        slots = [s for s in self.slots[: self.allowed] if s.queue and not s.queue[0].unwanted]
        beneath = [s for s in slots if self.jobs[s.queue[0].job].priority < led.priority]
        return sorted(beneath, key=lambda s: (self.jobs[s.queue[0].job].priority, -s.queue[0].since, s.number))

    def _mark(self, slot: Slot, priority: int) -> None:
        for held in slot.queue:
            if self.jobs[held.job].priority < priority and not held.unwanted:
                held.unwanted = PREEMPTED

    def held(self, led: LedJob, *, silent: bool = False) -> list[Held]:
        """The job's batches; with `silent`, also those of which nobody wants to hear."""
        return [h for slot in self.everywhere() for h in slot.queue if h.job == led.job and (silent or not h.silent)]

    def stages(self, led: LedJob) -> list[StageId]:
        """Stages of which attempts are here, or have ended and were not heard of."""
        stages = dict.fromkeys(held.stage for held in self.held(led))
        stages.update(dict.fromkeys(stage for stage, _, _ in led.unheard.pairs()))
        stages.update(dict.fromkeys(stage for stage, ends in led.ends.items() if ends))
        return list(stages)

    def known(self, led: LedJob, stage: StageId) -> set[tuple[int, int]]:
        """Attempts of the stage that are here, or have ended and were not heard of."""
        known: set[tuple[int, int]] = set(led.unheard.ended(stage))
        for held in self.held(led):
            if held.stage == stage:
                known.update(held.left)
        known.update((end.task, end.attempt) for end in led.ends.get(stage, ()))
        return known

    def unknown(self, led: LedJob, stage: StageId, attempts: Sequence[AttemptSpec]) -> tuple[AttemptSpec, ...]:
        """Those that are neither here nor have ended unheard."""
        known = self.known(led, stage) if led.ends or self.held(led) else led.unheard.ended(stage)
        return tuple(a for a in attempts if (a.task, a.attempt) not in known)

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step."""
        places: dict[JobId, int] = {}
        for slot in self.slots:
            assert len(slot.queue) <= self._config.queue_batches, "a slot is over-committed"
        for slot in self.everywhere():
            for held in slot.queue:
                places[held.job] = places.get(held.job, 0) + 1
        assert all(batch == slot.queue[0].batch for batch, slot in self.aside.items()), "what stands aside is mixed up"
        assert places == {j.job: j.places for j in self.jobs.values() if j.places}, "places are miscounted"

    # --- all at once ---

    def reserve(self, now: float, led: LedJob, slots: int, priority: int, age_s: float) -> None:
        """Keep slots for the job, as many as there are up to `slots`; 0: none any more."""
        if not slots:
            self.reservations.pop(led.job, None)
            return
        until, submitted = now + self._config.reserve_s, now - age_s
        known = self.reservations.get(led.job)
        if known is None:
            known = self.reservations[led.job] = Reservation(led.job, slots, priority, submitted, now, until)
        known.slots, known.priority, known.until, known.told = slots, priority, until, -1

    def keep_slots(self, now: float) -> None:
        """Give each reservation its slots, the older job's first: idle ones, then those that will be idle soon."""
        if not (self.reservations or self._keeps):
            return
        self._keeps = bool(self.reservations)
        for slot in self.slots:
            slot.kept_for = None
        for job in [r.job for r in self.reservations.values() if r.until <= now]:
            del self.reservations[job]
        order = sorted(self.slots[: self.allowed], key=lambda s: (len(s.queue), s.number))
        for wanted in sorted(self.reservations.values(), key=lambda r: (-r.priority, r.submitted, r.job)):
            for slot in order[: wanted.slots]:
                slot.kept_for = wanted.job
            del order[: wanted.slots]

    def idle_kept(self, job: JobId) -> int:
        """How many idle slots are kept for the job."""
        return sum(slot.kept_for == job and not slot.queue for slot in self.slots)

    def lapse_at(self) -> float:
        """When the next reservation lapses."""
        return min((r.until for r in self.reservations.values()), default=math.inf)

    def _open_for(self, slot: Slot, led: LedJob) -> bool:
        """Whether the job may have its next batch there."""
        if led.job in self.reservations:
            return slot.kept_for == led.job and not slot.queue
        wanted = self.reservations.get(slot.kept_for) if slot.kept_for is not None else None
        return (wanted is None or wanted.priority < led.priority) and len(slot.queue) < self._config.queue_batches

    def _free(self, led: LedJob | None = None) -> int:
        """Places for further batches: none on account of those that run beside the slots."""
        limit, room = self._config.queue_batches, 0
        for slot in self.slots[: self.allowed]:
            if len(slot.queue) < limit and (led is None or not self.reservations or self._open_for(slot, led)):
                room += limit - len(slot.queue)
        beside = sum(not slot.waits for slot in self.aside.values()) if self.aside else 0
        return max(0, room - beside * limit)
