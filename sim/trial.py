"""One seed of jobs under faults: nodes, clients that hand jobs in, strikes, then repair, and everything must end.

In the safety phase anything breaks; the checkers look at every effect and every write. Then all is repaired, and each
job that was acknowledged must end within `LIVENESS_S`, unless too many disks are lost (`Ledgers.excused`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from p2premap.ids import JobId
from p2premap.node.events import JobAccepted, JobRefused
from p2premap.sim.disks import Fault
from p2premap.sim.jobs import JobWorld
from p2premap.sim.machines import Disk, Seat
from p2premap.sim.ports import Executors
from p2premap.sim.strikes import KINDS, Strike, Striker, draw
from p2premap.sim.workloads import Shape, spec_of
from p2premap.sim.world import World
from p2premap.tasks.job import JobOptions, Phase

SAFETY_S: Final = 45.0
LIVENESS_S: Final = 120.0
"""Also a machine that was taken for dead for long is found again within a minute."""

REST_S: Final = 5.0
"""After the last job has ended, so long, so that what nobody wants any more has time to go."""

WHOLE_S: Final = 60.0
"""No trial is shorter."""

ASK_AGAIN_S: Final = 3.0
LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a trial depends on.

    Args:
        seed: of everything; what the other fields leave out or shorten leaves the rest as it was.
        nodes: how many.
        jobs: how many clients hand one in, within the first half of the safety phase.
        clients: those that do, by number; None: all.
        kept: the strikes that are carried out, by their place among those drawn; None: all.
        halved: (place, how often) of strikes whose time is halved.
        every_s: the mean time between two strikes.
        down_max: so many machines at most are down at a time.
        kinds: of strikes.
    """

    seed: int
    nodes: int = 7
    jobs: int = 3
    clients: tuple[int, ...] | None = None
    kept: tuple[int, ...] | None = None
    halved: tuple[tuple[int, int], ...] = ()
    every_s: float = 2.0
    down_max: int = 3
    kinds: tuple[str, ...] = KINDS

    def strikes(self) -> tuple[Strike, ...]:
        """What is carried out."""
        drawn = draw(Random(f"{self.seed}/strikes"), seconds=SAFETY_S, every_s=self.every_s, kinds=self.kinds)
        times = dict(self.halved)
        kept = range(len(drawn)) if self.kept is None else self.kept
        return tuple(replace(drawn[place], lasts_s=drawn[place].lasts_s / 2 ** times.get(place, 0)) for place in kept)

    def command(self) -> str:
        """The command line that runs just this again."""
        words = [f"python -m p2premap.sim.trials --seed {self.seed} --nodes {self.nodes} --jobs {self.jobs}"]
        if self.clients is not None:
            words.append(f"--clients {','.join(map(str, self.clients))}")
        if self.kept is not None:
            words.append(f"--strikes {','.join(map(str, self.kept)) or 'none'}")
        if self.halved:
            words.append(f"--halved {','.join(f'{place}:{times}' for place, times in self.halved)}")
        return " ".join(words)


@dataclass(slots=True, kw_only=True)
class Report:
    """What a trial has seen.

    Args:
        counts: faults that happened by kind, and "job", "acknowledged", "ended", "excused", "takeover", "cell",
            "protected" and so on.
        steps: of all cores.
        virtual_s: how long it was.
        trace: its hash.
    """

    counts: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    virtual_s: float = 0.0
    trace: str = ""


class Customer:
    """A client: hands one job in, again elsewhere under the same key until a node acknowledges it.

    Args:
        number: of the client.
        options: of the job.
    """

    def __init__(self, trial: Trial, number: int, shape: Shape, options: JobOptions) -> None:
        self.shape = shape
        self.job: JobId | None = None
        self._trial = trial
        self._world = trial.world
        self._random = trial.world.random("customer", number)
        self._key = f"job {number}".encode()
        self._spec = spec_of(shape, key=self._key, options=options)
        self._asked: tuple[Seat, int, int, float] | None = None
        self._world.clock.after(self._random.uniform(0, SAFETY_S / 2), self._look)

    def _look(self) -> None:
        """Has it been answered? Else ask, if it is time."""
        if self._asked is not None:
            seat, life, request, since = self._asked
            answer = self._trial.jobs.answer(seat, request)
            if isinstance(answer, JobAccepted):
                self.job = answer.job
                self._trial.acknowledged(self, answer)
                return
            gone = seat.life != life or self._world.now - since > ASK_AGAIN_S
            if gone or isinstance(answer, JobRefused):
                self._asked = None
        if self._asked is None and (live := self._world.live()):
            seat = self._random.choice(live)
            request = self._trial.jobs.request(seat, self._spec, self.shape)
            self._asked = (seat, seat.life, request, self._world.now)
        self._world.clock.after(LOOK_S, self._look)


