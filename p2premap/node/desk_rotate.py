"""Rotation of the cluster's secret as the desk serves it: for a user here, and for the member whose user asked.

The steps and why they are safe are in `p2premap.node.keyring`. Who asks a member opens a stream to it, on which both
have proved their own keys; so S' goes to the very nodes that are listed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import trio

from p2premap.control.answers import Done, Trouble
from p2premap.control.membership import DropSecret, PrepareSecret, Rotate, Rotated, SwitchSecret
from p2premap.control.nodes import NodeView
from p2premap.errors import P2PRemapError
from p2premap.ids import NodeId
from p2premap.node import keyring
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.desk_ask import PASSED_ON, ask
from p2premap.node.desk_why import node_called
from p2premap.node.keyring import Offer, RotationRefused
from p2premap.node.secret import SECRET_BYTES, ClusterSecret
from p2premap.wire import Message

if TYPE_CHECKING:
    from p2premap.node.house import House


async def rotate(visit: Visit, message: Message, _: bytes) -> None:
    """`Rotate`: prepare everywhere, decide here, have everybody switch."""
    assert isinstance(message, Rotate)
    if not visit.local:
        raise RequestError(Trouble.USAGE, "Rotate on a machine of the cluster.")
    house = visit.house
    if house.keys.secret.open_name:
        raise RequestError(Trouble.USAGE, "Everybody knows an open cluster's secret; there is nothing to rotate.")
    evicted = _evicted(visit, message.evict)
    stay = [view for view in house.nodes() if view.node not in {gone.node for gone in evicted}]
    listed = tuple(view.node for view in stay)
    offer = keyring.next_offer(house.keys.ring, os.urandom(SECRET_BYTES), listed=listed, evicts=bool(evicted))
    house.keys.prepare(offer)
    answering = {view.node for view in house.others()}
    asked = [view for view in stay if view.node in answering]
    prepared = await _prepare(visit, offer, asked)
    try:
        house.keys.switch(offer.secret.tag)
    except P2PRemapError:
        await _tell(visit, prepared, DropSecret(request=PASSED_ON, tag=offer.secret.tag))
        raise
    switched = await _tell(visit, prepared, SwitchSecret(request=PASSED_ON, tag=offer.secret.tag))
    here = [house.name, *(view.name for view in switched)]
    # who has prepared and did not answer now switches as soon as it hears anybody
    not_away = {house.identity.node, *(view.node for view in prepared), *house.evicted}
    await visit.say(
        Rotated(
            request=message.request,
            epoch=offer.secret.epoch,
            switched=tuple(here),
            away=tuple(view.name for view in stay if view.node not in not_away and view.state != "left"),
            evicted=tuple(view.name for view in evicted),
            grace_s=offer.grace_s,
        )
    )


def _evicted(visit: Visit, names: Sequence[str]) -> list[NodeView]:
    """The members that are meant.

    Raises:
        RequestError: no such member, this one, or one that shares its secret with others.
    """
    evicted: dict[NodeId, NodeView] = {}
    for name in names:
        view = node_called(visit, name)
        if view is None:
            text = f"No node {name} is known; `p2premap nodes` shows names and ids."
            raise RequestError(Trouble.NOT_FOUND, text)
        if view.me:
            raise RequestError(Trouble.USAGE, f"{name} is the node that you ask; ask another one to evict it.")
        evicted[view.node] = view
    for gone in evicted.values():
        for view in visit.house.nodes():
            if view.node not in evicted and _share_secret(visit.house, gone.node, view.node):
                raise RequestError(
                    Trouble.USAGE,
                    f"{gone.name} and {view.name} are nodes of one user on one machine and share the secret: "
                    "evict both, or neither.",
                )
    return list(evicted.values())


def _share_secret(house: House, one: NodeId, other: NodeId) -> bool:
    """Whether two nodes have the same user on the same machine: their directories lie side by side."""
    a, b = house.core.capabilities(one), house.core.capabilities(other)
    if a is None or b is None or a.machine != b.machine or not a.blob_directory or not b.blob_directory:
        return False
    return PurePath(a.blob_directory).parent.parent == PurePath(b.blob_directory).parent.parent


async def _prepare(visit: Visit, offer: Offer, asked: Sequence[NodeView]) -> list[NodeView]:
    """The members that have written the new secret down; who does not answer is passed over.

    Raises:
        RequestError: one of them refuses; the others have been told to forget it.
    """
    secret = offer.secret
    question = PrepareSecret(
        request=PASSED_ON,
        secret=secret.value,
        epoch=secret.epoch,
        origin=secret.origin,
        grace_s=offer.grace_s,
        listed=offer.listed,
    )
    refusals: list[str] = []

    async def one(view: NodeView) -> None:
        try:
            await ask(visit, view.node, question, Done)
            prepared.append(view)
        except RequestError as error:
            refusals.append(f"{view.name} refuses: {error}")
        except P2PRemapError:
            pass  # it is away

    prepared: list[NodeView] = []
    async with trio.open_nursery() as nursery:
        for view in asked:
            nursery.start_soon(one, view)
    if refusals:
        visit.house.keys.drop(secret.tag)
        await _tell(visit, prepared, DropSecret(request=PASSED_ON, tag=secret.tag))
        raise RequestError(Trouble.REFUSED, f"The secret stays as it is. {refusals[0]}")
    return prepared


async def _tell(visit: Visit, members: Sequence[NodeView], message: DropSecret | SwitchSecret) -> list[NodeView]:
    """Those that have heard."""
    heard: list[NodeView] = []

    async def one(view: NodeView) -> None:
        try:
            await ask(visit, view.node, message, Done)
            heard.append(view)
        except P2PRemapError:
            pass

    async with trio.open_nursery() as nursery:
        for view in members:
            nursery.start_soon(one, view)
    return sorted(heard, key=lambda view: view.name)


# --- for a member whose user asked ----------------------------------------------------------------------------------


async def prepare_secret(visit: Visit, message: Message, _: bytes) -> None:
    """`PrepareSecret`."""
    assert isinstance(message, PrepareSecret)
    _of_a_member(visit)
    secret = ClusterSecret(message.secret, "", message.epoch, message.origin)
    try:
        visit.house.keys.prepare(Offer(secret, message.grace_s, tuple(NodeId(node) for node in message.listed)))
    except RotationRefused as error:
        raise RequestError(Trouble.REFUSED, str(error)) from None
    await visit.say(Done(request=message.request))


async def switch_secret(visit: Visit, message: Message, _: bytes) -> None:
    """`SwitchSecret`: said under the new secret, so that it has been heard already."""
    assert isinstance(message, SwitchSecret)
    _of_a_member(visit)
    visit.house.keys.switch(message.tag)
    await visit.say(Done(request=message.request))


async def drop_secret(visit: Visit, message: Message, _: bytes) -> None:
    """`DropSecret`."""
    assert isinstance(message, DropSecret)
    _of_a_member(visit)
    visit.house.keys.drop(message.tag)
    await visit.say(Done(request=message.request))


def _of_a_member(visit: Visit) -> None:
    if visit.peer is None:
        raise RequestError(Trouble.USAGE, "Only a member may say this; use `p2premap rotate`.")


HANDLERS: dict[type[Message], Handler] = {
    Rotate: rotate,
    PrepareSecret: prepare_secret,
    SwitchSecret: switch_secret,
    DropSecret: drop_secret,
}
