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
from random import Random

from p2premap.config import ElectionConfig
from p2premap.election import events
from p2premap.election.config import is_config
from p2premap.election.core import ElectionCore
from p2premap.election.messages import Chosen
from p2premap.ids import BOOT_BITS, JOB_ID_BYTES, NODE_ID_BYTES, JobId, NodeId, next_boot
from p2premap.protocol import LINK
from p2premap.sim.electionmodel import CELLS, NEVER, Led, Model, Node, Violated
from p2premap.sim.electionsettings import CALM, HASTY, SETTINGS, Faults, Setting
from p2premap.sim.electionwires import Wires
from p2premap.wire import Message

LOOK = 0.15
LIVENESS_STEPS_MAX = 20_000
STEP_EFFECTS_MAX = 1_000

SHORT_STEPS = 40
STEPS = 80
CHANGE_STEPS = 120
"""How long walks are: without a liveness phase, with one, and over replica sets and disks that change."""


class Walk:
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
        self.random = Random(f"electionwalk/{seed}")
        self._boots = Random(f"electionwalk/{seed}/boots")
        self.now = 0.0
        self.config = config or HASTY
        self.faults = faults or Faults()
        self.copies = copies
        self.first = min(first, copies)
        self.strict = strict
        self.encoded = encoded
        self.crash_after = crash_after
        self.change_crash = self.faults.change_crash
        self.effects = self.effects_before_calm = 0
        self.counts: dict[str, int] = {}
        self._log: list[tuple[float, str, str, object]] = []
        self.jobs_left = jobs
        self.serial = 0
        self.nodes = {id: Node(id) for id in (NodeId(bytes([65 + n]) * NODE_ID_BYTES) for n in range(nodes))}
        self.model = Model(self.nodes, strict=strict)
        self.wires = Wires(self.nodes, self.random, self._step)
        for node in self.nodes.values():
            self._start(node)
        for node in self.nodes.values():
            for other in self.nodes.values():
                self._tell_truth(node, other)

    def note(self, who: object, what: str, thing: object = "") -> None:
        """Remember for the story; told only when something is wrong."""
        self._log.append((self.now, str(who), what, thing))

    @property
    def log(self) -> list[str]:
        """What happened."""
        return [f"{now:.3f} {who} {what} {thing}" for now, who, what, thing in self._log]

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

    def _up(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.core is not None]

    def _busy(self) -> bool:
        return bool(self.wires.waiting()) or any(node.writes or node.loads or node.asked for node in self._up())

    # --- cores --------------------------------------------------------------------------------------------------------

    def _restore(self, node: Node) -> None:
        """The machine comes back as it was some starts ago."""
        image = self.model.old_image(node)
        assert image is not None, "there is one"
        remembered, disk = image
        node.former, node.boot, node.disk = remembered[:-1], remembered[-1] if remembered else NEVER, disk.copy()
        node.restored = True
        self._start(node)

    def _start(self, node: Node) -> None:
        if node.boot:
            node.former = (*node.former, node.boot)
        node.images.append((node.former, node.disk.copy()))
        node.boot = next_boot(node.boot, self._boots.getrandbits(BOOT_BITS))
        node.full = False
        node.core = ElectionCore(
            me=node.id,
            boot=node.boot,
            former=node.former,
            name=str(node),
            config=self.config,
            rng=Random(self.random.random()),
            now=self.now,
            stored=node.disk.stored(),
        )
        self.note(node, "starts, boot", node.boot)

    def _crash(self, node: Node, *, loses: float = 0.7) -> None:
        """What was being written is lost; of what it sent, some may have arrived."""
        self.note(node, "crashes")
        node.core = None
        node.writes.clear()
        node.loads.clear()
        node.asked.clear()
        node.led.clear()
        node.told.clear()
        for other in self.nodes.values():
            if other is not node:
                self.wires.unlink(node, other, loses)
        self.wires.forget(node)

    def _step(self, node: Node, event: events.ElectionEvent) -> None:
        core = node.core
        assert core is not None, "the dead do nothing"
        self.note(node, "<", event)
        effects = core.step(self.now, event)
        core.check_invariants()
        if len(effects) > STEP_EFFECTS_MAX:
            raise Violated(f"bounded: {len(effects)} effects of one step")
        for effect in effects:
            self.note(node, ">", effect)
            self._perform(node, effect)
            self.effects += 1
            if self.effects == self.crash_after:
                self._crash(node)
                return
        if self.change_crash and any(map(_tells_of_change, effects)) and self.random.random() * 100 < self.change_crash:
            self._crash(node, loses=0.0)

    def _perform(self, node: Node, effect: events.ElectionEffect) -> None:  # noqa: C901  (one branch an effect)
        match effect:
            case events.ToReplica(node=to, message=message):
                self._send(node, self.nodes[to], message)
            case events.Persist():
                node.writes.append(effect)
            case events.LoadBatches():
                node.loads.append(effect)
            case events.Bring(job=job):
                node.asked.append(events.Brought(job=job))
            case events.Lead():
                self.model.leads(node, effect)
                node.led[effect.job] = Led(effect.ballot, list(effect.history), len(effect.history))
            case events.Deposed(job=job):
                if job not in node.led:
                    raise Violated("roles: deposed, but it did not lead")
                del node.led[job]
            case events.Decided():
                self.model.decides(node, effect)
            case events.Protected():
                self.model.protects(node, effect)
            case events.Created():
                self.model.created.add(effect.job)
            case events.Forked():
                self.model.forks(effect)
            case events.Concluded():
                self.model.concludes(node, effect)
            case _:
                pass

    def _send(self, node: Node, to: Node, message: Message) -> None:
        if to is node:
            raise Violated("addressing: a node sends to itself")
        if not self.wires.open(node, to):
            return
        if self.encoded:
            message = LINK.decode(LINK.encode(message))
        self.model.sent(node, message)
        self.wires.send(node, to, message)

    def _persist(self, node: Node) -> None:
        write = node.writes.popleft()
        if node.full:
            self._step(node, events.PersistFailed(token=write.token, text="The disk is full."))
            node.full = self.random.random() < 0.5
        else:
            node.disk.write(write.records)
            self.model.wrote(node, write.records)
            self._step(node, events.Persisted(token=write.token))

    def _answer(self, node: Node) -> None:
        if node.loads and (not node.asked or self.random.random() < 0.7):
            load = node.loads.popleft()
            self._step(node, events.BatchesLoaded(token=load.token, batches=node.disk.beyond(load)))
        else:
            self._step(node, node.asked.popleft())

    def _tick(self, when: float) -> None:
        self.now = max(self.now, when)
        for node in self._up():
            if node.core is not None and node.core.deadline() <= self.now:
                self._step(node, events.Tick())
                if node.core is not None and node.core.deadline() <= self.now:
                    raise Violated("time: a tick does not move the deadline")

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

    def _tell_truth(self, node: Node, other: Node) -> None:
        truth = self.wires.truth(node, other)
        if node.core is None or truth is None or truth == node.told.get(other.id):
            return
        node.told[other.id] = truth
        if truth[0] == "seen":
            self._step(node, events.PeerSeen(node=other.id, boot=other.boot))
        else:
            certain = other.core is None and self.random.random() < 0.7
            self._step(node, events.PeerGone(node=other.id, certain=certain))

    def _tell(self, state: str, node: Node, other: Node) -> None:
        known = node.told.get(other.id)
        if known is None or known[0] == "gone":
            return
        node.told[other.id] = (state, known[1])
        gone = state == "gone"
        self._step(node, events.PeerGone(node=other.id) if gone else events.PeerDoubtful(node=other.id))


def _tells_of_change(effect: events.ElectionEffect) -> bool:
    return isinstance(effect, events.ToReplica) and (
        isinstance(effect.message, Chosen) and any(is_config(cell.cell) for cell in effect.message.cells)
    )


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
