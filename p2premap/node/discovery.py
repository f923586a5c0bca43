"""Who is on this network? mDNS announcements in, hints out; browsing never stops.

An announcement is a hint: an address and a public tag. Nothing is believed before the hello. Of our own cluster's tag
it becomes a `gossip.events.Hinted`, again and again until that node is a member. Of another tag it goes to the table of
foreign clusters, which people see and no code dials. Everything in an announcement is a stranger's text: bounded,
printable, and without addresses that would make us dial ourselves.

zeroconf runs in one thread with an asyncio loop (`p2premap.node.loopthread`) and is imported there, after the node
already serves. Where mDNS cannot work (no interface, the port held, multicast filtered), that is a warning with a
remedy; neighbours on this machine, `--join` and remembered peers still work.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import trio

from p2premap.config import DiscoveryConfig
from p2premap.control.nodes import Foreign
from p2premap.event import Event
from p2premap.gossip.events import Hinted
from p2premap.ids import NODE_ID_BYTES, Address, NodeId
from p2premap.node.interfaces import Interface, InterfaceWatcher, by_closeness, is_loopback, open_changes
from p2premap.node.loopthread import LoopThread
from p2premap.wire import WIRE_VERSION

if TYPE_CHECKING:
    from p2premap.node.mdns import Mdns, Service, Sighting

TEXT_MAX = 64
"""Characters of a name or a tag that are kept from an announcement."""


class Announcement(Event, frozen=True, kw_only=True):
    """What this node says of itself on the network.

    Args:
        addresses: where it listens; loopback ones are left out, and all others share one port.
        open_name: the NAME of ``--open NAME``, or "".
    """

    node: NodeId
    tag: str
    name: str
    addresses: tuple[Address, ...]
    open_name: str = ""


class Found(Event, frozen=True, kw_only=True):
    """A node that announces itself, as far as a stranger's word goes."""

    node: NodeId
    tag: str
    name: str
    version: int
    open_name: str
    addresses: tuple[Address, ...]


log = logging.getLogger(__name__)


class DiscoveryStatistics(msgspec.Struct, frozen=True):
    """For `status --json` and bug reports."""

    found: int
    foreign: int
    hints: int
    sightings: int
    refused: int


def service_of(announcement: Announcement) -> Service | None:
    """The mDNS service for an announcement; None where it has no address that a peer could use."""
    from p2premap.node.mdns import Service

    reachable = [address for address in announcement.addresses if not is_loopback(address.host)]
    if not reachable:
        return None
    node = announcement.node.hex()
    label = "".join(c if c.isascii() and c.isalnum() else "-" for c in announcement.name)[:24].strip("-") or "node"
    properties = {"v": str(WIRE_VERSION), "id": node, "tag": announcement.tag, "name": announcement.name[:TEXT_MAX]}
    if announcement.open_name:
        properties["open"] = announcement.open_name[:TEXT_MAX]
    return Service(
        instance=f"{label}-{node}",
        host=f"p2premap-{node}",
        port=reachable[0].port,
        hosts=tuple(dict.fromkeys(address.host.partition("%")[0] for address in reachable)),
        properties=tuple(properties.items()),
    )


def read_sighting(sighting: Sighting, interfaces: Sequence[Interface], addresses_max: int) -> Found | None:
    """What an announcement says; None where it is not a well-formed one of ours."""
    if sighting.properties is None or not 1 <= sighting.port <= 65_535:
        return None
    texts = {key: _clean(value) for key, value in sighting.properties.items() if value is not None}
    try:
        node, version = bytes.fromhex(texts.get(b"id", "")), int(texts.get(b"v", ""))
    except ValueError:
        return None
    tag = texts.get(b"tag", "")
    if len(node) != NODE_ID_BYTES or not tag:
        return None
    return Found(
        node=NodeId(node),
        tag=tag,
        name=texts.get(b"name", ""),
        version=version,
        open_name=texts.get(b"open", ""),
        addresses=by_closeness((Address(h, sighting.port) for h in sighting.hosts), interfaces)[:addresses_max],
    )


def _clean(value: bytes) -> str:
    """A stranger's text that may be shown on a terminal."""
    return "".join(c for c in value.decode(errors="replace")[:TEXT_MAX] if c.isprintable())


