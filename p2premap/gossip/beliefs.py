"""What this node believes: every entry that is heard goes through here, and comes out as effects and rumours.

Beliefs about others are replaced by newer ones (`p2premap.gossip.members.newer`); what is said about this node itself
is answered instead: the owner alone raises its incarnation, so an accusation is refuted by a higher one. Two things
said about us cannot be refuted, because another process speaks with our identity:

* a higher boot than ours: our disk is old, or an image was restored, and whoever ran with the newer one is the node;
* our own boot with another name or address, or an incarnation that we never reached: a copy is alive elsewhere. Of
  the two the one that started later yields; one that has been here for a while (`settled_s`) defends itself once;
* our own boot with a fact that we never published: this boot counter has been used before, so the disk is old.

The dead are remembered for `dead_kept_s`, so that old rumours do not raise them, then for as long again without being
hashed (nodes forget at slightly different times; otherwise they would teach each other the same dead for ever). Their
age travels with the record. At most `dead_max` are kept; beyond it the oldest is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from p2premap.errors import LocalProtocolError
from p2premap.gossip.context import Context
from p2premap.gossip.events import FactChanged, IdentityClash, LoadChanged, MemberChanged, MemberState
from p2premap.gossip.members import Member, is_live, newer, newer_fact
from p2premap.gossip.messages import ADDRESSES_MAX, FactEntry, LoadEntry, MemberEntry, address_of
from p2premap.gossip.spread import ADDRESS_BYTES, RECORD_BYTES, Spread, size_of
from p2premap.ids import Address, Boot, Incarnation, NodeId

FACTS_MAX: Final = 64
"""Keys that one node may publish."""
NAME_CHARACTERS_MAX: Final = 63
OWN_BYTES_MAX: Final = 500
"""The most that a record takes: two of them fit into one ack."""


class Beliefs:
    """The member table's only writer."""

    def __init__(
        self, context: Context, spread: Spread, *, boot: Boot, name: str, addresses: tuple[Address, ...]
    ) -> None:
        self._context = context
        self._spread = spread
        self._born = context.now
        self._version = 0
        self._defended = False
        self._seen_gone: NodeId | None = None
        self.clashed = False
        self.loads: dict[NodeId, LoadEntry] = {}
        self.dead: dict[NodeId, float] = {}
        self.changes: list[tuple[Member | None, Member]] = []
        name = name[:NAME_CHARACTERS_MAX]
        self.own = MemberEntry(
            node=context.me,
            boot=boot,
            incarnation=Incarnation(0),
            state=MemberState.ALIVE,
            name=name,
            addresses=fitting(addresses, name),
        )
        known = context.table.get(context.me)
        if known is None or known.entry != self.own:
            context.table.put(Member(self.own))

    # --- what others say -----------------------------------------------------------------------------------------

    def hear(
        self,
        members: tuple[MemberEntry, ...],
        facts: tuple[FactEntry, ...],
        loads: tuple[LoadEntry, ...],
        source: NodeId,
    ) -> int:
        """Merge what a peer said; the number of entries that were news."""
        news = 0
        for member in members:
            news += self.hear_member(member, source)
        for fact in facts:
            news += self.hear_fact(fact, source)
        for load in loads:
            self.hear_load(load)
        return news

    def hear_member(self, entry: MemberEntry, source: NodeId | None) -> bool:
        """Merge one record; True where it changed something."""
        if entry.node == self._context.me:
            return self._hear_about_me(entry)
        old = self._context.table.get(entry.node)
        if old is not None and newer(old.entry, entry) is old.entry:
            return False
        if size_of(entry) > OWN_BYTES_MAX:
            self._context.counters.entries_refused += 1  # passed on, it would fit into no datagram
            return False
        if old is None and not self._is_welcome(entry):
            return False
        self._believe(old, entry)
        self._spread.news(entry, source)
        return True

    def _is_welcome(self, entry: MemberEntry) -> bool:
        """Whether there is room for a member that was not known."""
        config = self._context.config
        if is_live(entry.state):
            welcome = len(self._context.table) < config.members_max
        else:
            welcome = entry.age < config.dead_kept_s and len(self.dead) < config.dead_max
        self._context.counters.entries_refused += not welcome
        return welcome

    def _believe(self, old: Member | None, entry: MemberEntry) -> None:
        """Replace the record, and say so."""
        context = self._context
        same_boot = old is not None and old.entry.boot == entry.boot
        new = Member(entry, old.facts) if old is not None and same_boot else Member(entry)
        context.table.put(new)
        self.dead.pop(entry.node, None)
        if not new.live:
            self._bury(entry)
        context.out.append(
            MemberChanged(
                node=entry.node,
                boot=entry.boot,
                incarnation=entry.incarnation,
                state=entry.state,
                name=entry.name,
                addresses=tuple(map(address_of, entry.addresses)),
                gone=entry.node == self._seen_gone,
            )
        )
        if old is not None and not same_boot:
            self.loads.pop(entry.node, None)
            for key in old.facts:
                context.out.append(FactChanged(node=entry.node, key=key, value=b""))
        self.changes.append((old, new))

    def hear_fact(self, entry: FactEntry, source: NodeId | None) -> bool:
        """Merge one slow fact; True where it changed something. One of an unknown member or boot waits for repair."""
        member = self._context.table.get(entry.node)
        if member is None or member.entry.boot != entry.boot:
            return False
        if entry.node == self._context.me:
            self._hear_own_fact(entry, member)
            return False
        old = member.facts.get(entry.key)
        if old is None:
            held = sum(len(fact.entry.value) for fact in member.facts.values())
            if len(member.facts) >= FACTS_MAX or held + len(entry.value) > 2 * self._context.config.facts_bytes_max:
                self._context.counters.entries_refused += 1
                return False
        elif newer_fact(old.entry, entry) is old.entry:
            return False
        self._context.table.put(member.with_fact(entry))
        self._context.out.append(FactChanged(node=entry.node, key=entry.key, value=entry.value))
        self._spread.news(entry, source)
        return True

    def hear_load(self, entry: LoadEntry) -> None:
        """Take a member's load where it is newer than the one known."""
        member = self._context.table.get(entry.node)
        if entry.node == self._context.me or member is None or member.entry.boot != entry.boot:
            return
        old = self.loads.get(entry.node)
        if old is not None and (old.boot, old.version) >= (entry.boot, entry.version):
            return
        self.loads[entry.node] = entry
        self._context.out.append(LoadChanged(node=entry.node, value=entry.value))
        self._spread.load(entry)

    # --- about ourselves -----------------------------------------------------------------------------------------

    def _hear_about_me(self, entry: MemberEntry) -> bool:
        own = self.own
        if entry.boot > own.boot:
            self._clash("a peer remembers a later start of this node: its disk is old or was restored from an image")
        elif entry.boot == own.boot and entry.incarnation >= own.incarnation:
            if entry.incarnation > own.incarnation or (entry.name, entry.addresses) != (own.name, own.addresses):
                self._meet_copy(entry)
            elif entry.state > own.state:
                self._context.counters.refutations += 1
                self._context.worsen()
                self.renew()
                return True
        return False

    def _hear_own_fact(self, entry: FactEntry, me: Member) -> None:
        ours = me.facts.get(entry.key)
        if ours is None or newer_fact(ours.entry, entry) is not ours.entry:
            self._clash("a peer knows facts that this start of the node never published: its disk is old")

    def _meet_copy(self, entry: MemberEntry) -> None:
        """Somebody else is alive under our identity and boot."""
        settled = self._context.now - self._born >= self._context.config.settled_s
        if settled and not self._defended and entry.incarnation == self.own.incarnation:
            self._defended = True
            self.renew()
        elif not (settled and entry.incarnation == self.own.incarnation and self._stands_over(entry)):
            self._clash("a node with the same identity is alive elsewhere (a copied disk or card)")
        else:
            self.renew()

    def _stands_over(self, entry: MemberEntry) -> bool:
        """Of two copies that both have been here for a while, the same one on both sides."""
        return (self.own.name, self.own.addresses) > (entry.name, entry.addresses)

    def _clash(self, reason: str) -> None:
        if not self.clashed:
            self.clashed = True
            self._context.out.append(IdentityClash(reason=reason))

    def renew(self, *, addresses: tuple[Address, ...] | None = None, state: MemberState = MemberState.ALIVE) -> None:
        """Say something new about ourselves, under the next incarnation."""
        self.own = msgspec.structs.replace(
            self.own,
            incarnation=Incarnation(self.own.incarnation + 1),
            addresses=self.own.addresses if addresses is None else fitting(addresses, self.own.name),
            state=state if self.own.state != MemberState.LEFT else MemberState.LEFT,
        )
        old = self._context.table.get(self._context.me)
        assert old is not None, "a node is a member of its own table"
        self._context.table.put(Member(self.own, old.facts))
        self._spread.news(self.own, None)

    def set_fact(self, key: str, value: bytes) -> None:
        """Publish a slow fact about ourselves; the same value again costs nothing.

        Raises:
            LocalProtocolError: more keys or bytes than a node may publish.
        """
        me = self._context.table.get(self._context.me)
        assert me is not None, "a node is a member of its own table"
        old = me.facts.get(key)
        if (old.entry.value if old is not None else b"") == value:
            return
        others = sum(len(fact.entry.value) for name, fact in me.facts.items() if name != key)
        if others + len(value) > self._context.config.facts_bytes_max or (old is None and len(me.facts) >= FACTS_MAX):
            raise LocalProtocolError(f"the fact {key!r} of {len(value)} bytes is more than a node may publish")
        self._version += 1
        entry = FactEntry(node=self.own.node, boot=self.own.boot, version=self._version, key=key, value=value)
        self._context.table.put(me.with_fact(entry))
        self._spread.news(entry, None)

    def set_load(self, value: bytes) -> None:
        """Publish our load."""
        self._version += 1
        entry = LoadEntry(node=self.own.node, boot=self.own.boot, version=self._version, value=value)
        self.loads[self.own.node] = entry
        self._spread.load(entry)

    # --- the dead ------------------------------------------------------------------------------------------------

    def declare(self, node: NodeId, state: MemberState, *, gone: bool = False) -> None:
        """Our own verdict about a member, in its present incarnation; `gone`: we saw that its process is no more."""
        member = self._context.table.get(node)
        if member is not None and member.entry.state < state:
            self._seen_gone = node if gone else None
            self.hear_member(msgspec.structs.replace(member.entry, state=state, age=0), None)
            self._seen_gone = None

    def aged(self, entry: MemberEntry) -> MemberEntry:
        """A record as it is sent: with the age of a death."""
        since = self.dead.get(entry.node)
        if since is None:
            return entry
        return msgspec.structs.replace(entry, age=int(self._context.now - since))

    def loads_of(self, members: Iterable[MemberEntry]) -> tuple[LoadEntry, ...]:
        """The loads of these members, where they are known."""
        return tuple(self.loads[entry.node] for entry in members if entry.node in self.loads)

    def _bury(self, entry: MemberEntry) -> None:
        if len(self.dead) >= self._context.config.dead_max:
            self._forget(min(self.dead, key=lambda node: (self.dead[node], node)))
        self.dead[entry.node] = self._context.now - entry.age
        self.loads.pop(entry.node, None)

    def _forget(self, node: NodeId) -> None:
        del self.dead[node]
        self._context.table.forget(node)
        self._context.contacts.pop(node, None)

    def tend_dead(self) -> None:
        """Take those who have been dead for long out of the hashes, then out of memory."""
        config, table = self._context.config, self._context.table
        for node, since in list(self.dead.items()):
            age = self._context.now - since
            member = table.get(node)
            assert member is not None, "the dead are members until they are forgotten"
            if age >= 2 * config.dead_kept_s:
                self._forget(node)
            elif age >= config.dead_kept_s and member.hashed:
                table.put(Member(member.entry, member.facts, hashed=False))


def fitting(addresses: tuple[Address, ...], name: str) -> tuple[Address, ...]:
    """As many of these addresses, from the first on, as a record of this name may carry."""
    room = OWN_BYTES_MAX - RECORD_BYTES - len(name.encode())
    count = 0
    for address in addresses[:ADDRESSES_MAX]:
        room -= ADDRESS_BYTES + len(address.host)
        if room < 0:
            break
        count += 1
    return addresses[:count]
