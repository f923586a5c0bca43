"""A coordinator, spoken to in few words, for tests that read as dialogues."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

from p2premap.config import TasksConfig
from p2premap.election.ballot import first
from p2premap.ids import Ballot, Digest, JobId, NodeId
from p2premap.sim.sole import Sole
from p2premap.sim.workloads import Shape, ShapeDirector, digest_of, spec_of
from p2premap.tasks import events, messages
from p2premap.tasks.coordinator import Coordinator
from p2premap.tasks.director import Director
from p2premap.tasks.job import (
    AttemptEnd,
    BlobRef,
    JobOptions,
    JobView,
    Leader,
    Outcome,
    Source,
    StageId,
)
from p2premap.tasks.placement import Facts
from p2premap.wire import Message
from tests.tasks.working import MAP, A, attempt_line, node

JOB = JobId(b"job-job-job-job!")
BALLOT = first(A)
NO_FACTS = Facts()


def blob(name: str) -> BlobRef:
    """A blob of this content."""
    return BlobRef(digest=digest_of(name.encode()), size=len(name))


Asked = TypeVar("Asked", bound=events.CoordinatorEffect)


class Led:
    """A coordinator, by default on node A.

    Args:
        shape: the job.
        on: nodes that can work.
        leader: the node's letter.
        term: of its ballot.
        history, decided: what its predecessors left.
        director: if the job is no shape.
        quorum: its replicas answer at once; else only when the test says so.
        known: when its node first heard of the job.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        options: JobOptions | None = None,
        config: TasksConfig | None = None,
        on: str = "",
        leader: str = "A",
        term: int = 0,
        history: Sequence[bytes] = (),
        decided: Mapping[str, bytes] | None = None,
        director: Director | None = None,
        quorum: bool = True,
        known: float = math.inf,
    ) -> None:
        self.now = 0.0
        self.shape = shape
        self.options = options
        self.ballot = Ballot(0, term, node(leader))
        self.history = tuple(history)
        self.quorum = quorum
        self.serials: dict[NodeId, int] = {}
        self.given: dict[tuple[StageId, int], tuple[NodeId, int]] = {}
        """(stage, task) -> who has it and under which attempt number."""
        self.answers: dict[NodeId, int] = {}
        self.said: list[tuple[NodeId, Message]] = []
        self.copied = 0
        """Orders to keep something that were carried out."""
        self.shown: list[JobView] = []
        self.asked: list[events.CoordinatorEffect] = []
        """What was said to nobody that works."""
        self.replica = Sole()
        self.director = director
        self.core = Coordinator(
            job=JOB,
            spec=spec_of(shape, key=b"key", options=options),
            director=director or ShapeDirector(job=JOB, home=A, plan=shape.encode()),
            leader=Leader(node(leader), leader.lower(), 1),
            ballot=self.ballot,
            config=config or TasksConfig(facts_linger_s=0.0),  # what a step writes is told with it
            now=0.0,
            known=known,
            history=self.history,
            decided=decided,
        )
        for letter in on:
            self.seen(letter)

    # --- what it is told ------------------------------------------------------------------------------------------

    def seen(self, letter: str, slots: int = 1, machine: str = "", facts: Facts = NO_FACTS) -> list[str]:
        """The node can work."""
        where = (machine or letter).encode()
        return self.hear(
            events.WorkerSeen(node=node(letter), name=letter.lower(), slots=slots, machine=where, facts=facts)
        )

    def lost(self, letter: str) -> list[str]:
        """The node is dead."""
        return self.hear(events.WorkerLost(node=node(letter)))

    def doubt(self, letter: str) -> list[str]:
        """The node is suspected."""
        return self.hear(events.WorkerDoubtful(node=node(letter)))

    def unlinked(self, letter: str) -> list[str]:
        """The link to the node broke."""
        return self.hear(events.WorkerUnlinked(node=node(letter)))

    def cancel(self) -> list[str]:
        """A user cancels the job."""
        return self.hear(events.CancelJob(reason="enough"))

    def holding(self, letter: str, *pairs: tuple[int, int], stage: StageId = MAP, free: int = 2) -> list[str]:
        """The node says what runs there."""
        running = ((stage, pairs),) if pairs else ()
        number = self.answers.get(node(letter), 0)
        return self.hear(
            events.FromWorker(
                node=node(letter),
                message=messages.Holding(job=JOB, ballot=self.ballot, number=number, running=running, free=free),
            )
        )

    def protect(self, serial: int) -> list[str]:
        """A quorum has the facts up to this batch."""
        return self.hear(events.FactsProtected(serial=serial))

    def decide(self, cell: str, value: bytes) -> list[str]:
        """A cell is decided."""
        return self.hear(events.CellDecided(cell=cell, value=value))

    def asked_for(self, kind: type[Asked]) -> list[Asked]:
        """Effects of this kind so far, that are no messages."""
        return [effect for effect in self.asked if isinstance(effect, kind)]

    def heir(
        self, leader: str, on: str = "", *, known: int | None = None, decided: bool = True, quorum: bool = True
    ) -> Led:
        """Another leader of the same job, with what this one has written.

        Args:
            known: only the first so many batches.
            decided: it knows the cells.
            quorum: as in `Led`.
        """
        history = (*self.history, *self.batches[:known])
        cells = dict(self.replica.decided) if decided else {}
        return Led(
            self.shape,
            options=self.options,
            on=on,
            leader=leader,
            term=self.ballot.n + 1,
            history=history,
            decided=cells,
            quorum=quorum,
        )

    @property
    def batches(self) -> list[bytes]:
        """The facts that this leader has written."""
        if self.quorum:
            return self.replica.batches
        return [effect.batch for effect in self.asked_for(events.AppendFacts)]

    def tick(self, after_s: float = 0.0) -> list[str]:
        """Time passes until the deadline, or for so long."""
        self.now = self.now + after_s if after_s else max(self.now, self.core.deadline())
        return self.hear(events.Tick())

    def done(self, letter: str, *tasks: int, stage: StageId = MAP, blobs: str = "", free: int = 2) -> list[str]:
        """The node finished these tasks; with `blobs`, each yielded a blob of that name and its number."""
        return self.ended(
            letter,
            [self.end(t, stage=stage, blobs=(blob(f"{blobs}{t}"),) if blobs else ()) for t in tasks],
            stage=stage,
            free=free,
        )

    def failed(
        self,
        letter: str,
        task: int,
        outcome: Outcome,
        *,
        stage: StageId = MAP,
        missing: Sequence[Digest] = (),
        error: str = "it says so",
    ) -> list[str]:
        """The node's attempt of this task ended without a result."""
        end = self.end(task, stage=stage, outcome=outcome, missing=tuple(missing), error=error)
        return self.ended(letter, [end], stage=stage)

    def end(
        self,
        task: int,
        *,
        stage: StageId = MAP,
        outcome: Outcome = Outcome.DONE,
        blobs: tuple[BlobRef, ...] = (),
        missing: tuple[Digest, ...] = (),
        error: str = "",
    ) -> AttemptEnd:
        """How the attempt of this task that was given last ended."""
        return AttemptEnd(
            task=task,
            attempt=self.given[stage, task][1],
            outcome=outcome,
            blobs=blobs,
            seconds=10.0,
            missing=missing,
            error=error,
        )

    def ended(
        self,
        letter: str,
        ends: Sequence[AttemptEnd],
        *,
        stage: StageId = MAP,
        free: int = 2,
        ballot: Ballot | None = None,
        serial: int | None = None,
        held: int = 0,
    ) -> list[str]:
        """The node reports ends."""
        if serial is None:
            serial = self.serials[node(letter)] = self.serials.get(node(letter), 0) + 1
        return self.hear(
            events.FromWorker(
                node=node(letter),
                message=messages.AttemptsEnded(
                    job=JOB,
                    ballot=ballot or self.ballot,
                    stage=stage,
                    ends=tuple(ends),
                    free=free,
                    serial=serial,
                    answers=self.answers.get(node(letter), 0),
                    held=held,
                ),
            )
        )

    def reserved(self, letter: str, slots: int) -> list[str]:
        """The node keeps so many slots."""
        message = messages.Reserved(job=JOB, ballot=self.ballot, slots=slots)
        return self.hear(events.FromWorker(node=node(letter), message=message))

    def busy(self, letter: str, *tasks: int, free: int = 0, reason: str = "no room", stage: StageId = MAP) -> list[str]:
        """The node does not take these tasks."""
        pairs = tuple((t, self.given[stage, t][1]) for t in tasks)
        return self.hear(
            events.FromWorker(
                node=node(letter),
                message=messages.Busy(
                    job=JOB, ballot=self.ballot, stage=stage, attempts=pairs, free=free, reason=reason, retry_s=0.5
                ),
            )
        )

    def kept(self) -> list[str]:
        """Whoever was told to keep something, and has not yet, does."""
        lines: list[str] = []
        while orders := self._keeps()[self.copied :]:
            self.copied += 1
            to, order = orders[0]
            message = messages.Kept(job=JOB, ballot=self.ballot, number=order.number)
            lines += self.hear(events.FromWorker(node=to, message=message))
        return lines

    def _keeps(self) -> list[tuple[NodeId, messages.Keep]]:
        return [(to, message) for to, message in self.said if isinstance(message, messages.Keep)]

    # --- what it says ---------------------------------------------------------------------------------------------

    def hear(self, event: events.CoordinatorEvent) -> list[str]:
        """Tell it, and say in short lines what it wants."""
        step = self.core.step if not self.quorum else partial(self.replica.step, self.core)
        effects = step(self.now, event)
        self.core.check_invariants()
        return [line for effect in effects if (line := self._line(effect))]

    def _line(self, effect: events.CoordinatorEffect) -> str:
        if isinstance(effect, events.JobChanged):
            self.shown.append(effect.view)
            return effect.view.phase.value if effect.view.phase.over else ""
        if not isinstance(effect, events.ToWorker):
            self.asked.append(effect)
            return ""
        self.said.append((effect.node, effect.message))
        to = chr(effect.node[0])
        match effect.message:
            case messages.Assign(stage=stage, attempts=attempts, function=function):
                for spec in attempts:
                    self.given[stage, spec.task] = (effect.node, spec.attempt)
                return f"{to}: {function} {' '.join(map(attempt_line, attempts))}"
            case messages.StopAttempts(attempts=pairs):
                return f"{to}: stop {' '.join(f'{t}' for t, _ in pairs) or 'all'}"
            case messages.Recount(attempts=pairs, heard=heard, number=number):
                self.answers[effect.node] = number
                return f"{to}: recount {' '.join(f'{t}' for t, _ in pairs)} heard {heard}"
            case messages.ForgetJob():
                return f"{to}: forget"
            case messages.Keep() | messages.Shed():
                return ""  # goes on in the background
            case messages.Reserve(slots=slots):
                return f"{to}: reserve {slots}"
            case other:
                raise AssertionError(f"not said by leaders: {other}")

    @property
    def view(self) -> JobView:
        """The job now."""
        return self.core.view(self.now)

    def sources(self, letter: str) -> tuple[Source, ...]:
        """What the node was last told to read."""
        orders = [m for n, m in self.said if n == node(letter) and isinstance(m, messages.Assign)]
        return orders[-1].attempts[0].sources

    @property
    def reduce(self) -> StageId:
        """The id of the last reduce stage of which something was given out."""
        return [s for s, _ in self.given if s.number == 1][-1]