def foreign_hint(found: Found) -> str:
    """What a person has to do to join the cluster of this node."""
    if found.open_name:
        return f"p2premap leave; p2premap node --open {found.open_name}"
    where = found.name or (str(found.addresses[0]) if found.addresses else "its machine")
    return f"p2premap join TOKEN, with the token that `p2premap invite` prints on {where}"


class Discovery:
    """Announces this node and finds others by mDNS.

    Args:
        me: this node; its own announcements are not hints.
        tag: the public tag of our cluster.
        hint: called in trio with each hint.
        known: whether a node is a live member, so that it need not be hinted again.
        on_interfaces: called in trio with the interfaces at the start and when they change; the daemon answers with
            `announce`.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        tag: str,
        config: DiscoveryConfig,
        hint: Callable[[Hinted], None],
        known: Callable[[NodeId], bool],
        on_interfaces: Callable[[tuple[Interface, ...]], None] = lambda _: None,
    ) -> None:
        self._me, self._tag, self._config = me, tag, config
        self._hint, self._known, self._on_interfaces = hint, known, on_interfaces
        self._interfaces: tuple[Interface, ...] = ()
        self._announcement: Announcement | None = None
        self._changed = trio.Event()
        self._found: dict[str, Found] = {}
        self._raw: dict[str, Sighting] = {}
        self._warnings: tuple[str, ...] = ()
        self._hints = self._sightings = self._refused = 0
        self._mail: dict[str, Sighting] = {}
        self._mail_lock = threading.Lock()
        self._started = False

    def rekey(self, tag: str) -> None:
        """Our cluster's tag is this now."""
        self._tag = tag
        for sighting in list(self._raw.values()):
            self._judge(sighting)

    # --- what the daemon asks ---------------------------------------------------------------------------------------

    def announce(self, announcement: Announcement | None) -> None:
        """Announce this from now on; None: only browse (a node that listens on loopback only)."""
        if announcement != self._announcement:
            self._announcement = announcement
            self._changed.set()

    @property
    def tag(self) -> str:
        """Our cluster's."""
        return self._tag

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """The machine's interfaces now."""
        return self._interfaces

    @property
    def found(self) -> tuple[Found, ...]:
        """Every node that announces itself now, ours and others, by node id."""
        return tuple(sorted(self._found.values(), key=lambda found: found.node))

    @property
    def foreign(self) -> tuple[Foreign, ...]:
        """Other clusters on this network, one line each, by tag."""
        clusters: dict[str, Found] = {}
        for found in self.found:
            if found.tag != self._tag:
                clusters.setdefault(found.tag, found)
        return tuple(
            Foreign(address=str(f.addresses[0]) if f.addresses else "", cluster=tag, hint=foreign_hint(f))
            for tag, f in sorted(clusters.items())[: self._config.foreign_max]
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what of mDNS does not work now."""
        return self._warnings

    def statistics(self) -> DiscoveryStatistics:
        """Counters since the start."""
        foreign = sum(found.tag != self._tag for found in self._found.values())
        return DiscoveryStatistics(len(self._found), foreign, self._hints, self._sightings, self._refused)

    # --- the work ---------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announce and browse until cancelled; then withdraw, within `withdraw_s`."""
        watcher = InterfaceWatcher(
            self._take_interfaces,
            changes=lambda: open_changes(self._config.interfaces_poll_s),
            settle_s=self._config.interfaces_settle_s,
        )
        thread = LoopThread(stop_s=self._config.withdraw_s)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(watcher.run)
                await thread.start()
                nursery.start_soon(self._hint_again)
                nursery.start_soon(self._keep_applied, thread, task_status)
        finally:
            await thread.aclose()

    def _take_interfaces(self, interfaces: tuple[Interface, ...]) -> None:
        self._interfaces = interfaces
        self._on_interfaces(interfaces)
        self._changed.set()
        for sighting in list(self._raw.values()):  # what was near or far, or had no link, may have another now
            self._judge(sighting)

    async def _keep_applied(self, thread: LoopThread, task_status: trio.TaskStatus[None]) -> None:
        """Bring zeroconf to what is wanted, after each change and again after each failure."""

        async def make() -> Mdns:
            from p2premap.node.mdns import Mdns

            return Mdns(lambda sighting: self._post(thread, sighting))

        mdns = await thread.call(make)
        retry_s = self._config.mdns_retry_s
        try:
            while True:
                self._changed = trio.Event()
                failed = await self._apply(thread, mdns)
                if not self._started:
                    self._started = True
                    task_status.started()
                with trio.move_on_after(retry_s if failed else math.inf):
                    await self._changed.wait()
                retry_s = min(2 * retry_s, self._config.mdns_retry_max_s) if failed else self._config.mdns_retry_s
        finally:
            with trio.move_on_after(self._config.withdraw_s) as scope:
                scope.shield = True
                await thread.call(mdns.close)

    async def _apply(self, thread: LoopThread, mdns: Mdns) -> bool:
        """One attempt; whether something of it failed and is worth another."""
        service = service_of(self._announcement) if self._announcement is not None else None
        interfaces = self._interfaces
        try:
            unused = await thread.call(lambda: mdns.apply(interfaces, service))
        except OSError as error:
            self._warnings = (
                f"mDNS does not work ({error.strerror or error}): another program may hold UDP port 5353 for itself. "
                "Nodes on other machines are found by `p2premap node --join HOST` only.",
            )
            return True
        except Exception as error:
            # zeroconf has a tree of its own, and asyncio another; a node lives without either
            log.warning("mDNS failed", exc_info=error)
            self._warnings = (
                f"mDNS does not work ({type(error).__name__}: {error}); it is tried again. "
                "Nodes on other machines are found by `p2premap node --join HOST` only.",
            )
            return True
        self._warnings = tuple(
            f"mDNS does not work on {name}: the kernel refuses the multicast group there. "
            "Nodes behind it are found by `p2premap node --join HOST` only."
            for name in unused
        )
        if not any(i.up and i.networks for i in interfaces):
            self._warnings = ("No network interface is up: only nodes on this machine can be found.",)
        return bool(unused)

    # --- sightings, from the loop's thread ----------------------------------------------------------------------------

    def _post(self, thread: LoopThread, sighting: Sighting) -> None:
        """Called in the loop's thread. A flood of announcements costs one slot an instance and one wake-up."""
        with self._mail_lock:
            first = not self._mail
            if len(self._mail) < self._config.found_max:
                self._mail[sighting.instance] = sighting
        if first:
            thread.to_trio(self._read_mail)

    def _read_mail(self) -> None:
        with self._mail_lock:
            mail, self._mail = self._mail, {}
        for sighting in mail.values():
            self._on_sighting(sighting)

    def _on_sighting(self, sighting: Sighting) -> None:
        self._sightings += 1
        if sighting.properties is None:
            self._raw.pop(sighting.instance, None)
            self._found.pop(sighting.instance, None)
        elif sighting.instance in self._raw or len(self._raw) < self._config.found_max:
            self._raw[sighting.instance] = sighting
            self._judge(sighting)
        else:
            self._refused += 1

    def _judge(self, sighting: Sighting) -> None:
        found = read_sighting(sighting, self._interfaces, self._config.addresses_max)
        if found is None:
            self._refused += 1
            self._raw.pop(sighting.instance, None)
            self._found.pop(sighting.instance, None)
        elif found.node == self._me:
            self._on_own(found)
        elif found != self._found.get(sighting.instance) or not self._known(found.node):
            self._found[sighting.instance] = found
            if found.tag == self._tag:
                self._give(found)

    def _on_own(self, found: Found) -> None:
        """Our own id at an address that is not ours: perhaps a copy of this disk. The hello there will tell."""
        if found.tag != self._tag:
            return
        ours = {host for interface in self._interfaces for host in interface.hosts}
        for address in found.addresses:
            if address.host not in ours:
                self._hints += 1
                self._hint(Hinted(address=address, node=None))

    def _give(self, found: Found) -> None:
        for address in found.addresses:
            self._hints += 1
            self._hint(Hinted(address=address, node=found.node))

    async def _hint_again(self) -> None:
        """A node that announces itself and could not be reached may be reachable now."""
        while True:
            await trio.sleep(self._config.hint_again_s)
            for found in self.found:
                if found.tag == self._tag and not self._known(found.node):
                    self._give(found)


def announced_versions(found: Sequence[Found], tag: str) -> Mapping[str, int]:
    """Members-to-be that speak another major version than this node: name -> version."""
    return {f.name or f.node.hex()[:8]: f.version for f in found if f.tag == tag and f.version != WIRE_VERSION}
