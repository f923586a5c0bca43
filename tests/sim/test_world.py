"""The engine itself, with cores that do only what a test tells them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from p2premap.errors import ConfigError, LocalProtocolError
from p2premap.gossip.events import (
    Dial,
    DialEnded,
    DialOutcome,
    Hangup,
    IdentityClash,
    LinkDown,
    LinkUp,
    Received,
    SendDatagram,
    SendLink,
    Tick,
    Woke,
)
from p2premap.gossip.messages import Ack, Ping
from p2premap.ids import Address, NodeId, starts_of
from p2premap.sim.clock import Clock
from p2premap.sim.hosts import Host, Life
from p2premap.sim.machines import Disk, Power, Seat
from p2premap.sim.network import SOCKET_DATAGRAMS_MAX, NetworkConfig
from p2premap.sim.observers import InvariantBroken
from p2premap.sim.world import World
from p2premap.wire import Message


class Puppet:
    """Writes down what it is told, and asks for whatever stands in `will` at the next event."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.heard: list[object] = []
        self.times: list[float] = []
        self.will: list[object] = []
        self.wakes = math.inf
        self.healthy = True

    def step(self, now: float, event: object) -> Sequence[object]:
        self.heard.append(event)
        self.times.append(now)
        if isinstance(event, Tick):
            self.wakes = math.inf
        effects, self.will = self.will, []
        return effects

    def deadline(self) -> float:
        return self.wakes

    def perform(self, effect: object) -> None:
        self.heard.append(("performed", effect))

    def frame(self, sender: NodeId, message: Message) -> object:
        return Received(sender=sender, address=None, message=message)

    def check_invariants(self) -> None:
        assert self.healthy


def puppet(seat: Seat) -> Puppet:
    assert isinstance(seat.host, Puppet)
    return seat.host


def a_world(nodes: int = 2, *, seed: int = 1, network: NetworkConfig | None = None) -> tuple[World, list[Seat]]:
    def make(life: Life) -> Host:
        return Puppet(life)

    world = World(seed=seed, hosts=make, network=network)
    seats = [world.add() for _ in range(nodes)]
    for seat in seats:
        world.start(seat)
    return world, seats


def do(world: World, seat: Seat, *effects: object) -> None:
    """Let a core ask for these now."""
    puppet(seat).will = list(effects)
    world.tell(seat, "go")


def ping(nonce: int = 7) -> Ping:
    return Ping(nonce=nonce, root=0)


def dial(target: Seat, *, keep: bool = False, timeout_s: float = 0.5) -> Dial:
    return Dial(dial=1, address=target.address, keep=keep, timeout_s=timeout_s)


def events(seat: Seat, kind: type) -> list[object]:
    return [event for event in puppet(seat).heard if isinstance(event, kind)]


def outcome(world: World, seat: Seat, asked: Dial, limit_s: float = 5.0) -> DialEnded:
    do(world, seat, asked)
    world.run_for(limit_s)
    (ended,) = events(seat, DialEnded)
    assert isinstance(ended, DialEnded)
    return ended


def linked(world: World, a: Seat, b: Seat) -> None:
    do(world, a, dial(b, keep=True))
    world.run_for(1.0)
    assert events(a, LinkUp)
    assert events(b, LinkUp)


# --- the clock --------------------------------------------------------------------------------------------------------


def test_things_of_one_instant_happen_in_the_order_of_their_entry() -> None:
    clock, done = Clock(), []
    for name in "abc":
        clock.at(1.0, done.append, name)
    clock.at(0.5, done.append, "first")
    clock.run_until(2.0)
    assert done == ["first", "a", "b", "c"]
    assert clock.now == 2.0


def test_a_clock_that_cannot_advance_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2premap.sim.clock._SAME_INSTANT_MAX", 100)
    clock = Clock()

    def again() -> None:
        clock.at(clock.now, again)

    again()
    with pytest.raises(LocalProtocolError, match="time does not pass"):
        clock.run_until(1.0)


