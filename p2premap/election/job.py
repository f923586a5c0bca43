"""One job at this node: its replica, and the part that this node plays: follower, candidate or leader.

::

              silence, or the leader is dead            a quorum promised
    follower ------------------------------> candidate ------------------> leader
        ^                                        |                            |
        +----- a higher ballot is heard of ------+----------------------------+

A follower hears its leader at least every `heartbeat_s`; after `missed_s` of silence it stands, those of the living
members that come first in the replica set a little earlier than others (`stagger_s`), so that mostly one stands.
It does not stand where it could not win or not lead: without a quorum in reach, without its boot confirmed
(`boots`), without the job's plan on its disk. Timers only say when; who leads is said by promises alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from p2premap.election import epochs
from p2premap.election.ballot import successor
from p2premap.election.boots import BootCheck, remembers
from p2premap.election.candidate import Candidacy
from p2premap.election.carried import Carried, say
from p2premap.election.config import Config, is_config
from p2premap.election.context import Context
from p2premap.election.events import Append, Decided, Deposed, Lead, LeaderKnown, Propose, Protected
from p2premap.election.homecoming import Homecoming
from p2premap.election.leader import Leadership
from p2premap.election.messages import Beats, Boots, ForkWaits, StandNow, Want
from p2premap.election.provision import Provision
from p2premap.election.quorum import is_quorum, needed
from p2premap.election.reconfigure import Reconfiguration
from p2premap.election.records import CellRecord
from p2premap.election.replica import Replica
from p2premap.ids import Ballot, JobId, NodeId


class Job:
    """One job at this node.

    Args:
        replica: what it keeps.
        brought: all that is needed to lead it is here.
        boots: whether this replica may vote.
    """

    def __init__(self, context: Context, replica: Replica, *, brought: bool, boots: BootCheck) -> None:
        self._context = context
        self.replica = replica
        self.boots = boots
        self.change: Reconfiguration | None = None
        self.candidacy: Candidacy | None = None
        self.leadership: Leadership | None = None
        self.leader: NodeId | None = None
        self.copies = 1
        self.provision = Provision(context, replica, brought=brought, announce=self.announce)
        self.unfit = ""
        """Why this node cannot lead it, whoever asks; "" where it can."""
        self.highest = replica.promised
        """The highest ballot heard of."""
        self.stand_at = math.inf
        self._wanted_at = -math.inf
        self._boots_at = -math.inf
        self._told: tuple[NodeId | None, int, str] | None = None
        self.no_quorum_since = math.inf
        self.forgetful: set[NodeId] = set()
        """Members that give their word no more in this epoch (`boots`)."""
        self.fork: JobId | None = None
        """The fork of this job that is known here."""
        self.stranded: Callable[[Job], None] = lambda job: None
        """Called when a quorum has been out of reach for too long."""
        self.unsure = False
        """A client may have been told of another job under this one's key: that is being found out."""
        self.homecoming = Homecoming(context, replica)
        self.carried: Carried | None = None
        """Tasks that wait to be led on under the ballot of a new replica set."""

    # --- views ------------------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this node leads it now, as its tasks know."""
        return self.leadership is not None and self.leadership.ready

    @property
    def votes(self) -> bool:
        """Whether this node's word counts in its elections."""
        return self._context.me in self.replica.members and self.boots.confirmed(self.replica.members)

    def note(self) -> str:
        """What the job waits for; "" where it does not wait, or another node leads it and will say."""
        replica = self.replica
        if not replica.active or self.leader not in (None, self._context.me):
            return ""
        if is_quorum(replica.members, [n for n in replica.members if self._counts(n)]):
            return self.provision.lacks if self.leader is None else self._unwritable() or self._copying()
        silent = ", ".join(n.hex()[:8] for n in replica.members if not self._context.reachable(n))
        forgetful = ", ".join(n.hex()[:8] for n in replica.members if self._has_forgotten(n))
        note = f"{needed(replica.members)} of {len(replica.members)} replicas are needed"
        note += f"; no answer from {silent}" if silent else ""
        return f"{note}; older copies of their disks are back at {forgetful}." if forgetful else f"{note}."

    def _unwritable(self) -> str:
        """Of a job that is led here: whose disks have to take something before it can go on."""
        if self.leadership is None:
            return ""
        members = self.replica.members
        broken = [n for n in members if n != self._context.me and self.leadership.follower(n).unwritable]
        if self._context.journal.trouble and self._context.me in members:
            broken.insert(0, self._context.me)
        if is_quorum(members, [n for n in members if n not in broken]):
            return ""
        names = ", ".join(node.hex()[:8] for node in broken)
        return f"Its ledger cannot be written at {names}: their disks are full, or fail; free some space there."

    def _copying(self) -> str:
        """Of a job that is led here: who does not have all that it needs yet."""
        if self.leadership is None:
            return ""
        copying = [n for n in self.replica.members if self.leadership.follower(n).copying]
        if self.provision.copying:
            copying.insert(0, self._context.me)
        names = ", ".join(node.hex()[:8] for node in copying)
        return (
            f"Its inputs are still being copied to {names}: until then it may have to wait for them." if names else ""
        )

    def announce(self) -> None:
        """Tell who leads, if that is news."""
        if self.leadership is not None:
            self.copies = max(1, self.leadership.copies)
        told = (self.leader, self.copies, self.note())
        if told != self._told and self.replica.active:
            self._told = told
            fork = self.replica.job.hex()[:8] if self.replica.record.origin else ""
            self._context.out.append(
                LeaderKnown(job=self.replica.job, leader=told[0], copies=told[1], note=told[2], fork=fork)
            )

    # --- time -------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When it wants a look."""
        if not self.replica.active:
            return math.inf
        due = min(self.provision.deadline(), self.homecoming.deadline(), self._fork_at())
        if self.leadership is not None:
            return min(self.leadership.deadline(), due)
        if self.candidacy is not None:
            return min(self.candidacy.deadline(), due)
        return min(self.stand_at, due)

    def tick(self) -> None:
        """Whatever is due."""
        if not self.replica.active:
            return
        now = self._context.now
        self.provision.tick()
        self.homecoming.tick()
        if self.leadership is not None:
            self.leadership.tick()
        elif self.candidacy is not None:
            if self.candidacy.deadline() <= now:
                self._go_on_standing(self.candidacy)
        elif self.stand_at <= now:
            self._silent()
        if self._fork_at() <= now:
            self._strand()

    def wait(self, seconds: float) -> None:
        """Stand when nobody has been heard for so long, and a little later for each living member before this one."""
        self.stand_at = self._context.now + seconds + self._rank() * self._context.config.stagger_s

    def _rank(self) -> int:
        rank = 0
        for node in self.replica.members:
            if node == self._context.me:
                break
            rank += node != self.leader and self._context.alive(node)
        return rank

    def woke(self) -> None:
        """Nobody was silent while this process did not run."""
        if self.stand_at < math.inf:
            self.wait(self._context.config.missed_s)

    # --- without a quorum ---------------------------------------------------------------------------------------------

    def _has_forgotten(self, node: NodeId) -> bool:
        return node in self.forgetful or (node == self._context.me and self.boots.amnesiac)

    def _counts(self, node: NodeId) -> bool:
        """Whether this member's word is to be had."""
        return self._context.reachable(node) and not self._has_forgotten(node)

    def see_quorum(self) -> bool:
        """Whether a quorum is in reach; since when it is not is remembered."""
        if self.replica.has_quorum([node for node in self.replica.members if self._counts(node)]):
            self.no_quorum_since = math.inf
            return True
        self.no_quorum_since = min(self.no_quorum_since, self._context.now)
        return False

    def _fork_at(self) -> float:
        """When a fork is opened here, should nothing change; infinity: it is not for this node to do so."""
        replica, me = self.replica, self._context.me
        if self.no_quorum_since == math.inf or replica.record.strict or self.fork is not None:
            return math.inf
        if me not in replica.members or not self.provision.brought or self.unfit:
            return math.inf
        others = [node for node in replica.members if node != me]
        if len(others) == 1 and self._context.certainly_gone(others[0]):
            return self.no_quorum_since
        rank = sorted(filter(self._context.reachable, replica.members), key=self._has_forgotten).index(me)
        return self.no_quorum_since + self._context.config.fork_s * (1 + rank / 2)

    def _strand(self) -> None:
        if self.see_quorum():
            return
        self.no_quorum_since = math.inf
        if self.leadership is not None or self.candidacy is not None:
            self.step_down(self._context.config.missed_s)
        self.stranded(self)
        self.announce()

    # --- standing ---------------------------------------------------------------------------------------------------

    def _silent(self) -> None:
        """The leader is silent, or there is none."""
        self.leader = None
        if self._context.me not in self.replica.members:
            self._ask_whether_needed()
            return
        self.ask_boots()
        if self.may_stand():
            self.stand()
        else:
            self.wait(self._context.config.missed_s)
        self.announce()

    def _ask_whether_needed(self) -> None:
        """It was to be a member of a replica set that never came to be, or it missed that."""
        reachable = [node for node in self.replica.members if self._context.reachable(node)]
        if reachable:
            self.want(self._context.rng.choice(reachable))
        self.wait(self._context.config.missed_s)

    def ask_boots(self) -> None:
        """Ask once more whether this boot is known, where that is still open: an answer may have been lost."""
        now = self._context.now
        if self.boots.confirmed(self.replica.members) or now < self._boots_at + self._context.config.resend_s:
            return
        self._boots_at = now
        for node in self.replica.members:
            if self.boots.wants(node) and self._context.reachable(node):
                boot, former = self._context.boot, self._context.former
                self._context.send(node, Boots(boot=boot, jobs=(self.replica.job,), former=former))

    def may_stand(self) -> bool:
        """Whether it makes sense to."""
        if self.unsure:
            return False
        return self.see_quorum() and self.votes and self.provision.brought and not self.unfit

    def stand(self) -> None:
        """Become a candidate, under a ballot higher than any that was heard of."""
        self.stand_at = math.inf
        self.highest = max(self.highest, self.replica.promised)
        ballot = successor(self.highest, self._context.me)
        self.highest = ballot
        self.candidacy = Candidacy(self._context, self.replica, ballot, self._won)
        self.candidacy.start(lambda candidacy: self.candidacy is candidacy)

    def _go_on_standing(self, candidacy: Candidacy) -> None:
        if self.may_stand():
            candidacy.ask_again()
        else:
            self.step_down(self._context.config.missed_s)
            self.announce()

    def _won(self, candidacy: Candidacy) -> None:
        for cell in candidacy.chosen():
            self.decide(cell)
        if self.candidacy is not candidacy:
            return  # the epoch is over
        self.candidacy = None
        self.leader = self._context.me
        self.no_quorum_since = math.inf
        if self.fork is not None:
            self.homecoming.expect(self.fork, self._context.me)
        leadership = self._lead(candidacy.ballot)
        adopted = candidacy.adopted()
        stop = next((cell for cell in adopted if is_config(cell.cell)), None)
        if stop is not None:
            # the epoch is over, or will be: nothing is led in it any more
            self.change = Reconfiguration(self._context, self.replica, leadership, Config.decode(stop.value))

        def loaded(history: tuple[bytes, ...]) -> None:
            if stop is None:
                self.homecoming.before(lambda: self._take_office(candidacy, leadership, history))
            else:
                self._settle(candidacy, leadership, adopted)

        leadership.begin(loaded)
        self.beat()
        self.announce()

    def _take_office(self, candidacy: Candidacy, leadership: Leadership, history: tuple[bytes, ...]) -> None:
        self._begun(leadership, history)
        self._settle(candidacy, leadership, [*candidacy.adopted(), *self.homecoming.take_cells()])

    def _settle(self, candidacy: Candidacy, leadership: Leadership, cells: list[CellRecord]) -> None:
        for node, promise in candidacy.promises.items():
            if node != self._context.me:
                leadership.feed(node, dict(promise.vector))
        for cell in cells:
            if not self.is_chosen(cell.cell) and not is_config(cell.cell):
                leadership.propose(cell.cell, cell.value)
        self.tend()

    def beat(self) -> None:
        """Tell all members at once who leads."""
        if self.leadership is not None:
            beats = Beats(beats=(self.leadership.beat(),))
            for node in self.leadership.others():
                if self._context.reachable(node):
                    self._context.send(node, beats)

    def _lead(self, ballot: Ballot) -> Leadership:
        leadership = Leadership(
            self._context, self.replica, ballot, decided=self._decided, protected=lambda s: self._protected(ballot, s)
        )
        self.leadership = leadership
        self.change = Reconfiguration(self._context, self.replica, leadership)
        return leadership

    def tend(self) -> None:
        """See whether the replica set is as it should be; with every heartbeat."""
        self.see_quorum()
        if self.change is not None and self.leadership is not None:
            self.change.tend()

    def lead_first(self) -> Leadership:
        """Lead a job that was just created or forked here, under the ballot that its record promises."""
        self.leader = self._context.me
        leadership = self._lead(self.replica.promised)
        leadership.begin_first()
        return leadership

    def lead_fork(self, facts: tuple[bytes, ...]) -> None:
        """Lead a fork that was just opened here."""
        self._begun(self.lead_first(), facts)
        self.announce()

    def lead_anew(self) -> None:
        """Stand again at once, so that the tasks begin with all facts."""
        self.step_down(self._context.config.missed_s)
        if self.may_stand():
            self.stand()

    def begin_first(self) -> None:
        """It is created, as its client will be told."""
        if self.leadership is not None and not self.leadership.ready:
            self._begun(self.leadership, ())
        self.announce()

    def _begun(self, leadership: Leadership, history: tuple[bytes, ...]) -> None:
        leadership.ready = True
        carried, self.carried = self.carried, None
        if carried is not None and carried.vector == self.replica.streams.base(leadership.ballot):
            carried.resume(leadership)
        else:
            if carried is not None:
                self._context.out.append(Deposed(job=self.replica.job))
            self._say_lead(leadership, history)
        if leadership.protected >= 0:
            self._protected(leadership.ballot, leadership.protected)

    def _say_lead(self, leadership: Leadership, history: tuple[bytes, ...]) -> None:
        decided = {cell.cell: cell.value for cell in self.replica.chosen_cells() if not is_config(cell.cell)}
        self._context.out.append(
            Lead(
                job=self.replica.job,
                record=self.replica.record,
                ballot=leadership.ballot,
                decided=decided,
                history=history,
            )
        )

    def _protected(self, ballot: Ballot, serial: int) -> None:
        leadership = self.leadership
        if leadership is not None and leadership.ready and leadership.ballot == ballot:
            self._context.out.append(Protected(job=self.replica.job, serial=leadership.offset + serial))
            self.homecoming.protected()

    # --- stepping down ----------------------------------------------------------------------------------------------

    def step_down(self, wait_s: float) -> None:
        """Lead no more, and stand no more for so long."""
        self.candidacy = None
        self.change = None
        self.homecoming.stop()
        leadership, self.leadership = self.leadership, None
        if leadership is not None:
            leadership.deposed = True
            self.leader = None
        carried, self.carried = self.carried, None
        if carried is not None or (leadership is not None and leadership.ready):
            self._context.out.append(Deposed(job=self.replica.job))
        self.wait(wait_s)

    def on_said(self, event: Append | Propose) -> None:
        """The tasks that are led here say something for the ledger."""
        if self.carried is not None:
            self.carried.waiting.append(event)
        elif self.leadership is not None and self.leadership.ready:
            say(self.leadership, event)

    def pause(self) -> None:
        """The epoch is over: lead no more in it; the tasks wait, if they are led here."""
        leadership, carried = self.leadership, None
        if leadership is not None and leadership.ready:
            vector = dict(self.replica.streams.base(leadership.ballot))
            vector[leadership.ballot] = leadership.serial
            carried = Carried(leadership, vector)
            leadership.ready = False
        self.step_down(self._context.config.missed_s)
        self.carried = carried

    def refused(self, promised: Ballot) -> None:
        """A member has promised a higher ballot than ours."""
        self.highest = max(self.highest, promised)
        ballot = self.ballot
        if ballot is not None and promised > ballot:
            config = self._context.config
            self.step_down(config.stand_again_s * (0.5 + self._context.rng.random()))
            self.announce()

    @property
    def ballot(self) -> Ballot | None:
        """Under which this node leads or stands."""
        if self.leadership is not None:
            return self.leadership.ballot
        return self.candidacy.ballot if self.candidacy is not None else None

    def obey(self, ballot: Ballot) -> bool:
        """Somebody else leads, or stands, under this ballot: follow it, unless a higher one is promised."""
        replica = self.replica
        if not replica.admits(ballot):
            return False
        self.highest = max(self.highest, ballot)
        if ballot != replica.promised:
            if self.leadership is not None or self.candidacy is not None:
                self.step_down(self._context.config.missed_s)
            replica.promise(ballot)
            self.leader = None
        return True

    def heard(self, leader: NodeId, copies: int | None = None) -> None:
        """The leader has said something, under the promised ballot."""
        self.leader = leader
        if copies is not None:
            self.copies = copies
        self.no_quorum_since = math.inf
        self.wait(self._context.config.missed_s)
        self.announce()

    # --- others -----------------------------------------------------------------------------------------------------

    def met(self, node: NodeId) -> None:
        """A node is here, for the first time, again, or in another life."""
        if self.leadership is not None:
            self.leadership.unlinked(node)
        if self.candidacy is not None:
            self.candidacy.ask(node)
        if self.no_quorum_since < math.inf and self.see_quorum() and self.ballot is None:
            self.wait(self._context.config.stand_again_s)
        if self.fork is not None and node in self.replica.members:
            self._context.send(node, ForkWaits(job=self.replica.job, fork=self.fork))
        self.announce()

    def lost(self, node: NodeId) -> None:
        """A node is dead or has left."""
        if node in (self.leader, self.replica.promised.node) and self.leader in (node, None):
            self.leader = None
            if self.ballot is None:
                self.wait(0.0)
        if node in self.replica.members:
            self.see_quorum()
        self.homecoming.lost(node)
        if self.leadership is not None:
            self.leadership.tick()
        self.announce()

    def boot_known(self, node: NodeId, last: int) -> None:
        """A member tells which boot of this node it knew."""
        if not remembers(self._context.boot, self._context.former, last):
            self.boots.forgot()
            if not self.replica.record.amnesiac:
                self.replica.update(msgspec.structs.replace(self.replica.record, amnesiac=True))
        else:
            self.boots.hear(node)
        if self.candidacy is None and self.leadership is None and self.leader is None and self.votes:
            self.wait(self._context.config.boot_wait_s)

    def hand_over(self) -> None:
        """Have another member stand: the one that has most."""
        leadership = self.leadership
        if leadership is None:
            return
        others = [n for n in self.replica.members if n != self._context.me and self._context.alive(n)]
        if others:
            self._context.send(max(others, key=lambda n: leadership.follower(n).acked), StandNow(job=self.replica.job))

    def retire(self) -> None:
        """The job is over."""
        self.step_down(math.inf)
        self.provision.retire()

    # --- cells ------------------------------------------------------------------------------------------------------

    def is_chosen(self, cell: str) -> bool:
        """Whether this node knows that it is decided."""
        known = self.replica.cells.get(cell)
        return known is not None and known.chosen

    def decide(self, cell: CellRecord) -> None:
        """Somebody tells that it is decided."""
        if self.replica.choose(cell):
            self._decided(cell.cell, cell.value)

    def _decided(self, cell: str, value: bytes) -> None:
        if self.leadership is not None:
            self.leadership.proposals.pop(cell, None)
        if is_config(cell):
            epochs.enter(self._context, self)
        else:
            self._context.out.append(Decided(job=self.replica.job, cell=cell, value=value))

    # --- being a replica --------------------------------------------------------------------------------------------

    def want(self, node: NodeId) -> None:
        """Ask for what is lacking here, if that was not done just now."""
        now = self._context.now
        if now < self._wanted_at + self._context.config.resend_s:
            return
        self._wanted_at = now
        replica = self.replica
        cells = tuple(cell.cell for cell in replica.chosen_cells())
        self._context.send(node, Want(job=replica.job, known=True, vector=replica.streams.vector(), cells=cells))

    def unfit_for(self, reason: str) -> None:
        """This node cannot lead it."""
        self.unfit = reason
        self.hand_over()
        self.step_down(self._context.config.missed_s)
        self.announce()
