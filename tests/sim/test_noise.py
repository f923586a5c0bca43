"""Bytes that were damaged on the way: a decoder refuses them in one way, and what it does not refuse harms no core.

In the daemon authenticated encryption drops damaged datagrams before any decoder sees them; this is the second wall.
"""

from __future__ import annotations

from random import Random

import pytest

from p2premap import protocol
from p2premap.errors import RemoteProtocolError
from p2premap.gossip.events import Received, SendDatagram, SendLink
from p2premap.sim.cluster import Cluster
from p2premap.sim.machines import Seat
from p2premap.wire import Registry


class Recorder:
    """Keeps one encoded message of each kind and length."""

    kinds = (SendDatagram, SendLink)

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int], bytes] = {}

    def effect(self, seat: Seat, effect: object) -> None:
        if isinstance(effect, (SendDatagram, SendLink)):
            data = protocol.GOSSIP.encode(effect.message)
            self.seen.setdefault((type(effect.message).__name__, len(data)), data)

    def told(self, seat: Seat, event: object) -> None:
        pass

    def fault(self, seat: Seat, word: str) -> None:
        pass


def a_talking_cluster() -> tuple[Cluster, list[bytes]]:
    cluster = Cluster(5, seed=1, strict=False)
    recorder = Recorder()
    cluster.world.observe(recorder)
    cluster.form()
    for seat in cluster.seats:
        cluster.publish(seat, "cpu")
        cluster.load(seat)
    cluster.world.crash(cluster.seats[1])
    cluster.world.power_off(cluster.seats[2])
    cluster.world.run_for(10.0)
    kinds = {name for name, _ in recorder.seen}
    assert {"Ping", "Ack", "Rumours", "Inquire", "Witness", "Buckets", "Digests", "Entries"} <= kinds
    return cluster, list(recorder.seen.values())


def damaged(data: bytes, random: Random) -> bytes:
    match random.randrange(5):
        case 0:
            return random.randbytes(random.randrange(40))
        case 1:
            return data[: random.randrange(len(data))]
        case 2:
            place = random.randrange(len(data))
            return data[:place] + random.randbytes(random.randrange(1, 9)) + data[place:]
        case _:
            changed = bytearray(data)
            for _ in range(random.randrange(1, 4)):
                changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
            return bytes(changed)


@pytest.mark.parametrize("registry", [protocol.GOSSIP, protocol.LINK], ids=["datagram", "link"])
def test_damaged_messages_are_refused_in_one_way_and_harm_no_core(registry: Registry) -> None:
    cluster, messages = a_talking_cluster()
    random = Random(2)
    victim = cluster.seats[0]
    assert victim.host is not None
    read = 0
    for _ in range(6_000):
        try:
            message = registry.decode(damaged(random.choice(messages), random))
        except RemoteProtocolError:
            continue
        read += 1
        if registry is protocol.GOSSIP:
            event = Received(sender=cluster.seats[3].node, address=cluster.seats[3].address, message=message)
            victim.host.step(victim.clock_last, event)
            victim.host.check_invariants()
    assert read > 100
