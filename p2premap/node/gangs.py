"""What a daemon does for the gangs whose tasks run here: says whom a process meets and how to prove it, and passes on
the connections that come from other machines. What is said over them is none of its business.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from p2premap.ids import Address, NodeId
from p2premap.node.introduction import (
    INTRODUCTION_BYTES,
    Introduction,
    is_proved,
    meeting_key,
    read_introduction,
)
from p2premap.node.secret import ClusterSecret

if TYPE_CHECKING:
    from p2premap.tasks.meeting import Meeting
    from p2premap.worker.messages import Table

ADDRESSES_MAX: Final = 8
AGAIN_S: Final = 0.005


class Gangs:
    """One node's.

    Args:
        me: this node.
        secrets: the cluster's present one, and others under which a meeting may have been arranged.
        directory: the cluster's runtime directory on this machine.
        addresses_of: where a member may be dialled.
        is_neighbour: whether a member runs on this machine.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        secrets: Callable[[], Sequence[ClusterSecret]],
        directory: Callable[[], Path],
        addresses_of: Callable[[NodeId], Sequence[Address]],
        is_neighbour: Callable[[NodeId], bool],
    ) -> None:
        self._me = me
        self._secrets = secrets
        self._directory = directory
        self._addresses_of = addresses_of
        self._is_neighbour = is_neighbour
        self._clear = False

    def table(self, meeting: Meeting) -> Table:
        """What a process of this node is told, which is to be in this meeting."""
        from p2premap.worker.messages import Peer, Table  # few jobs need them

        self._clear_leftovers()
        peers = []
        for seat, (node, tasks) in enumerate(meeting.seats):
            near = node == self._me or self._is_neighbour(node)
            addresses = () if node == self._me else self._addresses_of(node)[:ADDRESSES_MAX]
            peers.append(
                Peer(
                    node=node,
                    tasks=tasks,
                    path=self._door(node, meeting.id, seat) if near else "",
                    addresses=tuple((address.host, address.port) for address in addresses),
                )
            )
        return Table(
            meeting=meeting.id,
            key=meeting_key(self._secrets()[0].value, meeting.id),
            seat=meeting.seat,
            path=self._door(self._me, meeting.id, meeting.seat),
            peers=tuple(peers),
        )

    def _door(self, node: NodeId, meeting: bytes, seat: int) -> str:
        """Where a process can be found on this machine: a name that is no control socket's, and as short."""
        return f"{self._directory()}/{node[:4].hex()}-{meeting[:6].hex()}-{seat}"

    def _clear_leftovers(self) -> None:
        """Doors of an earlier run of this node, whose processes were killed on their way to a meeting."""
        if not self._clear:
            self._clear = True
            for door in self._directory().glob(f"{self._me[:4].hex()}-*"):
                door.unlink(missing_ok=True)

    async def serve(self, tcp: trio.SocketStream) -> bool:
        """Pass on a connection from another machine to the process that it is for. Whether it was one of ours.

        Waits for as long as the process is not there yet: the caller sees to it that this ends.
        """
        data = b""
        while len(data) < INTRODUCTION_BYTES:
            more = await tcp.receive_some(INTRODUCTION_BYTES - len(data))
            if not more:
                return False
            data += more
        said = read_introduction(data)
        while said is not None and self._is_proved(said):  # as long as it is: somebody may be evicted meanwhile
            if self._pass_on(tcp, said, data):
                return True
            await trio.sleep(AGAIN_S)  # nobody tells when a door opens
        return False

    def _is_proved(self, said: Introduction) -> bool:
        return any(is_proved(meeting_key(secret.value, said.meeting), said) for secret in self._secrets())

    def _pass_on(self, tcp: trio.SocketStream, said: Introduction, data: bytes) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.setblocking(False)
            door.connect(self._door(self._me, said.meeting, said.to))
            socket.send_fds(door, [data], [tcp.socket.fileno()])
            return True
        return False
