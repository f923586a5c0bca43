"""A world of whole nodes that run jobs, ready for a scenario."""

from __future__ import annotations

from p2premap.config import TasksConfig
from p2premap.gossip.events import Hinted
from p2premap.ids import JobId
from p2premap.node.core import NodeCore
from p2premap.node.events import CancelJob, JobAccepted, SubmitJob
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.network import NetworkConfig
from p2premap.sim.ports import Executors, NodeHost, NodeHosts
from p2premap.sim.workloads import Shape, spec_of
from p2premap.sim.world import InvariantBroken, World
from p2premap.tasks.job import JobOptions, JobView, Phase


class JobWorld:
    """Nodes 0 to n-1, which know each other.

    Args:
        nodes: how many.
        seed: of everything.
        slots: of each node.
        network: how good the network is.
        executors: how well attempts run.
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
    ) -> None:
        self.hosts = NodeHosts(slots=slots, executors=executors, tasks_config=config)
        self.world = World(seed=seed, hosts=self.hosts, network=network)
        self.hosts.world = self.world
        self._shapes: dict[JobId, tuple[Seat, Shape]] = {}
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

    def submit(self, shape: Shape, *, at: int = 0, key: bytes = b"job", options: JobOptions | None = None) -> JobId:
        """Hand a job in at a node, which leads it."""
        seat = self.world.seats[at]
        desk = self.hosts.desks[seat.node]
        spec = spec_of(shape, key=key, options=options)
        self.world.tell(seat, SubmitJob(request=len(desk.answers), spec=spec, plan=shape.encode()))
        answer = desk.answers[-1]
        if not isinstance(answer, JobAccepted):
            raise self.world.broken("accepts", f"the job was refused: {answer.text}", seat)
        self._shapes[answer.job] = (seat, shape)
        return answer.job

    def cancel(self, job: JobId) -> None:
        """Ask its leader to end the job."""
        self.world.tell(self._shapes[job][0], CancelJob(job=job, reason="enough"))

    def view(self, job: JobId) -> JobView:
        """The job as last shown by its leader."""
        seat, _ = self._shapes[job]
        return self.hosts.desks[seat.node].views[job]

    def over(self, job: JobId) -> bool:
        """Whether the job has ended."""
        seat, _ = self._shapes[job]
        view = self.hosts.desks[seat.node].views.get(job)
        return view is not None and view.phase.over

    def until_over(self, *jobs: JobId, limit_s: float = 120.0) -> JobView:
        """Let time pass until the jobs have ended and been checked; the last one's view.

        Raises:
            InvariantBroken: `ends`, `parts` or `lineage`.
        """
        for job in jobs:
            if not self.world.run_until(lambda job=job: self.over(job), limit_s=limit_s):  # type: ignore[misc]
                raise self.world.broken("ends", f"the job does not end: {self.view(job)}", self._shapes[job][0])
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

    def check(self, job: JobId) -> None:
        """The parts of a finished job: all of them, each somewhere, of one lineage.

        Raises:
            InvariantBroken: `parts` or `lineage`.
        """
        seat, shape = self._shapes[job]
        view = self.view(job)
        if view.phase is not Phase.DONE or shape.inline:
            return
        if [part.number for part in view.parts] != list(range(shape.reduces or shape.maps)):
            raise self.world.broken("parts", f"the parts are {[p.number for p in view.parts]}", seat)
        came = set()
        for part in view.parts:
            content = self._content(part.source.digest, part.source.holders)
            if content is None:
                raise self.world.broken("parts", f"part {part.number} is nowhere", seat)
            came.add(content.split(b"/")[2])
        if len(came) > 1:
            raise self.world.broken("lineage", f"the parts come from {len(came)} lineages", seat)

    def _content(self, digest: bytes, holders: tuple[bytes, ...]) -> bytes | None:
        found = (desk.blobs.get(digest) for node, desk in self.hosts.desks.items() if node in holders)  # type: ignore[call-overload]
        return next((content for content in found if content is not None), None)

    def _all_know_all(self) -> bool:
        live = self.world.live()
        return all(len([v for v in self.core(s).node_views(0.0) if v.slots]) >= len(live) for s in live)


__all__ = ["InvariantBroken", "JobWorld"]
