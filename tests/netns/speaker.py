"""A node's discovery alone, for the tests beside: announces itself, dials each hint, prints what happens as JSON lines.

argv: number, tag. It listens on a port of its own, so that a hint that it prints as "reached" led somewhere. It tells
for how long others had the processor when it wanted it.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time

import trio

from p2premap.config import DiscoveryConfig
from p2premap.gossip.events import Hinted
from p2premap.ids import NodeId
from p2premap.node.discovery import Announcement, Discovery
from p2premap.node.interfaces import Interface, addresses
from p2premap.node.reach import try_addresses

LOOK_S = 0.02


def say(**facts: object) -> None:
    """One line for the test, with the instant on the clock that all processes of this machine share."""
    print(json.dumps({**facts, "at": time.monotonic()}), flush=True)


async def main(number: int, tag: str) -> None:
    """Until SIGTERM."""
    node = NodeId(bytes([number]) * 16)
    hints_in, hints_out = trio.open_memory_channel[Hinted](1_000)
    listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = listener.getsockname()[1]

    def on_interfaces(interfaces: tuple[Interface, ...]) -> None:
        there = addresses(interfaces, port, 16)
        discovery.announce(Announcement(node=node, tag=tag, name=f"n{number}", addresses=there))

    discovery = Discovery(
        me=node,
        tag=tag,
        config=DiscoveryConfig(mdns_retry_s=0.5),
        hint=hints_in.send_nowait,
        known=lambda _: False,
        on_interfaces=on_interfaces,
    )

    async def dial() -> None:
        async for hint in hints_out:
            (outcome,) = await try_addresses([hint.address], 1.0)
            who = hint.node[0] if hint.node is not None else 0
            say(event="hint", node=who, host=hint.address.host, outcome=outcome, stalled_s=stalled_s)

    stalled_s = 0.0

    async def report() -> None:
        nonlocal stalled_s
        before: dict[str, object] = {}
        while True:
            now: dict[str, object] = {
                "found": sorted(found.node[0] for found in discovery.found),
                "foreign": [[f.cluster, f.address, f.hint] for f in discovery.foreign],
                "warnings": discovery.warnings,
            }
            if now != before:
                before = now
                say(event="state", **now)
            looked = time.monotonic()
            await trio.sleep(LOOK_S)
            stalled_s += time.monotonic() - looked - LOOK_S

    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            await nursery.start(discovery.run)
            say(event="started")
            nursery.start_soon(report)
            async for _ in signals:
                nursery.cancel_scope.cancel()
    listener.close()
    say(event="ended")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2])
