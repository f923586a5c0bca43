"""The worker's core: this node's slots, and the jobs that compete for them.

Theory of operation. There is no central master: each job's leader sends `Assign`s, and this core takes them or says
`Busy`. A slot runs one batch and has at most one more queued behind it, so that it goes on without a pause. Who gets
a place when several jobs want it: the highest priority, then the job below its fair share. A higher priority also
takes slots back (`p2premap.tasks.shares`): what ran there ends as STOPPED, which its leader does not count. A job that
was refused is remembered for as long as it was told to wait, and invited when there is a place for it (a `Busy`
without attempts); a place is held for a moment for a job that was invited, and for one whose batch has just ended.

Fencing: an order under a lower ballot than the highest seen for its job is dropped, and the ballot must be its
sender's own. A new leader (a higher ballot) is told again what its predecessor has not heard, and everything that ends
from then on. It asks by a census (`Recount`) before it gives any order: `Holding` then says which attempts this node
answers for, those that run here and those that ended unheard, so that nobody runs them a second time.

What may be lost: messages that are under way when a link breaks. Reports are numbered and kept until the leader says
with an `Assign` or a `Recount` that it has heard them (`p2premap.tasks.unheard` says how many and for how long);
attempts that a leader asks about and this core does not know end as REFUSED. A job whose leader is dead (`LeaderLost`)
is an orphan: what it has here runs on, and how it ends is kept and said to nobody, until a leader speaks; after
`orphan_s` without a word it is forgotten, and what still runs for it is stopped. Where a fork stands in for it
(`JobForked`, or a census of the fork's leader where this node keeps no ledger of it) it all belongs to that, under a
new name and a first ballot. A job of which nothing was heard and nothing runs for `idle_job_s` is dropped, its worker
processes ended; the next `Assign` starts it anew.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, assert_never

from p2premap.config import TasksConfig
from p2premap.ids import NOBODY, Ballot, JobId, NodeId
from p2premap.tasks import messages
from p2premap.tasks.allowance import Allowance
from p2premap.tasks.events import (
    AttemptGoesOn,
    AttemptWaits,
    EndJob,
    EnvironmentTold,
    FromLeader,
    JobForked,
    LeaderLost,
    MachineNow,
    RunBatch,
    SetLimits,
    SetSlots,
    SlotReported,
    StopSlot,
    StopTaking,
    Tick,
    WorkerEffect,
    WorkerEvent,
)
from p2premap.tasks.job import Outcome, StageId
from p2premap.tasks.readiness import Readiness
from p2premap.tasks.shares import Held, LedJob, Shares, Slot
from p2premap.tasks.telling import Teller
from p2premap.tasks.unheard import Unheard
from p2premap.wire import Message

NO_BALLOT: Final = Ballot(0, -1, NOBODY)
"""Below any under which orders come."""
UNFIT_RETRY_S: Final = 30.0
"""A node that does not run such attempts is asked again after this long; nothing will have changed but its daemon."""

Order: TypeAlias = messages.Assign | messages.StopAttempts | messages.ForgetJob | messages.Recount | messages.Reserve
JOB_ORDERS = (messages.Assign, messages.StopAttempts, messages.ForgetJob, messages.Recount, messages.Reserve)


class Fencing(Protocol):
    """What refuses deposed leaders (`p2premap.election.ballot.Fence`)."""

    def admits(self, job: JobId, ballot: Ballot) -> bool:
        """Whether an order under this ballot may be followed."""


class WorkerCore:
    """This node's slots.

    Args:
        me: this node.
        slots: worker processes that the owner allows.
        config: intervals and limits.
        fence: refuses deposed leaders.
        now: the clock's present value.
        unfit: given the runtime and the function of attempts, says why this node does not run such, as half a
            sentence; "" where it does.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        slots: int,
        config: TasksConfig,
        fence: Fencing,
        now: float,
        unfit: Callable[[str, str], str] = lambda runtime, function: "",
    ) -> None:
        self.me = me
        self._config = config
        self._fence = fence
        self._unfit = unfit
        self._allowance = Allowance(slots, config)
        self._shares = Shares(slots, config)
        self._jobs = self._shares.jobs
        self._effects: list[WorkerEffect] = []
        self._teller = Teller(self._shares, config, lambda effect: self._effects.append(effect))
        self._readiness = Readiness(self._jobs, self._teller, lambda effect: self._effects.append(effect))
        self._sweep_at = now + config.idle_job_s
        self._batches = itertools.count(1)
        self._deadline = math.inf
        self._unchecked = True
        self.fenced = 0
        """Orders dropped because of their ballot or sender."""

    # --- the core's face ------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """Worker processes that are offered now."""
        return self._shares.allowed

    @property
    def held_back(self) -> str:
        """Why not all that the owner gave are offered, as half a sentence; "" where they are."""
        return self._allowance.offer.why

    @property
    def busy(self) -> int:
        """Slots that run something."""
        return sum(bool(slot.queue) for slot in self._shares.slots)

    def deadline(self) -> float:
        """When it wants a `Tick`."""
        return self._deadline

    def step(self, now: float, event: WorkerEvent) -> list[WorkerEffect]:
        """Take one event; say what is to be done."""
        match event:
            case Tick():
                pass
            case FromLeader(node=node, message=message):
                self._on_order(now, node, message)
            case LeaderLost() | JobForked():
                self._on_unled(now, event)
            case SlotReported():
                self._on_reported(now, event)
            case AttemptWaits() | AttemptGoesOn():
                self._on_waits(event)
            case SetSlots(slots=slots):
                self._allowance.resize(slots)
                self._offer()
            case SetLimits(limits=limits):
                self._allowance.limit(limits)
                self._offer()
            case MachineNow():
                self._allowance.hear(now, event)
                self._offer()
            case StopTaking(again=again):
                self._allowance.draining = not again
                self._offer()
            case EnvironmentTold():
                self._readiness.hear(now, event)
            case _:
                assert_never(event)
        self._shares.keep_slots(now)
        self._teller.report_due(now)
        self._teller.tell_reserved()
        self._teller.invite(now)
        for slot in self._shares.take_back(now):
            self._stop_unwanted(slot)
        self._sweep(now)
        self._teller.bound_unheard()
        self._deadline = self._next_look(now) if self._jobs else math.inf
        self._unchecked = True
        effects, self._effects = self._effects, []
        return effects

    def _next_look(self, now: float) -> float:
        """When something is due although nothing happens."""
        shares = self._shares
        reports = min(min(led.report_at, led.orphan_until) for led in self._jobs.values())
        return min(self._sweep_at, reports, shares.invite_at(now), shares.take_back_at(now), shares.lapse_at())

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step."""
        if self._unchecked:
            self._unchecked = False
            self._shares.check_invariants()

    # --- orders ---------------------------------------------------------------------------------------------------

    def _on_order(self, now: float, node: NodeId, message: Message) -> None:
        if not isinstance(message, JOB_ORDERS):
            return
        if message.ballot.node != node or not self._fence.admits(message.job, message.ballot):
            self.fenced += 1
            return
        led = self._jobs.get(message.job)
        if led is not None:
            self._led_by(led, message)
            led.used = now
        match message:
            case messages.Assign():
                self._on_assign(now, led, message)
            case messages.StopAttempts():
                if led is not None:
                    self._on_stop(now, led, message)
            case messages.ForgetJob():
                if led is not None:
                    self._forget(led, "the job is over")
                else:
                    self._effects.append(EndJob(job=message.job))
            case messages.Recount():
                self._on_recount(now, led, message)
            case messages.Reserve():
                if led is None or led.forgotten:
                    led = self._start(now, led, message.job, message.ballot, message.stage, message.heard)
                self._on_reserve(now, led, message)
            case _:
                assert_never(message)

    def _led_by(self, led: LedJob, order: Order) -> None:
        """Somebody leads the job: a new leader, or one that was thought dead, hears what was not heard so far."""
        new = led.ballot < order.ballot
        if new:
            led.ballot, led.leader, led.answers = order.ballot, order.ballot.node, 0
            heard = order.heard if isinstance(order, messages.Assign | messages.Recount) else 0
            led.unheard.renumber(led.job, order.ballot, heard)
            self._shares.reservations.pop(led.job, None)
        orphaned, led.orphan_until = led.orphaned, math.inf
        if (new or orphaned) and isinstance(order, messages.Assign | messages.StopAttempts):
            self._teller.tell_again(led)

    def _orphan(self, now: float, led: LedJob) -> None:
        """Nobody leads the job: keep what it has here for whoever will."""
        if not led.forgotten and not led.orphaned:
            led.orphan_until = now + self._config.orphan_s
            self._shares.reservations.pop(led.job, None)
            led.serve()
            led.held_until = -math.inf

    def _on_unled(self, now: float, event: LeaderLost | JobForked) -> None:
        """A leader is dead; what this node has for its job is the fork's, whose leader asks for it as any successor."""
        match event:
            case LeaderLost(node=node):
                for led in [j for j in self._jobs.values() if j.leader == node]:
                    self._orphan(now, led)
            case JobForked(job=job, fork=fork):
                self._inherit(job, fork)

    def _inherit(self, job: JobId, fork: JobId) -> LedJob | None:
        """What this node has for a job that nobody leads is the fork's; None where there is nothing."""
        orphan = self._jobs.get(job)
        if orphan is None or not orphan.orphaned or fork in self._jobs:
            return None
        orphan.ballot = NO_BALLOT
        self._shares.rename(orphan, fork)
        return orphan

    def _on_assign(self, now: float, led: LedJob | None, order: messages.Assign) -> None:
        if led is None or led.forgotten:
            led = self._start(now, led, order.job, order.ballot, order.stage, order.heard)
        led.priority = order.priority
        led.unheard.heard(order.heard)
        attempts = self._shares.unknown(led, order.stage, order.attempts)
        if not attempts:
            return
        if unfit := self._hindrance(now, led, order):
            self._teller.refuse(led, order.stage, attempts, unfit, retry_s=UNFIT_RETRY_S)
            return
        slot = self._shares.place(led)
        reason = "" if slot is not None else self.held_back or "all slots are taken"
        if slot is not None and not self._shares.free_for(now, led):
            slot, reason = None, "other jobs are waiting for their share"
        if led.unheard and self._teller.unheard_bytes() > self._config.unheard_bytes_max:
            slot, reason = None, "its leader has not confirmed what this node has finished"
        if slot is None:
            led.refuse(now, now + 2 * self._config.busy_retry_s)
            self._teller.refuse(led, order.stage, attempts, reason)
            return
        led.serve()
        led.places += 1
        if (kept := self._shares.reservations.get(led.job)) is not None:
            kept.slots, slot.kept_for = kept.slots - 1, None
            if not kept.slots:
                del self._shares.reservations[led.job]
        slot.last_job = led.job
        number = next(self._batches)
        pairs = dict.fromkeys((a.task, a.attempt) for a in attempts)
        slot.queue.append(Held(number, led.job, order.stage, pairs, since=now))
        self._effects.append(
            RunBatch(
                slot=slot.number,
                batch=number,
                job=led.job,
                stage=order.stage,
                runtime=order.runtime,
                function=order.function,
                code=order.code,
                limits=order.limits,
                attempts=attempts,
                environment=None if order.environment is None else order.environment.digest,
                meeting=order.meeting,
            )
        )

    def _on_reserve(self, now: float, led: LedJob, order: messages.Reserve) -> None:
        unfit = self._hindrance(now, led, order) if order.slots and order.runtime else ""
        self._shares.reserve(now, led, 0 if unfit else order.slots, order.priority, order.age_s)
        if unfit:
            self._teller.refuse(led, order.stage, (), unfit, retry_s=UNFIT_RETRY_S)

    def _hindrance(self, now: float, led: LedJob, order: messages.Assign | messages.Reserve) -> str:
        """Why this node cannot run such attempts now; "" where it can."""
        return self._unfit(order.runtime, order.function) or self._readiness.hindrance(now, led, order.environment)

    def _start(
        self, now: float, known: LedJob | None, job: JobId, ballot: Ballot, stage: StageId, heard: int
    ) -> LedJob:
        """Begin, or begin again, to work for a job."""
        led = LedJob(job, ballot.node, ballot, 0, Unheard(heard), stage, used=now)
        if known is not None:
            led.places = known.places  # of batches that are being stopped
        self._jobs[job] = led
        return led

    def _on_stop(self, now: float, led: LedJob, order: messages.StopAttempts) -> None:
        everything = not order.attempts
        wanted = set(order.attempts)
        for slot in list(self._shares.everywhere()):
            for held in slot.queue:
                if held.job != led.job or held.silent:
                    continue
                if everything or (held.stage == order.stage and not wanted.isdisjoint(held.left)):
                    held.unwanted = "stopped by the job's leader"
            self._stop_unwanted(slot)
        unknown = wanted - self._shares.known(led, order.stage)
        if unknown:
            self._teller.disown(now, led, order.stage, sorted(unknown), Outcome.STOPPED)

    def _on_recount(self, now: float, led: LedJob | None, order: messages.Recount) -> None:
        if led is None and order.origin and (led := self._inherit(JobId(order.origin), order.job)) is not None:
            self._led_by(led, order)
        if led is None or led.forgotten:
            led = self._start(now, led, order.job, order.ballot, order.stage, order.heard)
        led.unheard.heard(order.heard)
        led.answers = order.number
        if order.census:
            self._teller.answer_census(now, led)
        self._teller.tell_again(led)
        self._teller.flush(now, led)
        known = self._shares.known(led, order.stage)
        unknown = [pair for pair in order.attempts if pair not in known]
        self._teller.disown(now, led, order.stage, unknown, Outcome.REFUSED)

    def _forget(self, led: LedJob, why: str) -> None:
        """Stop what runs for the job, and say no more about it."""
        led.forgotten = True
        led.orphan_until = math.inf
        self._shares.reservations.pop(led.job, None)
        led.unheard.clear()
        led.ends.clear()
        led.report_at = math.inf
        for slot in list(self._shares.everywhere()):
            for held in slot.queue:
                if held.job == led.job:
                    held.unwanted, held.silent = why, True
            self._stop_unwanted(slot)
        self._end_if_idle(led)

    def _end_if_idle(self, led: LedJob) -> None:
        if led.forgotten and not led.places:
            self._jobs.pop(led.job, None)
            self._effects += [EndJob(job=job) for job in (led.job, *led.former)]

    # --- reports --------------------------------------------------------------------------------------------------

    def _on_reported(self, now: float, event: SlotReported) -> None:
        slot = self._shares.aside.get(event.batch) or self._shares.slots[event.slot]
        assert slot.queue, "a slot without a batch cannot report"
        held = slot.queue[0]
        led = self._jobs[held.job]
        for end in event.ends:
            assert (end.task, end.attempt) in held.left, "every attempt ends once"
            del held.left[end.task, end.attempt]
        if event.ends and not held.silent:
            led.ends.setdefault(held.stage, []).extend(event.ends)
            led.report_at = min(led.report_at, now + self._config.report_s)
        led.used = now
        assert event.batch_over == (not held.left), "a batch is over when every attempt has ended"
        if event.batch_over:
            slot.queue.popleft()
            slot.stopping = False
            self._shares.aside.pop(held.batch, None)
            led.places -= 1
            if not held.unwanted:
                led.held_until = now + self._config.hold_s
            self._stop_unwanted(slot)
            self._teller.flush(now, led)
            self._end_if_idle(led)
            self._shares.trim()

    def _on_waits(self, event: AttemptWaits | AttemptGoesOn) -> None:
        """An attempt waits for other tasks, or no more."""
        waits = isinstance(event, AttemptWaits)
        if (aside := self._shares.aside.get(event.batch)) is not None:
            aside.waits = waits
            return
        slot = self._shares.slots[event.slot]
        assert waits, "what goes on has stood aside"
        assert slot.queue, "nothing runs in this slot"
        assert slot.queue[0].batch == event.batch, "only what runs can wait"
        assert len(slot.queue[0].left) == 1, "the rest of its batch was given back"
        self._shares.step_aside(slot)
        self._stop_unwanted(slot)

    def _offer(self) -> None:
        """Offer as many slots as may be offered now."""
        offer = self._allowance.offer
        self._shares.resize(offer.slots)
        if offer.urgent:
            for slot in self._shares.slots[offer.slots :]:
                for held in slot.queue:
                    held.unwanted = held.unwanted or f"this node gives up its work: {offer.why}"
                self._stop_unwanted(slot)

    def _stop_unwanted(self, slot: Slot) -> None:
        if slot.queue and slot.queue[0].unwanted and not slot.stopping:
            slot.stopping = True
            head, grace_s = slot.queue[0], self._config.stop_grace_s
            self._effects.append(StopSlot(slot=slot.number, batch=head.batch, grace_s=grace_s, reason=head.unwanted))

    def _sweep(self, now: float) -> None:
        """Drop jobs that nobody has spoken of for long."""
        for led in [j for j in self._jobs.values() if j.orphan_until <= now]:
            self._forget(led, "nobody leads the job any more")
        if now < self._sweep_at:
            return
        self._sweep_at = now + self._config.idle_job_s
        idle = [j for j in self._jobs.values() if not j.places and now - j.used >= self._config.idle_job_s]
        for led in idle:
            if not (led.orphaned and led.unheard):
                self._forget(led, "nothing was heard of it")
