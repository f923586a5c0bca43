"""Answers about this node and its cluster: who is here, how it is, invitations, joining, leaving, doctor, stopping."""

from __future__ import annotations

import time
from typing import Final

import msgspec
import trio

from p2premap.control.answers import Done, Trouble
from p2premap.control.membership import Invited, Join, LeaveCluster, MakeInvite
from p2premap.control.nodes import (
    Announce,
    Diagnose,
    Diagnosis,
    GetStatus,
    ListNodes,
    Nodes,
    NodeView,
    Stop,
    Tried,
    TryAddresses,
)
from p2premap.node import belonging, neighbours, reach
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.diskspace import disk_trouble
from p2premap.node.endings import Ending
from p2premap.node.load import memory_free_bytes
from p2premap.wire import Message

TRY_S: Final = 1.0


async def announce(visit: Visit, message: Message, _: bytes) -> None:
    """`Announce`: a node of this machine has started."""
    assert isinstance(message, Announce)
    house = visit.house
    reply, hints = neighbours.answer(message, house.identity.node, house.transport.addresses)
    for hint in hints:
        house.hint(hint)
    await visit.say(reply)


async def list_nodes(visit: Visit, message: Message, _: bytes) -> None:
    """`ListNodes`."""
    assert isinstance(message, ListNodes)
    await visit.say(Nodes(request=message.request, views=tuple(map(exact, visit.house.nodes()))))


def exact(view: NodeView) -> NodeView:
    """The view with this machine's own memory as it is now; members tell each other in eight levels."""
    if not view.me:
        return view
    try:
        return msgspec.structs.replace(view, memory_free_bytes=memory_free_bytes())
    except OSError:
        return view


async def get_status(visit: Visit, message: Message, _: bytes) -> None:
    """`GetStatus`."""
    assert isinstance(message, GetStatus)
    status = visit.house.account.status(message.request)
    status = msgspec.structs.replace(status, me=exact(status.me))
    trouble = await trio.to_thread.run_sync(disk_trouble, visit.house.identity.directory)
    if trouble:
        status = msgspec.structs.replace(status, warnings=(trouble, *status.warnings))
    await visit.say(status)


async def make_invite(visit: Visit, message: Message, _: bytes) -> None:
    """`MakeInvite`."""
    assert isinstance(message, MakeInvite)
    if not visit.local:
        raise RequestError(Trouble.USAGE, "Invite on the machine that shall be joined.")
    token = await belonging.invite(visit.house, uses=message.uses, valid_s=message.valid_s)
    await visit.say(Invited(request=message.request, token=token, uses=message.uses, valid_s=message.valid_s))


async def join(visit: Visit, message: Message, _: bytes) -> None:
    """`Join`: take another cluster's secret, then begin again as its member."""
    assert isinstance(message, Join)
    house = visit.house
    if not visit.local:
        raise RequestError(Trouble.USAGE, "Join on the machine that shall become a member.")
    if house.inviter.is_ours(message.token):
        text = "This machine is already a member of that cluster."
        await visit.say(Done(request=message.request, text=text, changed=False))
        return
    if not message.leave:
        _refuse_to_abandon(visit)
    text = await belonging.join(house, message.token)
    await _last_words(visit, Done(request=message.request, text=text), Ending.RESTART)


def _refuse_to_abandon(visit: Visit) -> None:
    house = visit.house
    others = 0 if house.search.outside else len(house.others())  # those that a rotation left out are told to join
    running = sum(not view.phase.over for view in house.jobs())
    if others or running:
        raise RequestError(
            Trouble.REFUSED,
            f"This node is in a cluster with {others} other member{'' if others == 1 else 's'} and {running} running "
            f"job{'' if running == 1 else 's'}; add --leave to leave that cluster first.",
        )


async def leave_cluster(visit: Visit, message: Message, _: bytes) -> None:
    """`LeaveCluster`."""
    assert isinstance(message, LeaveCluster)
    if not visit.local:
        raise RequestError(Trouble.USAGE, "Leave on the machine that shall leave.")
    text = await belonging.leave(visit.house)
    await _last_words(visit, Done(request=message.request, text=text), Ending.RESTART)


async def _last_words(visit: Visit, answer: Done, ending: Ending) -> None:
    """Answer, then end this run: also where the client has gone, as what it asked for has been done already."""
    try:
        await visit.say(answer)
    finally:
        visit.house.end(ending)


async def diagnose(visit: Visit, message: Message, _: bytes) -> None:
    """`Diagnose`."""
    assert isinstance(message, Diagnose)
    await visit.say(Diagnosis(request=message.request, findings=await visit.house.account.diagnose()))


async def stop(visit: Visit, message: Message, _: bytes) -> None:
    """`Stop`."""
    assert isinstance(message, Stop)
    if not visit.local:
        raise RequestError(Trouble.USAGE, "Stop a node on its own machine.")
    await _last_words(visit, Done(request=message.request, text="The node stops."), Ending.STOP)


async def try_addresses(visit: Visit, message: Message, _: bytes) -> None:
    """`TryAddresses`: a member's doctor wants to know whether we can dial it."""
    assert isinstance(message, TryAddresses)
    outcomes = await reach.try_addresses(message.addresses, TRY_S)
    await visit.say(Tried(request=message.request, outcomes=outcomes, clock_unix_s=time.time()))


HANDLERS: dict[type[Message], Handler] = {
    Announce: announce,
    ListNodes: list_nodes,
    GetStatus: get_status,
    MakeInvite: make_invite,
    Join: join,
    LeaveCluster: leave_cluster,
    Diagnose: diagnose,
    Stop: stop,
    TryAddresses: try_addresses,
}
