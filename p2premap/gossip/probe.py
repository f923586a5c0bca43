"""Probing: one target a period, and trials of those that do not answer.

The target alternates between the successor on the ring (which bounds the wait for everybody: two periods) and the
next one of a shuffled order (SWIM, 4.3). A **trial** goes through stages, each cut short by an answer::

    probe      ping - 100 ms - ping - 100 ms - dial and ask 3 jurors - 300 ms - verdict
    link lost  ping -  20 ms - ping, dial and ask 3 jurors - 480 ms - verdict; at once when it is Gone
    inquiry    ping, dial - 250 ms - testimony; at once when it is known
    confirm    ping, dial and ask 3 jurors - 500 ms - verdict

A juror is a relay too: its ping is the indirect ping of SWIM. Asked are the nodes before the target on the ring, since
they dialled it for their idle links and so can testify. All time-outs but the juror's are stretched by local health.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from p2premap.gossip.context import Context
from p2premap.gossip.events import DialEnded, MemberState, SendLink
from p2premap.gossip.members import Member, Permutation
from p2premap.gossip.messages import Evidence, Inquire, MemberEntry, Ping, Witness
from p2premap.gossip.spread import Spread, size_of
from p2premap.gossip.timers import Timer
from p2premap.gossip.verdicts import Finding, Verdict, finding, is_gone, own_evidence, verdict
from p2premap.ids import Address, Boot, NodeId

TRIALS_MAX: Final = 256
"""Inquiries beyond it are not answered: the asker counts that as a juror who did not answer."""
HEARSAY_DIALS_MAX: Final = 2
"""Addresses tried where none has been proven."""
SKIPS_MAX: Final = 8
"""Positions of the shuffled order looked at for one target."""
MARGIN_S: Final = 0.05
"""Dials and jurors end this long before whoever waits for them decides."""


class Trial:
    """What is being found out about one node."""

    __slots__ = (
        "accuser",
        "askers",
        "boot",
        "ends_at",
        "findings",
        "hearsay",
        "jurors",
        "node",
        "nonce",
        "timer",
        "turn",
        "widened",
    )

    def __init__(self, node: NodeId, boot: Boot, nonce: int) -> None:
        self.node = node
        self.boot = boot
        self.nonce = nonce
        self.accuser = False
        self.askers: list[tuple[NodeId, int, Address | None]] = []
        self.jurors: dict[NodeId, Evidence | None] = {}
        self.findings: dict[Address, Finding] = {}
        self.hearsay: dict[Address, Finding] = {}
        self.turn = 0
        self.widened = False
        self.ends_at = 0.0
        self.timer: Timer | None = None

    @property
    def evidence(self) -> Evidence:
        """Our own evidence so far."""
        return own_evidence(self.findings.values(), self.hearsay.values())

    @property
    def testimony(self) -> Sequence[Evidence]:
        """That of the jurors who have answered."""
        return [e for e in self.jurors.values() if e is not None]

    @property
    def jurors_pending(self) -> int:
        """How many have not."""
        return sum(e is None for e in self.jurors.values())


class Prober:
    """Chooses targets and conducts trials.

    Args:
        judged: called with each verdict of a trial in which this node is the accuser.
    """

    def __init__(self, context: Context, spread: Spread, judged: Callable[[NodeId, Boot, Verdict], None]) -> None:
        self._context = context
        self._spread = spread
        self._judged = judged
        self._order = Permutation()
        self._ring_next = True
        self.trials: dict[NodeId, Trial] = {}
        self._by_nonce: dict[int, Trial] = {}
        context.timers.at(context.now + context.rng.random() * context.config.period_s, self._on_period)

    # --- targets -------------------------------------------------------------------------------------------------

    def _on_period(self) -> None:
        context = self._context
        context.timers.at(context.now + context.config.period_s, self._on_period)
        target = self.next_target()
        if target is not None and target.entry.node not in self.trials:
            context.counters.probes += 1
            self._probe(target)

    def next_target(self) -> Member | None:
        """Whom to probe now; those that somebody already accuses have their own trials."""
        self._ring_next = not self._ring_next
        if not self._ring_next:
            for member in self._context.table.around(self._context.me):
                if member.entry.state == MemberState.ALIVE:
                    return member
            return None
        for _ in range(SKIPS_MAX):
            member_or_none = self._context.table.at(self._order.next(self._context.table.positions, self._context.rng))
            if (
                member_or_none is not None
                and member_or_none.entry.state == MemberState.ALIVE
                and member_or_none.entry.node != self._context.me
            ):
                return member_or_none
        return None

    # --- the four kinds of trial ---------------------------------------------------------------------------------

    def _probe(self, target: Member) -> None:
        trial = self._open(target.entry.node, target.entry.boot)
        trial.accuser = True
        wait = self._context.config.ping_again_s * self._context.patience
        trial.ends_at = self._context.now + self._context.config.decide_s * self._context.patience
        self._ping(trial, by_link=False)  # nearly every probe ends with its ack
        self._then(trial, self._context.now + wait, partial(self._ping_again, trial, wait))

    def _ping_again(self, trial: Trial, wait: float) -> None:
        self._ping(trial)
        self._then(trial, self._context.now + wait, partial(self._widen, trial))

    def link_lost(self, node: NodeId, boot: Boot) -> None:
        """The link to a live member closed: is it gone?"""
        config = self._context.config
        trial = self.trials.get(node)
        if trial is None:
            trial = self._open(node, boot)
            trial.ends_at = self._context.now + config.decide_s * self._context.patience
        trial.accuser = True
        if trial.widened:
            self._ask_jurors(trial)
            self._weigh(trial)
        else:
            self._ping(trial)
            wait = config.link_lost_s * self._context.patience
            self._then(trial, self._context.now + wait, partial(self._ping_and_widen, trial))

    def confirm(self, node: NodeId, boot: Boot) -> None:
        """A suspicion is running out: look again, all at once."""
        trial = self.trials.get(node)
        if trial is None:
            trial = self._open(node, boot)
            trial.ends_at = self._context.now + self._context.config.decide_s * self._context.patience
        trial.accuser = True
        if trial.widened:
            self._ask_jurors(trial)
        else:
            self._ping_and_widen(trial)

    def inquire(self, asker: NodeId, address: Address | None, message: Inquire) -> None:
        """Somebody asks what we can find out about a node."""
        config = self._context.config
        self._context.counters.inquiries += 1
        trial = self.trials.get(message.node)
        if trial is None:
            if len(self.trials) >= TRIALS_MAX or message.node == self._context.me:
                return
            trial = self._open(message.node, message.boot)
            trial.ends_at = self._context.now + config.decide_s - 2 * config.ping_again_s - MARGIN_S
        if trial.boot != message.boot:
            return
        if len(trial.askers) < TRIALS_MAX:
            trial.askers.append((asker, message.nonce, address))
        if not trial.widened:
            self._ping_and_widen(trial)

    # --- stages --------------------------------------------------------------------------------------------------

    def _open(self, node: NodeId, boot: Boot) -> Trial:
        trial = Trial(node, boot, self._context.nonce())
        self.trials[node] = trial
        self._by_nonce[trial.nonce] = trial
        return trial

    def _then(self, trial: Trial, when: float, stage: Callable[[], None]) -> None:
        if trial.timer is not None:
            trial.timer.cancel()
        trial.timer = self._context.timers.at(when, stage)

    def _ping(self, trial: Trial, *, by_link: bool = True) -> None:
        """By datagram, to another of its addresses each time; over the link as well, where there is one."""
        context = self._context
        message = self.ping_message(trial.node, trial.nonce)
        context.send(trial.node, message, turn=trial.turn)
        if by_link and trial.node in context.links and context.address(trial.node) is not None:
            context.out.append(SendLink(peer=trial.node, message=message))
        trial.turn += 1

    def ping_message(self, node: NodeId, nonce: int) -> Ping:
        """A ping with what fits; whoever is doubted is told so, that it may refute."""
        member = self._context.table.get(node)
        doubt: tuple[MemberEntry, ...] = ()
        room = self._spread.budget_bytes
        if member is not None and member.entry.state != MemberState.ALIVE:
            doubt = (member.entry,)
            room -= size_of(member.entry)
        members, facts, loads = self._spread.fill(room)
        return Ping(nonce=nonce, root=self._context.table.root, members=(*doubt, *members), facts=facts, loads=loads)

    def _ping_and_widen(self, trial: Trial) -> None:
        self._ping(trial)
        self._widen(trial)

    def _widen(self, trial: Trial) -> None:
        """Ask others, and look whether the kernel there still answers."""
        trial.widened = True
        self._ask_jurors(trial)
        proven = self._context.proven(trial.node, trial.boot)
        for address in proven:
            trial.findings[address] = Finding.OPEN
            self._dial(trial, address)
        if not proven:
            for address in self._context.addresses(trial.node)[:HEARSAY_DIALS_MAX]:
                trial.hearsay[address] = Finding.OPEN
                self._dial(trial, address)
        self._then(trial, trial.ends_at, partial(self._decide, trial))

    def _ask_jurors(self, trial: Trial) -> None:
        if not trial.accuser or trial.jurors:
            return
        before = self._context.table.neighbours(trial.node, self._context.config.jurors + 1, forward=False)
        for juror in [node for node in before if node != self._context.me][: self._context.config.jurors]:
            trial.jurors[juror] = None
            self._context.tell(juror, Inquire(nonce=trial.nonce, node=trial.node, boot=trial.boot))

    def _dial(self, trial: Trial, address: Address) -> None:
        timeout_s = max(MARGIN_S, trial.ends_at - self._context.now - MARGIN_S)
        self._context.dial(address, keep=False, timeout_s=timeout_s, done=partial(self._on_dialled, trial))

    def _on_dialled(self, trial: Trial, ended: DialEnded) -> None:
        if self.trials.get(trial.node) is not trial:
            return
        known = trial.findings if ended.address in trial.findings else trial.hearsay
        found = finding(
            known[ended.address],
            ended.outcome,
            answered_by=(ended.peer, ended.boot),
            wanted=(trial.node, trial.boot),
        )
        known[ended.address] = found
        if found == Finding.REFUSED_ONCE and known is trial.findings:
            again = self._context.now + self._context.config.refused_again_s
            self._context.timers.at(again, partial(self._dial_again, trial, ended.address))
        self._weigh(trial)

    def _dial_again(self, trial: Trial, address: Address) -> None:
        if self.trials.get(trial.node) is trial:
            self._dial(trial, address)

    # --- answers -------------------------------------------------------------------------------------------------

    def acked(self, sender: NodeId, nonce: int) -> None:
        """An ack came: of a trial that is running?"""
        trial = self._by_nonce.get(nonce)
        if trial is not None and trial.node == sender:
            if trial.accuser and not trial.widened:
                self._context.recover()
            self._end(trial, Evidence.ANSWERED, Verdict.ALIVE)

    def met(self, node: NodeId, boot: Boot) -> None:
        """A link to this node came up, which answers any question about that boot."""
        trial = self.trials.get(node)
        if trial is not None and trial.boot == boot:
            self._end(trial, Evidence.ANSWERED, Verdict.ALIVE)

    def testified(self, juror: NodeId, message: Witness) -> None:
        """A juror answers."""
        trial = self._by_nonce.get(message.nonce)
        if trial is not None and juror in trial.jurors:
            trial.jurors[juror] = message.evidence
            self._weigh(trial)

    def drop(self, node: NodeId) -> None:
        """The question is settled otherwise."""
        trial = self.trials.get(node)
        if trial is not None:
            self._close(trial)

    def _weigh(self, trial: Trial) -> None:
        """Whether what is known suffices before the time is over."""
        own = trial.evidence
        if own == Evidence.ANSWERED:
            self._end(trial, own, Verdict.ALIVE)
        elif trial.accuser and Evidence.ANSWERED in trial.testimony:
            self._end(trial, own, Verdict.LINK_FAULT)
        elif own == Evidence.GONE:
            self._testify(trial, own)
            if trial.accuser and self._is_gone(trial, own):
                self._end(trial, own, Verdict.DEAD)

    def _is_gone(self, trial: Trial, own: Evidence) -> bool:
        return is_gone(
            own,
            trial.testimony,
            link_closed=trial.node not in self._context.links,
            jurors_pending=trial.jurors_pending,
        )

    def _decide(self, trial: Trial) -> None:
        """The time is over."""
        own = trial.evidence
        found = verdict(
            own,
            trial.testimony,
            link_closed=trial.node not in self._context.links,
            jurors_pending=trial.jurors_pending,
        )
        self._end(trial, own, found)

    def _end(self, trial: Trial, own: Evidence, found: Verdict) -> None:
        self._testify(trial, own)
        self._close(trial)
        if trial.accuser:
            self._context.counters.probes_failed += found != Verdict.ALIVE
            self._judged(trial.node, trial.boot, found)

    def _testify(self, trial: Trial, evidence: Evidence) -> None:
        askers, trial.askers = trial.askers, []
        for asker, nonce, address in askers:
            self._context.reply(asker, address, Witness(nonce=nonce, evidence=evidence))

    def _close(self, trial: Trial) -> None:
        if trial.timer is not None:
            trial.timer.cancel()
        del self.trials[trial.node]
        del self._by_nonce[trial.nonce]