def test_a_core_is_ticked_at_its_deadline_by_its_own_clock() -> None:
    world, (a, _) = a_world()
    origin = puppet(a).life.now
    puppet(a).wakes = origin + 3.0
    do(world, a)
    world.run_for(2.9)
    assert not events(a, Tick)
    world.run_for(0.2)
    assert len(events(a, Tick)) == 1
    assert puppet(a).times[-1] == pytest.approx(origin + 3.0)


def test_a_deadline_that_moves_back_is_not_ticked_early() -> None:
    world, (a, _) = a_world()
    puppet(a).wakes = puppet(a).life.now + 1.0
    do(world, a)
    puppet(a).wakes = puppet(a).life.now + 2.0
    world.run_for(1.5)
    assert not events(a, Tick)
    world.run_for(1.0)
    assert len(events(a, Tick)) == 1


def test_clocks_of_two_nodes_have_nothing_in_common() -> None:
    _, seats = a_world(5)
    assert len({puppet(seat).life.now for seat in seats}) == 5


# --- datagrams --------------------------------------------------------------------------------------------------------


def test_a_datagram_arrives_with_its_sender_and_its_bytes() -> None:
    world, (a, b) = a_world()
    do(world, a, SendDatagram(peer=b.node, address=b.address, message=ping()))
    world.run_for(0.1)
    (heard,) = events(b, Received)
    assert heard == Received(sender=a.node, address=a.address, message=ping())
    assert a.bytes_sent > 90


@pytest.mark.parametrize(
    ("config", "least", "most"),
    [
        (NetworkConfig(loss=1.0), 0, 0),
        (NetworkConfig(corrupt=1.0), 0, 0),
        (NetworkConfig(loss=0.5), 60, 140),
        (NetworkConfig(duplicate=1.0), 400, 400),
        (NetworkConfig(), 200, 200),
    ],
)
def test_datagrams_meet_the_fates_of_the_network(config: NetworkConfig, least: int, most: int) -> None:
    world, (a, b) = a_world(network=config)
    for nonce in range(200):
        do(world, a, SendDatagram(peer=b.node, address=b.address, message=ping(nonce)))
    world.run_for(1.0)
    assert least <= len(events(b, Received)) <= most


def test_a_reordering_network_reorders() -> None:
    world, (a, b) = a_world(network=NetworkConfig(reorder=0.5))
    for nonce in range(50):
        do(world, a, SendDatagram(peer=b.node, address=b.address, message=ping(nonce)))
        world.run_for(0.002)
    world.run_for(1.0)
    nonces = [event.message.nonce for event in events(b, Received)]  # type: ignore[attr-defined]
    assert sorted(nonces) == list(range(50))
    assert nonces != sorted(nonces)


def test_a_probability_over_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        NetworkConfig(loss=10)


def test_a_one_way_cut_stops_one_way() -> None:
    world, (a, b) = a_world()
    world.network.cut([a], [b], both_ways=False)
    do(world, a, SendDatagram(peer=b.node, address=b.address, message=ping()))
    do(world, b, SendDatagram(peer=a.node, address=a.address, message=ping()))
    world.run_for(0.1)
    assert not events(b, Received)
    assert events(a, Received)
    world.network.heal()
    do(world, a, SendDatagram(peer=b.node, address=b.address, message=ping()))
    world.run_for(0.1)
    assert events(b, Received)


def test_a_node_behind_a_translator_hears_only_answers() -> None:
    world, (a,) = a_world(1)
    hidden = world.add(dialable=False)
    world.start(hidden)
    to_hidden = SendDatagram(peer=hidden.node, address=hidden.address, message=ping())
    do(world, a, to_hidden)
    world.run_for(0.1)
    assert not events(hidden, Received)
    do(world, hidden, SendDatagram(peer=a.node, address=a.address, message=ping()))
    world.run_for(0.1)
    do(world, a, to_hidden)
    world.run_for(0.1)
    assert events(hidden, Received)
    assert outcome(world, a, dial(hidden)).outcome is DialOutcome.SILENT


# --- dials ------------------------------------------------------------------------------------------------------------


