"""A world of whole nodes that run jobs, ready for a scenario."""

from __future__ import annotations

import itertools

from p2premap.config import TasksConfig
from p2premap.gossip.events import Hinted
from p2premap.ids import Digest, JobId
from p2premap.node.core import NodeCore
from p2premap.node.events import CancelJob, JobAccepted, JobRefused, SubmitJob
from p2premap.sim.checkers import Quiet
from p2premap.sim.ledgers import Ledgers
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.network import NetworkConfig
from p2premap.sim.observers import InvariantBroken
from p2premap.sim.ports import Executors, NodeHost, NodeHosts
from p2premap.sim.workloads import Shape, digest_of, spec_of
from p2premap.sim.world import World
from p2premap.tasks.events import JobChanged
from p2premap.tasks.job import JobOptions, JobSpec, JobView, Phase

ANSWER_S = 30.0


class Shown(Quiet):
    """What nodes have shown of jobs.

    `sticky`: nobody shows another end of a job than was shown before, and no process takes back that it is over. (One
    that is cut off may for a while show as running what ended elsewhere.) What a fork shows is provisional.
    """

    kinds: tuple[type, ...] = (JobChanged,)

    def __init__(self, world: World) -> None:
        self.world = world
        self.last: dict[JobId, JobView] = {}
        """The last view of each job; of one that is over, the first that said so."""
        self.forked: dict[JobId, JobView] = {}
        """The same of what its forks show."""
        self._said: set[tuple[int, int, JobId]] = set()
        world.observe(self)

    def effect(self, seat: Seat, effect: object) -> None:
        if not isinstance(effect, JobChanged):
            return
        view = effect.view
        if view.fork:
            self.forked[effect.job] = view
            return
        before = self.last.get(effect.job)
        process = (seat.index, seat.life, effect.job)
        if before is None or not before.phase.over:
            self.last[effect.job] = view
        elif (before.phase, _outcome(before)) != (view.phase, _outcome(view)) and (
            view.phase.over or process in self._said
        ):
            text = f"{seat} shows {_brief(view)} of a job that was shown as {_brief(before)}"
            raise self.world.broken("sticky", text, seat)
        if view.phase.over:
            self._said.add(process)


def _outcome(view: JobView) -> tuple[object, ...]:
    return (view.error, tuple((part.number, part.source.digest) for part in view.parts))


def _brief(view: JobView) -> str:
    return f"{view.phase.value} with {len(view.parts)} parts and the error {view.error!r}"


