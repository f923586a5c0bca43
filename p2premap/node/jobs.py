"""The jobs of one node: its election core and the coordinators of the jobs that it leads, put together. Pure.

::

    SubmitJob --> FindJob --> (known under its key: accepted) --> CreateJob --> Created --> JobAccepted
    Lead --> plan at hand? else ReadPlan --> Coordinator(history, decided)
    Coordinator --ProposeCell, AppendFacts, Conclude--> ElectionCore --CellDecided, FactsProtected--> Coordinator
    Deposed --> the coordinator goes, and with it every order it could still give
    Concluded --> the last view, at every replica

The two rooms never call each other: what one says is translated here into what the other hears.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, assert_never

import msgspec

from p2premap.config import TasksConfig
from p2premap.election import events as election
from p2premap.election.core import ElectionCore
from p2premap.errors import JobError
from p2premap.ids import Ballot, Digest, JobId, NodeId
from p2premap.node.charter import Charter
from p2premap.node.events import (
    CalledBack,
    CancelJob,
    ExtendJob,
    JobMoved,
    NodeEffect,
    PlanRead,
    ReadPlan,
    RetellEnds,
    SubmitJob,
)
from p2premap.node.outlines import alike, as_origin, beside, dated, named, outline, submitted
from p2premap.node.submissions import Submissions
from p2premap.tasks import events as tasks
from p2premap.tasks import messages
from p2premap.tasks.director import Director
from p2premap.tasks.inputs import depends_on, name_holders
from p2premap.tasks.job import Failure, JobSpec, JobView, Leader
from p2premap.wire import Message

if TYPE_CHECKING:
    from p2premap.tasks.coordinator import Coordinator
    from p2premap.tasks.listing import Rows

JobEvent: TypeAlias = (
    SubmitJob
    | CancelJob
    | CalledBack
    | ExtendJob
    | RetellEnds
    | PlanRead
    | election.Persisted
    | election.PersistFailed
    | election.BatchesLoaded
    | election.Brought
    | election.HandOver
    | election.AcceptFork
    | election.Forget
)
TOLD_WHILE_WAITING_MAX: Final = 10_000


class MakeDirector(Protocol):
    """A kind of job: makes the director of one job from its plan."""

    def __call__(self, *, job: JobId, home: NodeId, plan: bytes) -> Director:
        """See `p2premap.tasks.director.Director.__init__`."""


class _Waiting(msgspec.Struct):
    """A job that this node leads as soon as its plan is at hand; what it is told until then."""

    lead: election.Lead
    told: deque[tasks.CoordinatorEvent] = msgspec.field(default_factory=deque)


class Jobs:
    """See the module.

    Args:
        me: this node.
        leader: the same, for people.
        core: the election core.
        directors: kinds of jobs by name (entry point group ``p2premap.modules``).
        config: intervals and limits.
        send: sends a message to a node, this one included.
        emit: takes an effect for the shell.
        workers: tells of the nodes that can work, for a leader that begins.
        candidates: nodes that could be replicas of a new job, the best first, without this one.
        forked: told of each fork that this node has a part in, once its job has nobody who leads it.
        names: what the nodes are called, by their ids as sentences name them (`p2premap.ids.short`).
        faulted: told of a fault of ours in one job, which then costs that job its leader here and nothing else; None:
            it is raised, as tests and the simulator want it.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        leader: Leader,
        core: ElectionCore,
        directors: Mapping[str, MakeDirector],
        config: TasksConfig,
        send: Callable[[float, NodeId, Message], None],
        emit: Callable[[NodeEffect], None],
        workers: Callable[[], Iterable[tasks.WorkerSeen]],
        candidates: Callable[[], Iterable[NodeId]],
        forked: Callable[[float, tasks.JobForked], None],
        names: Callable[[], Mapping[str, str]] = dict,
        faulted: Callable[[JobId, Exception], None] | None = None,
    ) -> None:
        self.core = core
        self.me = me
        self._leader = leader
        self._directors = directors
        self._config = config
        self._send = send
        self._emit = emit
        self._workers = workers
        self._forked = forked
        self._names = names
        self._faulted = faulted
        self._led: dict[JobId, Coordinator] = {}
        self._waiting: dict[JobId, _Waiting] = {}
        self._plans: dict[JobId, bytes] = {}
        self._concluded: dict[JobId, tuple[JobView, float]] = {}
        """The last view of each job that is over, and when it was heard."""
        self._met: dict[JobId, float] = {}
        """When this node first heard of each job that goes on."""
        self._told: set[JobId] = set()
        """Jobs whose end this node has told as their leader, and that are about to be concluded."""
        self._forks: dict[JobId, JobId] = {}
        """Jobs that nobody leads, and the fork of each that this node leads, or has led, in its place."""
        for job in core.jobs():
            if (state := core.job(job)) is not None and state.record.origin and not state.record.gone:
                self._forks[JobId(state.record.origin)] = job
        self._submissions = Submissions(
            me=me,
            find=core.find,
            submitted=self.submitted,
            copies=self._copies,
            check=self._check,
            plans=self._plans,
            candidates=candidates,
            elect=self.elect,
            emit=emit,
        )
        self._led_due: float | None = None
        self._elect_due: float | None = None
        """When coordinators and the election core want a tick; known until something happens there."""

    # --- the face -------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When it wants a `tick`."""
        if self._led_due is None:
            self._led_due = min([job.deadline() for job in self._led.values()]) if self._led else math.inf
        if self._elect_due is None:
            self._elect_due = self.core.deadline()
        return self._led_due if self._led_due < self._elect_due else self._elect_due

    def tick(self, now: float) -> None:
        """The deadline may have come."""
        if self.deadline() > now:
            return
        if self.core.deadline() <= now:
            self.elect(now, election.Tick())
        for job in [c for c in self._led.values() if c.deadline() <= now]:
            self._to(now, job, tasks.Tick())

    def leads(self, job: JobId) -> bool:
        """Whether this node leads it now, or a fork of it that stands for it here."""
        return self._meant(job) in self._led

    @property
    def led(self) -> int:
        """How many jobs this node leads that are not over."""
        return sum(not job.over for job in self._led.values())

    def views(self, now: float, prefix: bytes = b"") -> list[JobView]:
        """What this node knows of the jobs whose id begins so: those that it leads, replicates, or saw end."""
        found = {
            job: dated(self.core, led.view(now), self._names)
            for job, led in self._led.items()
            if job.startswith(prefix)
        }
        for job, (view, heard) in self._concluded.items():
            if job.startswith(prefix):
                found[job] = msgspec.structs.replace(view, age_s=view.age_s + now - heard)
        for origin, fork in self._forks.items():
            if origin.startswith(prefix) and (standing_in := self._standing_in(now, fork)) is not None:
                found.setdefault(origin, as_origin(origin, standing_in))
        for job in self.core.jobs():
            if (
                job.startswith(prefix)
                and job not in found
                and (seen := outline(self.core, job, self._names)) is not None
            ):
                found[job] = seen
        return [beside(self.core, view) for view in found.values()]

    def _standing_in(self, now: float, fork: JobId) -> JobView | None:
        """A fork that is led here, or has come to its end."""
        if (led := self._led.get(fork)) is not None:
            return dated(self.core, led.view(now), self._names)
        return self._concluded[fork][0] if fork in self._concluded else outline(self.core, fork, self._names)

    def blobs_in_use(self) -> set[Digest]:
        """Code and plans of jobs that are not over: they may be asked for however old they are."""
        specs = [charter.spec for charter in map(self.charter, self.core.jobs()) if charter is not None]
        return {blob.digest for spec in specs for blob in spec.blobs()}

    def charter(self, job: JobId) -> Charter | None:
        """What was submitted, and where; None of a job that is over, or of which no replica is here."""
        state = self.core.job(job)
        return None if state is None or state.record.view else self.submitted(job)

    def submitted(self, job: JobId) -> Charter | None:
        """The same, of a job that is over too."""
        return submitted(self.core, job)

    def why(self, now: float, job: JobId, *, stage: int = -1, task: int = -1) -> str:
        """Why the job is where it is, or one of its tasks; "" where this node cannot say more than its view does.

        Args:
            stage, task: see `p2premap.tasks.coordinator.Coordinator.why`.
        """
        if (led := self._led.get(self._meant(job))) is not None:
            return led.why(now, stage=stage, task=task)
        return "The node that leads it now has not read its plan yet." if job in self._waiting else ""

    def list_tasks(
        self, job: JobId, start: tuple[int, int], count: int, *, stage: int = -1, states: tuple[str, ...] = ()
    ) -> Rows | None:
        """Where the tasks of a job are that this node leads, or keeps the end of; None of another one.

        Args:
            start, count, stage, states: see `p2premap.tasks.listing.list_tasks`.
        """
        if (led := self._led.get(self._meant(job))) is not None:
            return led.tasks(start, count, stage=stage, states=states)
        view = self._concluded[job][0] if job in self._concluded else outline(self.core, job, self._names)
        if view is None or not view.phase.over:
            return None
        from p2premap.tasks.listing import list_failures

        return list_failures(view.failures, start, count, stage, states)

    def remembered(self, job: JobId) -> tuple[Failure, ...]:
        """What is known of attempts that failed or printed something, of a job that is led here, or over."""
        if (led := self._led.get(self._meant(job))) is not None:
            return led.remembered()
        view = self._concluded[job][0] if job in self._concluded else outline(self.core, job, self._names)
        return () if view is None else view.failures

    def replicas(self, job: JobId) -> tuple[NodeId, ...]:
        """Who keeps the job's ledger, as far as this node does; else nobody."""
        state = self.core.job(job)
        return () if state is None or state.record.gone else tuple(state.record.members)

    def sole_results(self, node: NodeId) -> int:
        """Results of the jobs led here that only this node holds, and another will."""
        return sum(led.sole_results(node) for led in self._led.values())

    def check_invariants(self) -> None:
        """For tests and the simulator: what must hold after every step."""
        self.core.check_invariants()
        for job in self._led.values():
            job.check_invariants()

    def _origins(self, job: JobId) -> list[JobId]:
        """The jobs for which this one stands here, if it is a fork."""
        return [origin for origin, fork in self._forks.items() if fork == job]

    def _meant(self, job: JobId) -> JobId:
        """The fork that stands for a job whose replicas are lost, or the job itself."""
        return self._forks.get(job, job) if job not in self._led else job

    # --- events ---------------------------------------------------------------------------------------------------

    def take(self, now: float, event: JobEvent) -> None:
        """What the shell says about jobs."""
        match event:
            case SubmitJob():
                self._submissions.submit(now, event)
            case CancelJob(job=job, reason=reason):
                self._tell(now, self._meant(job), tasks.CancelJob(reason=reason))
            case CalledBack(job=job, status=status, error=error):
                self._tell(now, job, tasks.CalledBack(status=status, error=error))
            case ExtendJob(job=job, payload=payload, request=request):
                self._tell(now, self._meant(job), tasks.Extend(payload=payload, request=request))
            case RetellEnds(job=job, first=first):
                self._tell(now, self._meant(job), tasks.Retell(first=first))
            case election.Forget(job=job):
                self._concluded.pop(job, None)
                if (led := self._led.get(job)) is not None and led.over:
                    del self._led[job]
                    self._led_due = None
                self.elect(now, event)
            case PlanRead(job=job, plan=plan, error=""):
                self._lead(now, job, plan)
            case PlanRead(job=job, error=error):
                self._cannot_lead(now, job, error)
            case _:
                self.elect(now, event)

    def report(self, now: float, sender: NodeId, job: JobId, ballot: Ballot, message: Message) -> None:
        """A worker says something about a job."""
        led = self._led.get(job)
        if led is not None:
            self._to(now, led, tasks.FromWorker(node=sender, message=message))
        elif job in self._waiting:
            self._tell(now, job, tasks.FromWorker(node=sender, message=message))
        elif ballot.node == self.me and self.charter(job) is None:
            # led by a former life of this node, and over or forgotten
            self._send(now, sender, messages.ForgetJob(job=job, ballot=ballot))

    def tell_all(self, now: float, event: tasks.CoordinatorEvent) -> None:
        """Something that concerns every job."""
        for job in list(self._led.values()):
            self._to(now, job, event)

    def elect(self, now: float, event: election.ElectionEvent) -> None:
        """Something for the election room."""
        self._elect_due = None
        for effect in self.core.step(now, event):
            self._elected(now, effect)

    # --- what the election room says ------------------------------------------------------------------------------

    def _elected(self, now: float, effect: election.ElectionEffect) -> None:
        match effect:
            case election.ToReplica(node=node, message=message):
                self._send(now, node, message)
            case election.Persist() | election.LoadBatches() | election.Bring():
                self._emit(effect)
            case election.KeyAnswer(request=request, job=job, spec=spec):
                self._submissions.found(now, request, job, spec)
            case election.Created(request=request, job=job, copies=copies):
                self._submissions.created(request, job, copies)
            case election.CreateFailed(request=request, text=text):
                self._submissions.refuse(request, text)
            case _:
                self._elected_of_job(now, effect)

    def _elected_of_job(self, now: float, effect: election.ElectionEffect) -> None:
        match effect:
            case election.Lead():
                self._begin(now, effect)
            case election.Deposed(job=job):
                self._stop_leading(job)
            case election.Decided(job=job, cell=cell, value=value):
                self._tell(now, job, tasks.CellDecided(cell=cell, value=value))
            case election.Protected(job=job, serial=serial):
                self._tell(now, job, tasks.FactsProtected(serial=serial))
            case election.Concluded(job=job, view=view):
                self._conclude(now, job, view)
            case election.Dropped(job=job):
                self._stop_leading(job)
                self._plans.pop(job, None)
                self._met.pop(job, None)
                self._emit(JobMoved(job=job))  # also where it was about to be led: somebody may wait for its views
            case election.LeaderKnown():
                self._leader_known(now, effect)
            case election.Forked(job=job, origin=origin):
                self._forks[origin] = job

    def _leader_known(self, now: float, effect: election.LeaderKnown) -> None:
        self._met.setdefault(effect.job, now)
        if effect.leader is not None:
            self._forks.pop(effect.job, None)
        known = tasks.ReplicasKnown(copies=effect.copies, note=named(effect.note, self._names), fork=effect.fork)
        self._tell(now, effect.job, known)
        if effect.fork and (state := self.core.job(effect.job)) is not None:
            self._forked(now, tasks.JobForked(job=JobId(state.record.origin), fork=effect.job))
        if effect.job not in self._led:
            self._emit(JobMoved(job=effect.job))

    def _check(self, job: JobId, spec: JobSpec, plan: bytes) -> bool:
        """Whether the job depends on this machine's files alone.

        Raises:
            JobError: this node will not lead it.
        """
        if spec.kind not in self._directors:
            raise JobError(f"No module for jobs of kind {spec.kind!r} is installed on {self._leader.name}.")
        if self.led >= self._config.jobs_kept_max:
            raise JobError(f"{self._leader.name} leads {self.led} jobs already; try again when some have ended.")
        try:
            import p2premap.tasks.coordinator  # noqa: F401  (here, where it can be refused)
        except (ImportError, OSError) as error:  # such as where no descriptor is free
            raise JobError(f"{self._leader.name} cannot lead jobs now: {error}.") from None
        director = self._directors[spec.kind](job=job, home=self.me, plan=plan)
        director.first()
        return depends_on(director, spec.options) is not None

    # --- leading --------------------------------------------------------------------------------------------------

    def _begin(self, now: float, lead: election.Lead) -> None:
        """This node leads a job: with its plan, which may have to be read first."""
        self._waiting[lead.job] = _Waiting(lead)
        if (plan := self._plans.get(lead.job)) is not None:
            self._lead(now, lead.job, plan)
        else:
            spec = Charter.decode(lead.record.spec).spec
            self._emit(ReadPlan(job=lead.job, plan=spec.plan))

    def _lead(self, now: float, job: JobId, plan: bytes) -> None:
        waiting = self._waiting.pop(job, None)
        if waiting is None:
            return  # deposed while the plan was being read
        from p2premap.tasks.coordinator import Coordinator  # most nodes start without leading anything

        lead = waiting.lead
        charter = Charter.decode(lead.record.spec)
        try:
            make = self._directors.get(charter.spec.kind)
            if make is None:
                raise JobError(f"No module for jobs of kind {charter.spec.kind!r} is installed here.")
            director = make(job=job, home=charter.home, plan=plan)
            name_holders(director, charter.spec.options, lead.record.members)
            coordinator = Coordinator(
                job=job,
                spec=charter.spec,
                director=director,
                leader=self._leader,
                ballot=lead.ballot,
                config=self._config,
                now=now,
                known=self._met.get(job, now),
                history=lead.history,
                decided=lead.decided,
                origin=JobId(lead.record.origin) if lead.record.origin else None,
            )
        except JobError as error:
            self._waiting[job] = waiting
            self._cannot_lead(now, job, str(error))
            return
        self._plans[job] = plan
        self._led[job] = coordinator
        self._led_due = None
        for seen in self._workers():
            self._to(now, coordinator, seen)
        if (state := self.core.job(job)) is not None:
            known = tasks.ReplicasKnown(copies=state.copies, note=named(state.note, self._names), fork=state.fork)
            self._to(now, coordinator, known)
        for event in waiting.told:
            self._to(now, coordinator, event)

    def _cannot_lead(self, now: float, job: JobId, why: str) -> None:
        """What the job needs is not on this node: another replica may have it."""
        if self._waiting.pop(job, None) is not None:
            self.elect(now, election.StepDown(job=job, reason=why))
            self._emit(JobMoved(job=job))

    def _stop_leading(self, job: JobId) -> None:
        self._waiting.pop(job, None)
        self._led_due = None
        if self._led.pop(job, None) is not None:
            self._emit(JobMoved(job=job))

    def _tell(self, now: float, job: JobId, event: tasks.CoordinatorEvent) -> None:
        if (led := self._led.get(job)) is not None:
            self._to(now, led, event)
        elif (waiting := self._waiting.get(job)) is not None and len(waiting.told) < TOLD_WHILE_WAITING_MAX:
            waiting.told.append(event)

    def _to(self, now: float, job: Coordinator, event: tasks.CoordinatorEvent) -> None:
        self._led_due = None
        for effect in self._stepped(now, job, event):
            match effect:
                case tasks.ToWorker(node=node, message=message):
                    self._send(now, node, message)
                case tasks.ProposeCell(cell=cell, value=value):
                    self.elect(now, election.Propose(job=job.job, cell=cell, value=value))
                case tasks.AppendFacts(batch=batch):
                    self.elect(now, election.Append(job=job.job, batch=batch))
                case tasks.Conclude(view=view):
                    view = dated(self.core, view, self._names)
                    self.elect(now, election.Conclude(job=job.job, view=msgspec.msgpack.encode(view)))
                case tasks.JobChanged(view=view):
                    view = dated(self.core, view, self._names)
                    self._emit(tasks.JobChanged(job=job.job, view=view))
                    if view.phase.over:
                        self._told.add(job.job)
                    for origin in self._origins(job.job):
                        self._emit(tasks.JobChanged(job=origin, view=as_origin(origin, view)))
                case tasks.CallBack() | tasks.RemoveJob():
                    self._emit(effect)
                case tasks.TasksEnded() | tasks.Extended():
                    # whoever waits may know the job by the name that it had before it was forked
                    for name in (job.job, *self._origins(job.job)):
                        self._emit(msgspec.structs.replace(effect, job=name))
                case _:
                    assert_never(effect)

    def _stepped(
        self, now: float, job: Coordinator, event: tasks.CoordinatorEvent
    ) -> Sequence[tasks.CoordinatorEffect]:
        try:
            return job.step(now, event)
        except Exception as error:
            if self._faulted is None:
                raise
            self._led.pop(job.job, None)
            self._led_due = None
            self._faulted(job.job, error)
            self.elect(now, election.StepDown(job=job.job, reason=f"A fault of p2premap: {error!r}."))
            return ()

    # --- jobs that are over, and jobs of others -------------------------------------------------------------------

    def _conclude(self, now: float, job: JobId, data: bytes) -> None:
        view = msgspec.msgpack.decode(data, type=JobView)
        self._plans.pop(job, None)
        self._met.pop(job, None)
        self._concluded[job] = (view, now)
        while len(self._concluded) > self._config.jobs_kept_max:
            del self._concluded[next(iter(self._concluded))]
        if job not in self._told:
            self._emit(tasks.JobChanged(job=job, view=view))
        self._told.discard(job)
        self._compare_forks(now, job, view)

    def _compare_forks(self, now: float, job: JobId, view: JobView) -> None:
        """Forks of a job that is over now, and that have ended too: one that ended like the job is history."""
        for fork in self.core.jobs():
            state = self.core.job(fork)
            if state is None or state.record.origin != job or not state.record.view:
                continue
            end = msgspec.msgpack.decode(state.record.view, type=JobView)
            if alike(view, end):
                self.take(now, election.Forget(job=fork))
            else:
                self._emit(tasks.JobChanged(job=fork, view=beside(self.core, end)))

    def _copies(self, job: JobId) -> int:
        state = self.core.job(job)
        return state.copies if state is not None else 1