class Trial:
    """A world of jobs under faults; `run` it.

    Args:
        plan: see there.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report = Report()
        self.jobs = JobWorld(plan.nodes, seed=plan.seed, executors=Executors(), replay=plan.command())
        self.world: World = self.jobs.world
        self.customers: list[Customer] = []
        random = self.world.random("plan")
        for number in range(plan.jobs):
            shape, options = _shape(random), _options(random)
            if plan.clients is None or number in plan.clients:
                self.customers.append(Customer(self, number, shape, options))
        self._striker = Striker(self, plan.strikes(), down_max=plan.down_max)

    def run(self) -> Report:
        """Both phases.

        Raises:
            InvariantBroken: by the checker's name.
        """
        try:
            self.world.run_for(SAFETY_S)
            self._striker.end()
            self.world.run_until(self._all_over, limit_s=LIVENESS_S)
            self._check_ends()
            self.world.run_for(max(REST_S, WHOLE_S - self.world.now))
            if not self.jobs.idle():
                raise self.world.broken("idle", "a slot is busy although all jobs have ended")
        finally:
            self._sum_up()
        return self.report

    def acknowledged(self, customer: Customer, answer: JobAccepted) -> None:
        """A client has its answer."""
        self.report.counts["acknowledged"] += 1
        self.jobs.know(answer.job, customer.shape)

    def _all_over(self) -> bool:
        return all(customer.job is not None and self._over(customer.job) for customer in self.customers)

    def _over(self, job: JobId) -> bool:
        return self._ended(job) or self.jobs.ledgers.excused(job)

    def _ended(self, job: JobId) -> bool:
        """What a fork has shown does not count: the original goes on once its quorum is back."""
        last = self.jobs.shown.last.get(job)
        return last is not None and last.phase.over

    def _check_ends(self) -> None:
        for customer in self.customers:
            if customer.job is None:
                raise self.world.broken("answers", "a client is not answered although all is well")
            if self._ended(customer.job):
                if (view := self.jobs.view(customer.job)).phase is not Phase.DONE:
                    raise self.world.broken("ends well", f"a job ended as {view.phase.value}: {view.error}")
                self.jobs.check(customer.job)
                self.report.counts["ended"] += 1
            elif self.jobs.ledgers.excused(customer.job):
                self.report.counts["excused"] += 1
            else:
                raise self.world.broken("ends", f"a job does not end: {self.jobs.shown.last.get(customer.job)}")

    def _sum_up(self) -> None:
        report = self.report
        ledgers = self.jobs.ledgers
        report.counts.update(self._striker.counts)
        report.counts.update(ledgers.counts)
        report.counts["job"] += len(self.customers)
        report.counts["blob lost with the power"] += self.jobs.hosts.lost_blobs
        report.counts["write lost with the power"] += sum(d.ledger.lost_writes for d in self.jobs.hosts.desks.values())
        report.steps, report.virtual_s = self.world.steps, self.world.now
        report.trace = self.world.trace.digest()

    # --- p2premap.sim.strikes.Target ------------------------------------------------------------------------------

    def start(self, seat: Seat, disk: Disk) -> None:
        """Start a node."""
        self.jobs.start(seat, disk)

    def set_disk(self, seat: Seat, fault: Fault) -> None:
        """From now on this is wrong with a machine's disk."""
        self.jobs.hosts.desks[seat.node].ledger.fault = fault

    def set_slow(self, seat: Seat, slow: bool) -> None:
        """Attempts at this machine take long, or do not any more."""
        self.jobs.hosts.desks[seat.node].slow = slow

    def crash_workers(self, seat: Seat, count: int) -> None:
        """The next attempts there end with their worker process."""
        self.jobs.hosts.desks[seat.node].crashes += count


def _shape(random: Random) -> Shape:
    """A job of some seconds on a few nodes."""
    return Shape(
        maps=random.randint(5, 40),
        reduces=random.choice((0, 1, 5)),
        map_s=random.choice((0.1, 0.5, 1.5)),
        reduce_s=random.choice((0.1, 1.0)),
        steady=random.random() < 0.5,
        inline=random.random() < 0.4,
    )


def _options(random: Random) -> JobOptions:
    return JobOptions(strict=random.random() < 0.5, copies=random.choice((1, 2, 3, 3, 3)), attempts_max=10_000)