def test_each_dial_has_its_true_outcome() -> None:
    for power, expected in (
        (Power.RUNNING, DialOutcome.CONNECTED),
        (Power.STOPPED, DialOutcome.REFUSED),
        (Power.PAUSED, DialOutcome.STALLED),
        (Power.ASLEEP, DialOutcome.SILENT),
        (Power.OFF, DialOutcome.SILENT),
    ):
        world, (a, b) = a_world()
        {
            Power.RUNNING: lambda _: None,
            Power.STOPPED: world.crash,
            Power.PAUSED: world.pause,
            Power.ASLEEP: world.sleep,
            Power.OFF: world.power_off,
        }[power](b)
        ended = outcome(world, a, dial(b))
        assert ended.outcome is expected, power
        assert (ended.peer == b.node) is (expected is DialOutcome.CONNECTED)


def test_a_dial_over_a_cut_or_to_nobody_is_silent() -> None:
    world, (a, b) = a_world()
    world.network.cut([b], [a], both_ways=False)
    assert outcome(world, a, dial(b)).outcome is DialOutcome.SILENT
    world, (a, b) = a_world()
    nowhere = Dial(dial=1, address=Address("10.9.9.9", 1), keep=True, timeout_s=0.5)
    assert outcome(world, a, nowhere).outcome is DialOutcome.SILENT


def test_a_kept_dial_brings_the_link_up_before_it_ends() -> None:
    world, (a, b) = a_world()
    do(world, a, dial(b, keep=True))
    world.run_for(1.0)
    assert [type(event) for event in puppet(a).heard[1:]] == [LinkUp, DialEnded]
    assert events(b, LinkUp) == [LinkUp(peer=a.node, boot=a.boot, address=None)]


def test_a_process_that_stalled_hears_its_expired_dial_as_stalled() -> None:
    world, (a, b) = a_world()
    do(world, a, dial(b, keep=True))
    world.pause(a)
    world.run_for(5.0)
    world.resume(a)
    world.run_for(1.0)
    (ended,) = events(a, DialEnded)
    assert isinstance(ended, DialEnded)
    assert ended.outcome is DialOutcome.STALLED
    assert not a.links
    assert not b.links


# --- links ------------------------------------------------------------------------------------------------------------


def test_a_link_delivers_in_order_over_a_bad_network() -> None:
    world, (a, b) = a_world(network=NetworkConfig(jitter_s=0.05))
    linked(world, a, b)
    world.network.config = NetworkConfig(loss=0.3, jitter_s=0.05)
    for nonce in range(30):
        do(world, a, SendLink(peer=b.node, message=ping(nonce)))
    world.run_for(60.0)
    assert [event.message.nonce for event in events(b, Received)] == list(range(30))  # type: ignore[attr-defined]


def test_a_killed_process_closes_its_links_and_a_dead_machine_does_not() -> None:
    world, (a, b) = a_world()
    linked(world, a, b)
    world.crash(b)
    world.run_for(0.1)
    assert events(a, LinkDown) == [LinkDown(peer=b.node, boot=b.boot)]
    world, (a, b) = a_world()
    linked(world, a, b)
    world.power_off(b)
    world.run_for(100.0)
    assert not events(a, LinkDown)


def test_data_for_a_dead_machine_breaks_the_link_in_the_end() -> None:
    world, (a, b) = a_world()
    linked(world, a, b)
    world.power_off(b)
    do(world, a, SendLink(peer=b.node, message=ping()))
    world.run_for(19.0)
    assert not events(a, LinkDown)
    world.run_for(2.0)
    assert events(a, LinkDown)


def test_a_machine_booted_anew_resets_old_links() -> None:
    world, (a, b) = a_world()
    linked(world, a, b)
    world.power_off(b)
    do(world, a, SendLink(peer=b.node, message=ping()))
    world.run_for(1.0)
    world.start(b)
    world.run_for(3.0)
    assert events(a, LinkDown)
    assert not events(b, Received)


def test_a_link_waits_out_a_cut() -> None:
    world, (a, b) = a_world()
    linked(world, a, b)
    cut = world.network.cut([a], [b])
    do(world, a, SendLink(peer=b.node, message=ping(1)), SendLink(peer=b.node, message=ping(2)))
    world.run_for(5.0)
    assert not events(b, Received)
    world.network.heal(cut)
    world.run_for(10.0)
    assert [event.message.nonce for event in events(b, Received)] == [1, 2]  # type: ignore[attr-defined]


