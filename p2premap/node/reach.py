"""Can a TCP connection to an address be opened from here? The doctor asks; nothing else is said on the connection."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

import trio

from p2premap.ids import Address

ADDRESSES_MAX = 16


async def try_addresses(addresses: Sequence[Address], each_s: float) -> tuple[str, ...]:
    """What becomes of each address: "open", "refused", "silent" or "unroutable"; the first ADDRESSES_MAX of them."""
    asked = tuple(addresses)[:ADDRESSES_MAX]
    outcomes = ["silent"] * len(asked)

    async def one(place: int, address: Address) -> None:
        with trio.move_on_after(each_s):
            outcomes[place] = await _try(address)

    async with trio.open_nursery() as nursery:
        for place, address in enumerate(asked):
            nursery.start_soon(one, place, address)
    return tuple(outcomes)


async def _try(address: Address) -> str:
    try:
        rows = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        family, kind, protocol, _, where = rows[0]
        with trio.socket.socket(family, kind, protocol) as sock:
            await sock.connect(where)
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return "silent" if error.errno == errno.ETIMEDOUT else "unroutable"
    return "open"
