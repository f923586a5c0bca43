"""One simulated cluster from its start to its end, as a user asks for it: what was done, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from p2premap.errors import ConfigError
from p2premap.sim.cluster import Cluster
from p2premap.sim.faults import Faults
from p2premap.sim.network import NetworkConfig
from p2premap.sim.scenarios import SETTLE_S, quantile

NODES_MAX = 10_000

SECONDS_MAX = 86_400.0

FORMED_MAX = 400
"""Larger clusters begin with everybody knowing everybody; forming is asked for each time by --form."""

KNOWN_WITHIN_S = 30.0
WHOLE_WITHIN_S = 75.0
"""The longest that anything lasts: a rumour of a stall whose accuser died too is looked into after at most 60 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What to simulate.

    Args:
        nodes: how many.
        seed: of everything.
        loss: of datagrams and packets, in percent.
        kill: so many machines lose power, one after the other.
        crash: so many processes are killed.
        leave: so many nodes leave in good order.
        cut_s: for so long the cluster is cut into two halves; 0: never.
        stall_s: for so long one node stands still; 0: never.
        faults_s: for so long anything breaks at random, and then must become well; 0: never.
        seconds: in rest, before and after.
        form: start all from nothing, also where there are many.
    """

    nodes: int = 50
    seed: int = 1
    loss: float = 0.0
    kill: int = 0
    crash: int = 0
    leave: int = 0
    cut_s: float = 0.0
    stall_s: float = 0.0
    faults_s: float = 0.0
    seconds: float = 10.0
    form: bool = False

    def __post_init__(self) -> None:
        gone = self.kill + self.crash + self.leave
        if not 1 <= self.nodes <= NODES_MAX:
            raise ConfigError(f"--nodes is {self.nodes}; a simulated cluster has 1 to {NODES_MAX} nodes.")
        if gone >= self.nodes:
            raise ConfigError(f"{gone} of {self.nodes} nodes are to go; at least one must stay to notice.")
        if not 0 <= self.loss <= 90:
            raise ConfigError(f"--loss is {self.loss:g}; give a percentage from 0 to 90.")
        for option in ("cut_s", "stall_s", "faults_s", "seconds"):
            if not 0 <= getattr(self, option) <= SECONDS_MAX:
                name, value = option.removesuffix("_s"), getattr(self, option)
                raise ConfigError(f"--{name} is {value:g}; give 0 to {SECONDS_MAX:g} seconds.")
        if min(self.kill, self.crash, self.leave) < 0:
            raise ConfigError("--kill, --crash and --leave must not be negative.")
        if self.cut_s and self.nodes < 2:
            raise ConfigError("--cut needs at least 2 nodes.")

    def command(self) -> str:
        """The command line that asks for just this."""
        plain = Wishes()
        words = [f"p2premap sim --nodes {self.nodes} --seed {self.seed}"]
        for option, name in OPTIONS.items():
            value = getattr(self, name)
            if value != getattr(plain, name):
                words.append(option if value is True else f"{option} {value:g}")
        return " ".join(words)


OPTIONS = {
    "--loss": "loss",
    "--kill": "kill",
    "--crash": "crash",
    "--leave": "leave",
    "--cut": "cut_s",
    "--stall": "stall_s",
    "--faults": "faults_s",
    "--seconds": "seconds",
    "--form": "form",
}
"""What a command line may add to nodes and seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One thing that was done.

    Args:
        at_s: virtual seconds since the beginning.
        what: one line for people.
        first_s, median_s, all_s: how long afterwards the first, half, and all of the others knew; None where nobody
            had to learn of it, or not all did in time.
    """

    at_s: float
    what: str
    first_s: float | None = None
    median_s: float | None = None
    all_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Story:
    """What happened. `ok` is false where something that must hold did not."""

    wishes: Wishes
    deeds: list[Deed] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    ok: bool = True
    problem: str = ""
    false_dead: int = 0
    left_as_dead: int = 0
    bytes_per_node_s: float = 0.0
    datagrams_per_node_s: float = 0.0
    datagrams: int = 0
    datagrams_lost: int = 0
    virtual_s: float = 0.0
    real_s: float = 0.0
    steps: int = 0
    trace: str = ""


class Teller:
    """Runs a story.

    Args:
        wishes: what to do.
        progress: called with a line when something begins.
    """

    def __init__(self, wishes: Wishes, progress: Callable[[str], None] = lambda _: None) -> None:
        self.wishes = wishes
        self.story = Story(wishes=wishes)
        self.cluster = Cluster(
            wishes.nodes,
            seed=wishes.seed,
            network=NetworkConfig(loss=wishes.loss / 100),
            strict=not (wishes.loss or wishes.faults_s),
            replay=wishes.command(),
        )
        self.world = self.cluster.world
        self._progress = progress

    def tell(self) -> Story:
        """Do everything that is wished, in the order of the options.

        Raises:
            InvariantBroken: what must hold did not; `story` tells as far as it went.
        """
        wishes, began = self.wishes, time.perf_counter()
        try:
            self._begin()
            self._rest(wishes.seconds)
            for _ in range(wishes.kill):
                self._lose("lost power", self.world.power_off)
            for _ in range(wishes.crash):
                self._lose("was killed", self.world.crash)
            for _ in range(wishes.leave):
                self._lose("left", self.world.leave)
            if wishes.stall_s:
                self._stall(wishes.stall_s)
            if wishes.cut_s:
                self._cut(wishes.cut_s)
            if wishes.faults_s:
                self._break(wishes.faults_s)
        finally:
            self._sum_up(time.perf_counter() - began)
        return self.story

    def _did(
        self, what: str, since: float | None = None, delays_s: list[float] | None = None, all_: bool = True
    ) -> None:
        deed = Deed(
            at_s=self.world.now if since is None else since,
            what=what,
            first_s=delays_s[0] if delays_s else None,
            median_s=quantile(delays_s, 0.5) if delays_s else None,
            all_s=delays_s[-1] if delays_s and all_ else None,
        )
        self.story.deeds.append(deed)
        self._progress(what)

    def _begin(self) -> None:
        wishes = self.wishes
        if wishes.form or wishes.nodes <= FORMED_MAX:
            took_s = self.cluster.form(limit_s=WHOLE_WITHIN_S)
            self._did(f"{wishes.nodes} nodes started within 0.5 s and found each other", 0.0, [took_s])
        else:
            self.cluster.preload()
            self._did(f"{wishes.nodes} nodes that know each other")
        self.world.run_for(SETTLE_S)

    def _rest(self, seconds: float) -> None:
        seats = self.world.live()
        sent = sum(seat.bytes_sent for seat in seats)
        datagrams = sum(seat.datagrams_sent for seat in seats)
        self.world.run_for(seconds)
        if seconds:
            node_s = len(seats) * seconds
            self.story.bytes_per_node_s = (sum(seat.bytes_sent for seat in seats) - sent) / node_s
            self.story.datagrams_per_node_s = (sum(seat.datagrams_sent for seat in seats) - datagrams) / node_s
            self._did(f"rest for {seconds:g} s")

    def _lose(self, how: str, action: Callable[..., None]) -> None:
        self.world.run_for(self.cluster.random.uniform(0.0, 1.0))
        victim = self.cluster.random.choice(self.world.live())
        since = self.world.now
        watch = self.cluster.known_gone(victim)
        name = victim.name
        action(victim)
        all_know = self.world.run_until(lambda: watch.done, limit_s=KNOWN_WITHIN_S)
        self._did(f"node {name} {how}", since, watch.delays_s(), all_know)
        if not all_know:
            raise self.world.broken("detection", f"{len(watch.missing)} nodes never learned that {name} {how}")

    def _stall(self, seconds: float) -> None:
        seat = self.cluster.random.choice(self.world.live())
        self._did(f"node {seat.name} stood still for {seconds:g} s")
        self.world.pause(seat)
        self.world.run_for(seconds)
        self.world.resume(seat)
        self.world.run_for(SETTLE_S)

    def _cut(self, seconds: float) -> None:
        live = self.world.live()
        since, half = self.world.now, len(live) // 2
        cut = self.world.network.cut(live[:half], live[half:])
        self.world.run_for(seconds)
        self.world.network.heal(cut)
        took_s = self.cluster.until_whole(WHOLE_WITHIN_S, "heals")
        self._did(
            f"cut into {half} and {len(live) - half} for {seconds:g} s; whole again after healing", since, [took_s]
        )

    def _break(self, seconds: float) -> None:
        since = self.world.now
        faults = Faults(self.cluster, random=self.world.random("faults"))
        self.world.run_for(seconds)
        faults.end()
        took_s = self.cluster.until_whole(WHOLE_WITHIN_S, "liveness")
        self.story.faults = dict(sorted(faults.counts.items()))
        self._did(f"{faults.happened} random faults in {seconds:g} s, then repair; all well again", since, [took_s])

    def _sum_up(self, real_s: float) -> None:
        story, fates = self.story, self.world.network.fates
        story.false_dead = len(self.cluster.false_dead.seen)
        story.left_as_dead = len(self.cluster.left.misreported)
        story.datagrams = fates.sent
        story.datagrams_lost = fates.lost
        story.virtual_s = self.world.now
        story.real_s = real_s
        story.steps = self.world.steps
        story.trace = self.world.trace.digest()
