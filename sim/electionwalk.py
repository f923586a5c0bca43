"""An untimed random walk over the election cores of a few nodes, with a disk and a gossip for each.

Whatever could happen next may happen next: any message in flight is delivered (in order on each link), or lost with
its link; a write reaches the disk, or fails, or is lost with its node; a node crashes at any step, or right
after the n-th effect of the walk, and comes back with what its disk held; anybody is taken for dead or doubtful,
rightly or not; nodes are cut from each other; jobs are created, their leaders append, propose, hand over and conclude.
Time only moves when somebody's deadline is the next thing. Then a liveness phase: nothing more goes wrong among some
nodes that have a quorum, the others are gone for good, and everything that was begun must be brought to its end.

`p2premap.sim.electionmodel` checks what the cores promise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from p2premap.config import ElectionConfig
from p2premap.election import events
from p2premap.ids import JOB_ID_BYTES, JobId, NodeId
from p2premap.sim.electionmodel import CELLS, Node, Violated
from p2premap.sim.electionnodes import Nodes
from p2premap.sim.electionsettings import CALM, SETTINGS, Faults, Setting

LOOK = 0.15
LIVENESS_STEPS_MAX = 20_000

SHORT_STEPS = 40
STEPS = 80
CHANGE_STEPS = 120
"""How long walks are: without a liveness phase, with one, and over replica sets and disks that change."""


class Walk(Nodes):
    """A few nodes and their jobs.

    Args:
        seed: of every choice.
        nodes: how many.
        faults: what may go wrong.
        jobs: how many are created at most.
        copies: replicas a job.
        first: it has no more of them at first.
        strict: the jobs are.
        encoded: messages travel as bytes.
        crash_after: the n-th effect of the whole walk is the last one of its node's life.
    """

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 3,
        faults: Faults | None = None,
        jobs: int = 1,
        copies: int = 3,
        first: int = 9,
        strict: bool = True,
        encoded: bool = False,
        crash_after: int | None = None,
        config: ElectionConfig | None = None,
    ) -> None:
        self.faults = faults or Faults()
        self.copies = copies
        self.first = min(first, copies)
        self.strict = strict
        self.effects_before_calm = 0
        self.counts: dict[str, int] = {}
        self.jobs_left = jobs
        self.serial = 0
        super().__init__(
            seed,
            nodes,
            strict=strict,
            encoded=encoded,
            crash_after=crash_after,
            change_crash=self.faults.change_crash,
            config=config,
        )

    # --- the two phases -----------------------------------------------------------------------------------------------

    def run(self, steps: int, *, liveness: bool = True) -> None:
        """A safety phase of so many steps, then a liveness phase."""
        self._begin()
        for _ in range(steps):
            self._one(self.faults)
        if liveness:
            self._calm()

    def _begin(self) -> None:
        """A first job is created and led, mostly."""
        if self.faults.create:
            self._create(self.random.choice(self._up()))
            for _ in range(self.random.choice((0, 100, 100, 100))):
                if not self._busy():
                    break
                self._one(CALM)

    def _calm(self) -> None:
        """Nothing more goes wrong among some nodes; the rest are gone for good."""
        self.note("--", "nothing more goes wrong")
        self.effects_before_calm = self.effects
        healthy = self._choose_healthy()
        self.crash_after, self.change_crash = None, 0.0
        for node in self.nodes.values():
            if node.id not in healthy and node.core is not None:
                self._crash(node)
            node.full = False
        self.wires.cuts.clear()
        for node in self.nodes.values():
            if node.id in healthy and node.core is None:
                self._start(node)
        for node in self._up():
            for other in self.nodes.values():
                self._tell_truth(node, other)
        for _ in range(LIVENESS_STEPS_MAX):
            if not self._busy() and not self.model.unsettled():
                break
            self._one(CALM)
            if not self._busy():
                self._conclude_business()
        else:
            raise Violated(f"liveness: {self.model.unsettled()}")
        self.model.check_end()

    def _choose_healthy(self) -> set[NodeId]:
        """Some nodes with which every job has a quorum in the latest replica set that anybody knows."""
        ids = list(self.nodes)
        self.random.shuffle(ids)
        count = self.random.randint(1, len(ids))
        while not self.model.can_go_on(set(ids[:count])):
            count += 1
        return set(ids[:count])

    def _conclude_business(self) -> None:
        """Every leader proposes what is left to be proposed."""
        for node in self._up():
            for job in list(node.led):
                for cell in CELLS:
                    if job in node.led and cell not in node.led[job].proposed:
                        self._append(node, job)
                        if job in node.led:
                            self._propose(node, job, cell)

    def _one(self, faults: Faults) -> None:
        """One thing happens."""
        choices: list[tuple[float, str, Callable[[], None]]] = []
        if links := self.wires.waiting():
            choices.append((100.0, "deliver", lambda: self.wires.deliver(links)))
        up = self._up()
        if writing := [node for node in up if node.writes]:
            choices.append((60.0, "persist", lambda: self._persist(self.random.choice(writing))))
        if asked := [node for node in up if node.loads or node.asked]:
            choices.append((60.0, "answer", lambda: self._answer(self.random.choice(asked))))
        if not choices or self.random.random() < LOOK:
            # costly to find out, so looked at now and then, with more weight
            if wrong := [(a, b) for a in up for b in self.nodes.values() if a.told.get(b.id) != self.wires.truth(a, b)]:
                choices.append((15.0 / LOOK, "gossip", lambda: self._tell_truth(*self.random.choice(wrong))))
            if (when := min((n.core.deadline() for n in up if n.core), default=math.inf)) < math.inf:
                choices.append((faults.time / LOOK if choices else 100.0, "tick", lambda: self._tick(when)))
        choices += self._work_choices(faults, up)
        choices += self._fault_choices(faults, up)
        choices = [c for c in choices if c[0] > 0]
        if not choices:
            return
        _, word, act = self.random.choices(choices, [c[0] for c in choices])[0]
        self.counts[word] = self.counts.get(word, 0) + 1
        act()

    def _work_choices(self, faults: Faults, up: list[Node]) -> list[tuple[float, str, Callable[[], None]]]:
        choices: list[tuple[float, str, Callable[[], None]]] = []
        if self.jobs_left and up:
            choices.append((faults.create, "create", lambda: self._create(self.random.choice(up))))
        if leading := [(node, job) for node in up for job in node.led]:

            def pick() -> tuple[Node, JobId]:
                return self.random.choice(leading)

            choices += [
                (faults.append, "append", lambda: self._append(*pick())),
                (faults.propose, "propose", lambda: self._propose(*pick(), self.random.choice(CELLS))),
                (faults.conclude, "conclude", lambda: self._conclude(*pick())),
                (faults.torn, "torn", lambda: self._tear(*pick())),
                (faults.hand_over, "hand over", lambda: self._step(pick()[0], events.HandOver())),
            ]
        return choices

    def _fault_choices(self, faults: Faults, up: list[Node]) -> list[tuple[float, str, Callable[[], None]]]:
        choices: list[tuple[float, str, Callable[[], None]]] = []
        if down := [node for node in self.nodes.values() if node.core is None]:
            choices.append((faults.back, "back", lambda: self._start(self.random.choice(down))))
            if faults.old_disk and (copied := [node for node in down if self.model.old_image(node)]):
                choices.append((faults.old_disk, "old disk", lambda: self._restore(self.random.choice(copied))))
        if up:
            choices += [
                (faults.crash, "crash", lambda: self._crash(self._one_of(up, [n for n in up if n.writes]))),
                (faults.disk_full, "disk full", lambda: self._fill(self.random.choice(up))),
                (faults.woke, "woke", lambda: self._step(self.random.choice(up), events.Woke(lost_s=1.0))),
            ]
        if len(up) > 1:
            choices += [
                (faults.unlink, "unlink", lambda: self._break(up)),
                (faults.cut, "cut", lambda: self._cut(up)),
                (faults.false_death, "false death", lambda: self._mistake(up)),
                (faults.doubt, "doubt", lambda: self._tell("doubtful", *self.random.sample(up, 2))),
            ]
        if self.wires.cuts:
            choices.append((faults.heal, "heal", self.wires.heal))
        return choices

    # --- work ---------------------------------------------------------------------------------------------------------

    def _create(self, node: Node) -> None:
        self.jobs_left -= 1
        self.serial += 1
        others = [id for id, (state, _) in node.told.items() if state == "seen"]
        self.random.shuffle(others)
        members = (node.id, *others[: self.first - 1])
        key = b"key-%d" % self.serial
        job = JobId((b"job%d" % self.serial).ljust(JOB_ID_BYTES, b"."))
        self._step(
            node,
            events.CreateJob(
                request=self.serial,
                job=job,
                members=members,
                key=key,
                spec=b"spec",
                strict=self.strict,
                copies=self.copies,
            ),
        )

    def _append(self, node: Node, job: JobId) -> None:
        led = node.led[job]
        for _ in range(self.random.choice((1, 1, 3))):
            self.serial += 1
            batch = b"%d by %s" % (self.serial, str(node).encode())
            led.facts.append(batch)
            self._step(node, events.Append(job=job, batch=batch))
            if job not in node.led:
                return

    def _propose(self, node: Node, job: JobId, cell: str) -> None:
        led = node.led[job]
        if cell not in led.proposed:
            led.proposed[cell] = self.model.pin(led.facts)
            self._step(node, events.Propose(job=job, cell=cell, value=led.proposed[cell]))

    def _conclude(self, node: Node, job: JobId) -> None:
        """Only what was decided ends a job."""
        if (job, "end") in self.model.decided:
            self._step(node, events.Conclude(job=job, view=self.model.decided[job, "end"]))
        else:
            self._propose(node, job, "end")

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def _fill(self, node: Node) -> None:
        node.full = True

    def _one_of(self, any_of: list[Node], rather: list[Node]) -> Node:
        """Where it hurts most, or anywhere."""
        return self.random.choice(rather if rather and self.random.random() < 0.7 else any_of)

    def _mistake(self, up: list[Node]) -> None:
        """Somebody is taken for dead who is not: a leader, rather."""
        other = self._one_of(up, [node for node in up if node.led])
        self._tell("gone", self.random.choice([node for node in up if node is not other]), other)

    def _break(self, up: list[Node]) -> None:
        """A link breaks: one with something on it, rather."""
        one = self._one_of(up, [node for node in up if self.wires.busy(node)])
        self.wires.unlink(one, self.random.choice([node for node in up if node is not one]))

    def _cut(self, up: list[Node]) -> None:
        """Some are cut off from the others."""
        self.wires.cut(self.random.sample(up, self.random.randint(1, len(up) - 1)))

    def _tear(self, node: Node, job: JobId) -> None:
        """A leader loses all its links in the moment in which its tasks have facts."""
        for other in self._up():
            if other is not node and node.core is not None:
                self.wires.unlink(node, other, 0.3)
        if job in node.led:
            self._append(node, job)


def walk_of(seed: int, *, strict: bool | None = None, encoded: bool = False, kind: Setting | None = None) -> Walk:
    """The walk of this number: settings take turns, and so do strict jobs and others, where that is not given."""
    setting = kind or list(SETTINGS.values())[seed % len(SETTINGS)]
    turn = seed if kind else seed // len(SETTINGS)
    return Walk(
        seed,
        nodes=setting.nodes[turn % len(setting.nodes)],
        faults=setting.faults,
        copies=setting.copies[turn // 4 % len(setting.copies)],
        first=setting.first[turn // 4 % len(setting.first)],
        strict=bool(turn % 2) if strict is None else strict,
        encoded=encoded,
        config=setting.config,
    )