class JobWorld:
    """Nodes 0 to n-1, which know each other.

    Args:
        nodes: how many.
        seed: of everything.
        slots: of each node.
        network: how good the network is.
        executors: how well attempts run.
        replay: the command that repeats this run.
    """

    def __init__(
        self,
        nodes: int,
        *,
        seed: int,
        slots: int = 2,
        network: NetworkConfig | None = None,
        executors: Executors | None = None,
        config: TasksConfig | None = None,
        replay: str = "",
    ) -> None:
        self.hosts = NodeHosts(slots=slots, executors=executors, tasks_config=config)
        self.world = World(seed=seed, hosts=self.hosts, network=network, replay=replay)
        self.shown = Shown(self.world)
        self.ledgers = Ledgers(self.world, lambda seat: self.core(seat).outbox.waiting(), self.hosts.has_all)
        self.hosts.settle(self.world, self.ledgers)
        self._requests = itertools.count(1)
        self._shapes: dict[JobId, Shape] = {}
        self._strangers: list[tuple[Seat, Seat]] = []
        for _ in range(nodes):
            self.world.add()
        for seat in self.world.seats:
            self.start(seat)
        if not self.world.run_until(self._all_know_all, limit_s=30.0):
            raise self.world.broken("forms", "the nodes do not find each other")

    def start(self, seat: Seat, disk: Disk = Disk.KEPT) -> None:
        """Start a node; it hears of another one."""
        self.world.start(seat, disk)
        other = next((s for s in self.world.live() if s is not seat), None)
        if other is not None:
            self.world.hint(seat, Hinted(address=other.address, node=None))

    # --- jobs -----------------------------------------------------------------------------------------------------

    def submit(
        self,
        shape: Shape,
        *,
        at: int = 0,
        key: bytes = b"job",
        options: JobOptions | None = None,
        again: bool = False,
    ) -> JobId:
        """Hand a job in at a node, and wait until it is acknowledged."""
        seat = self.world.seats[at]
        request = self.request(seat, spec_of(shape, key=key, options=options), shape, again=again)
        self.world.run_until(lambda: self.answer(seat, request) is not None, limit_s=ANSWER_S)
        answer = self.answer(seat, request)
        if not isinstance(answer, JobAccepted):
            text = "is not answered" if answer is None else f"was refused: {answer.text}"
            raise self.world.broken("accepts", f"the job {text}", seat)
        self.know(answer.job, shape)
        return answer.job

    def request(self, seat: Seat, spec: JobSpec, shape: Shape, *, again: bool = False) -> int:
        """Ask a node to take a job, `again`: perhaps one that was handed in elsewhere; the number of the request."""
        desk = self.hosts.desks[seat.node]
        for blob in (b"code", shape.encode()):
            desk.blobs[digest_of(blob)] = blob
        number = next(self._requests)
        self.world.tell(seat, SubmitJob(request=number, spec=spec, plan=shape.encode(), again=again))
        return number

    def answer(self, seat: Seat, request: int) -> JobAccepted | JobRefused | None:
        """What the node has answered."""
        answers = self.hosts.desks[seat.node].answers
        return next((answer for answer in answers if answer.request == request), None)

    def know(self, job: JobId, shape: Shape) -> None:
        """This is what the job looks like."""
        self._shapes[job] = shape

    def leader(self, job: JobId) -> Seat | None:
        """The machine whose process leads the job, as it believes itself; None where nobody does."""
        return next((seat for seat in self.world.live() if self.core(seat).jobs.leads(job)), None)

    def cancel(self, job: JobId) -> None:
        """Ask its leader to end the job."""
        leader = self.leader(job)
        assert leader is not None, "nobody leads the job"
        self.world.tell(leader, CancelJob(job=job, reason="enough"))

    def view(self, job: JobId) -> JobView:
        """The job as last shown by anybody; by a fork of it where only that has ended."""
        last, forked = self.shown.last.get(job), self.shown.forked.get(job)
        if forked is not None and forked.phase.over and (last is None or not last.phase.over):
            return forked
        return self.shown.last[job]

    def over(self, job: JobId) -> bool:
        """Whether the job, or a fork of it, has ended."""
        return (job in self.shown.last or job in self.shown.forked) and self.view(job).phase.over

    def until_over(self, *jobs: JobId, limit_s: float = 120.0) -> JobView:
        """Let time pass until the jobs have ended and been checked; the last one's view.

        Raises:
            InvariantBroken: `ends`, `parts` or `lineage`.
        """
        for job in jobs:
            if not self.world.run_until(lambda job=job: self.over(job), limit_s=limit_s):  # type: ignore[misc]
                raise self.world.broken("ends", f"the job does not end: {self.shown.last.get(job)}", self.leader(job))
            self.check(job)
        return self.view(jobs[-1])

    def attempts(self) -> int:
        """Attempts that have run at all nodes."""
        return sum(desk.attempts for desk in self.hosts.desks.values())

    def idle(self) -> bool:
        """Whether no living node has a busy slot."""
        return all(self.core(seat).worker.busy == 0 for seat in self.world.live())

    def core(self, seat: Seat) -> NodeCore:
        """The node's core."""
        assert isinstance(seat.host, NodeHost), "the node does not run"
        return seat.host.core

    # --- checks ---------------------------------------------------------------------------------------------------

    def check(self, job: JobId) -> None:
        """The parts of a finished job: all of them, of one lineage, and each somewhere, unless a disk has lost it.

        Raises:
            InvariantBroken: `parts` or `lineage`.
        """
        shape, view = self._shapes[job], self.view(job)
        if view.phase is not Phase.DONE or shape.inline:
            return
        if [part.number for part in view.parts] != list(range(shape.reduces or shape.maps)):
            raise self.world.broken("parts", f"the parts are {[p.number for p in view.parts]}")
        came = set()
        for part in view.parts:
            content = self.hosts.content(Digest(part.source.digest), part.source.holders)
            if content is not None:
                came.add(content.split(b"/")[2])
            elif not self.hosts.was_lost(Digest(part.source.digest)):
                raise self.world.broken("parts", f"part {part.number} is nowhere")
        if len(came) > 1:
            raise self.world.broken("lineage", f"the parts come from {len(came)} lineages")

    def _all_know_all(self) -> bool:
        """Asked after every event: whoever did not know another one the last time is asked first."""
        while self._strangers:
            one, other = self._strangers[-1]
            if self.core(one).capabilities(other.node) is None:
                return False
            self._strangers.pop()
        live = self.world.live()
        self._strangers = [
            (one, other) for one in live for other in live if self.core(one).capabilities(other.node) is None
        ]
        return not self._strangers


__all__ = ["InvariantBroken", "JobWorld", "Shown"]
