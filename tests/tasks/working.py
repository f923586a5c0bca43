"""A worker core, spoken to in few words, for tests that read as dialogues."""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from p2premap.config import TasksConfig
from p2premap.election.ballot import Fence, first
from p2premap.ids import Ballot, Digest, JobId, NodeId
from p2premap.tasks import events, messages
from p2premap.tasks.job import AttemptEnd, AttemptSpec, Limits, Outcome, Source, StageId
from p2premap.tasks.worker import WorkerCore
from p2premap.wire import Message

MAP = StageId(0, b"")
CODE = Digest(blake3(b"code").digest())


def node(letter: str) -> NodeId:
    """A node by its letter."""
    return NodeId(letter.encode() * 16)


A, B, C = node("A"), node("B"), node("C")


class Working:
    """A worker core on node C.

    Args:
        slots: of the node.
        unfit: why it does not run something.
    """

    def __init__(
        self,
        slots: int = 1,
        *,
        config: TasksConfig | None = None,
        unfit: Callable[[str, str], str] = lambda runtime, function: "",
    ) -> None:
        self.now = 0.0
        self.effects: list[events.WorkerEffect] = []
        self.core = WorkerCore(
            me=C, slots=slots, config=config or TasksConfig(), fence=Fence(100), now=0.0, unfit=unfit
        )

    def assign(
        self,
        *tasks: int,
        job: str = "j",
        leader: NodeId = A,
        ballot: Ballot | None = None,
        priority: int = 0,
        heard: int = 0,
        attempt: int = 0,
        environment: Digest | None = None,
        runtime: str = "r",
    ) -> list[str]:
        """A leader hands out tasks."""
        return self.order(
            messages.Assign(
                job=job_of(job),
                ballot=ballot or first(leader),
                stage=MAP,
                runtime=runtime,
                function="map",
                code=whole(CODE, leader),
                attempts=tuple(AttemptSpec(task=t, attempt=attempt) for t in tasks),
                limits=Limits(),
                priority=priority,
                heard=heard,
                environment=None if environment is None else whole(environment, leader),
            ),
            leader=leader,
        )

    def reserve(
        self,
        slots: int,
        *,
        job: str = "j",
        leader: NodeId = A,
        priority: int = 0,
        age_s: float = 0.0,
        environment: Digest | None = None,
        runtime: str = "r",
    ) -> list[str]:
        """A leader wants so many idle slots at once."""
        return self.order(
            messages.Reserve(
                job=job_of(job),
                ballot=first(leader),
                stage=MAP,
                slots=slots,
                priority=priority,
                age_s=age_s,
                runtime=runtime,
                function="map",
                environment=None if environment is None else whole(environment, leader),
            ),
            leader=leader,
        )

    def stop(self, *tasks: int, job: str = "j", leader: NodeId = A) -> list[str]:
        """A leader wants these stopped; none: all."""
        pairs = tuple((t, 0) for t in tasks)
        return self.order(
            messages.StopAttempts(job=job_of(job), ballot=first(leader), stage=MAP, attempts=pairs), leader=leader
        )

    def forget(self, *, job: str = "j", leader: NodeId = A, ballot: Ballot | None = None) -> list[str]:
        """A leader's job is over."""
        return self.order(messages.ForgetJob(job=job_of(job), ballot=ballot or first(leader)), leader=leader)

    def recount(
        self,
        *tasks: int,
        job: str = "j",
        heard: int = 0,
        number: int = 1,
        leader: NodeId = A,
        ballot: Ballot | None = None,
        census: bool = False,
        origin: str = "",
    ) -> list[str]:
        """A leader wants to hear again what it may have missed; a new one, what there is at all."""
        pairs = tuple((t, 0) for t in tasks)
        return self.order(
            messages.Recount(
                job=job_of(job),
                ballot=ballot or first(leader),
                stage=MAP,
                attempts=pairs,
                heard=heard,
                number=number,
                census=census,
                origin=job_of(origin) if origin else b"",
            ),
            leader=leader,
        )

    def order(self, message: Message, *, leader: NodeId) -> list[str]:
        """A leader says this."""
        return self.hear(events.FromLeader(node=leader, message=message))

    def report(
        self, slot: int, *tasks: int, over: bool = True, outcome: Outcome = Outcome.DONE, attempt: int = 0
    ) -> list[str]:
        """The executor reports ends."""
        ends = tuple(AttemptEnd(task=t, attempt=attempt, outcome=outcome, seconds=0.1) for t in tasks)
        return self.hear(events.SlotReported(slot=slot, ends=ends, batch_over=over))

    def tick(self) -> list[str]:
        """Time passes until the deadline."""
        self.now = self.core.deadline()
        return self.hear(events.Tick())

    def hear(self, event: events.WorkerEvent) -> list[str]:
        """Tell it, and say in short lines what it wants."""
        self.effects = self.core.step(self.now, event)
        self.core.check_invariants()
        return [_worker_line(effect) for effect in self.effects]


def whole(blob: Digest, holder: NodeId) -> Source:
    """A blob of four bytes."""
    return Source(digest=blob, start=0, end=4, holders=(holder,), blob=blob)


def job_of(letter: str) -> JobId:
    """A job by its letter."""
    return JobId(letter.encode() * 16)


def _worker_line(effect: events.WorkerEffect) -> str:
    match effect:
        case events.RunBatch(slot=slot, job=job, attempts=attempts, environment=environment):
            where = "" if environment is None else f" in {environment.hex()[:4]}"
            return f"slot {slot}: run {chr(job[0])} {' '.join(map(attempt_line, attempts))}{where}"
        case events.MakeEnvironment(lock=lock):
            return f"make {lock.digest.hex()[:4]}"
        case events.StopSlot(slot=slot):
            return f"slot {slot}: stop"
        case events.EndJob(job=job):
            return f"end {chr(job[0])}"
        case events.ToLeader(node=to, message=messages.Busy(attempts=pairs, free=free, job=job)):
            return f"{chr(to[0])}: busy {chr(job[0])} {' '.join(str(t) for t, _ in pairs)} free {free}"
        case events.ToLeader(node=to, message=messages.AttemptsEnded(ends=ends, free=free, serial=serial)):
            words = " ".join(f"{e.task}{'' if e.outcome is Outcome.DONE else ' ' + e.outcome.name}" for e in ends)
            return f"{chr(to[0])}: ended {words} free {free} serial {serial}"
        case events.ToLeader(node=to, message=messages.Holding(running=running, free=free)):
            words = " ".join(attempt_line(AttemptSpec(task=t, attempt=a)) for _, pairs in running for t, a in pairs)
            return f"{chr(to[0])}: holding {words} free {free}"
        case events.ToLeader(node=to, message=messages.Reserved(slots=slots, job=job)):
            return f"{chr(to[0])}: reserved {chr(job[0])} {slots}"
        case other:
            raise AssertionError(f"not said by workers: {other}")


def attempt_line(spec: AttemptSpec) -> str:
    """The task, and the attempt unless it is the first."""
    return f"{spec.task}" if spec.attempt == 0 else f"{spec.task}.{spec.attempt}"