def test_hanging_up_is_heard_at_both_ends() -> None:
    world, (a, b) = a_world()
    linked(world, a, b)
    do(world, a, Hangup(peer=b.node))
    world.run_for(0.1)
    assert events(a, LinkDown)
    assert events(b, LinkDown)
    do(world, a, SendLink(peer=b.node, message=ping()))
    world.run_for(1.0)
    assert not events(b, Received)


# --- machines ---------------------------------------------------------------------------------------------------------


def test_after_a_stall_a_core_hears_woke_then_what_waited_then_its_tick() -> None:
    world, (a, b) = a_world()
    puppet(a).wakes = puppet(a).life.now + 1.0
    do(world, a)
    world.pause(a)
    do(world, b, SendDatagram(peer=a.node, address=a.address, message=ping()))
    world.run_for(4.0)
    assert len(puppet(a).heard) == 1
    world.resume(a)
    world.run_for(0.1)
    assert [type(event) for event in puppet(a).heard[1:]] == [Woke, Received, Tick]
    assert puppet(a).heard[1] == Woke(lost_s=pytest.approx(3.0))


def test_the_clock_of_a_sleeping_machine_stands_still() -> None:
    world, (a, _) = a_world()
    puppet(a).wakes = puppet(a).life.now + 1.0
    do(world, a)
    world.sleep(a)
    world.run_for(600.0)
    world.resume(a)
    assert puppet(a).heard[-1] == Woke(lost_s=600.0)
    assert puppet(a).times[-1] == pytest.approx(puppet(a).life.now)
    world.run_for(1.1)
    assert events(a, Tick)


def test_the_socket_of_a_stalled_process_fills() -> None:
    world, (a, b) = a_world()
    world.pause(a)
    for nonce in range(SOCKET_DATAGRAMS_MAX + 50):
        do(world, b, SendDatagram(peer=a.node, address=a.address, message=ping(nonce)))
    world.run_for(1.0)
    world.resume(a)
    assert len(events(a, Received)) == SOCKET_DATAGRAMS_MAX
    assert world.network.fates.unheard == 50


def test_disks_remember_forget_or_remember_too_little() -> None:
    world, (a, _) = a_world()
    for _ in range(3):
        world.crash(a)
        world.start(a)
    node, (first, second, third) = a.node, a.former
    assert starts_of(a.boot) == 4
    world.crash(a)
    world.start(a, Disk.OLD)
    assert (a.node, starts_of(a.boot)) == (node, 3)
    assert a.boot != third
    assert a.former == (first, second)
    world.crash(a)
    world.start(a, Disk.LOST)
    assert a.node != node
    assert (starts_of(a.boot), a.former) == (1, ())


def test_a_clash_of_identity_starts_the_node_anew() -> None:
    world, (a, _) = a_world()
    node = a.node
    do(world, a, IdentityClash(reason="an old disk"))
    assert a.power is Power.RUNNING
    assert a.node != node


@pytest.mark.parametrize("effects", range(4))
def test_a_process_can_die_after_any_effect(effects: int) -> None:
    world, (a, b) = a_world()
    world.crash_after(a, effects)
    do(world, a, *(SendDatagram(peer=b.node, address=b.address, message=Ack(nonce=n, root=0)) for n in range(4)))
    world.run_for(0.1)
    assert a.power is Power.STOPPED
    assert len(events(b, Received)) == effects


def test_a_broken_invariant_names_the_command_that_shows_it_again() -> None:
    world, (a, _) = a_world(seed=42)
    puppet(a).healthy = False
    with pytest.raises(InvariantBroken, match="the world of seed 42") as caught:
        do(world, a)
    assert caught.value.checker == "core"


def test_one_seed_is_one_history_and_another_seed_another() -> None:
    def history(seed: int) -> str:
        world, seats = a_world(3, seed=seed, network=NetworkConfig(loss=0.2, duplicate=0.2, reorder=0.2))
        for nonce in range(50):
            do(world, seats[nonce % 3], SendDatagram(peer=seats[0].node, address=seats[0].address, message=ping(nonce)))
            world.run_for(0.01)
        return world.trace.digest()

    assert history(1) == history(1)
    assert history(1) != history(2)
