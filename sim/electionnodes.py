"""The nodes of a walk over election cores: cores and disks, what their gossips say, and the links between them."""

from __future__ import annotations

from random import Random

from p2premap.config import ElectionConfig
from p2premap.election import events
from p2premap.election.config import is_config
from p2premap.election.core import ElectionCore
from p2premap.election.messages import Chosen
from p2premap.ids import BOOT_BITS, NODE_ID_BYTES, NodeId, next_boot
from p2premap.protocol import LINK
from p2premap.sim.electionmodel import NEVER, Led, Model, Node, Violated
from p2premap.sim.electionsettings import HASTY
from p2premap.sim.electionwires import Wires
from p2premap.wire import Message

STEP_EFFECTS_MAX = 1_000


class Nodes:
    """They live, and perform what their cores ask for; nothing here decides what happens next.

    Args:
        seed: of every choice.
        count: how many.
        strict: their jobs are.
        encoded: messages travel as bytes.
        crash_after: the n-th effect of all is the last one of its node's life.
        change_crash: the chance in a hundred that who has just told of another replica set crashes.
    """

    def __init__(
        self,
        seed: int,
        count: int,
        *,
        strict: bool,
        encoded: bool,
        crash_after: int | None,
        change_crash: float,
        config: ElectionConfig | None,
    ) -> None:
        self.random = Random(f"electionwalk/{seed}")
        self._boots = Random(f"electionwalk/{seed}/boots")
        self.now = 0.0
        self.config = config or HASTY
        self.encoded = encoded
        self.crash_after = crash_after
        self.change_crash = change_crash
        self.effects = 0
        self._log: list[tuple[float, str, str, object]] = []
        self.nodes = {id: Node(id) for id in (NodeId(bytes([65 + n]) * NODE_ID_BYTES) for n in range(count))}
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

    def _up(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.core is not None]

    def _busy(self) -> bool:
        return bool(self.wires.waiting()) or any(node.writes or node.loads or node.asked for node in self._up())

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

    # --- what they are told -------------------------------------------------------------------------------------------

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
