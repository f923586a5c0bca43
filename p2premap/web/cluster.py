"""Endpoints about the cluster: logging in, the cluster itself, its nodes, what kinds of jobs there are."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from starlette.responses import HTMLResponse, Response

from p2premap import __version__, plugins
from p2premap.client.shapes import JobShape, NodeShape, Shape, StatusShape
from p2premap.control.answers import Done
from p2premap.control.jobs import Jobs, ListJobs, Why
from p2premap.control.nodes import Drain, GetStatus, ListNodes, Nodes, NodeView, Status
from p2premap.control.web import OpenWeb, SetNode, WebOpened
from p2premap.node.kinds import planner_of
from p2premap.web.endpoints import NOTHING, Call, Endpoint, Media
from p2premap.web.problems import Problem
from p2premap.web.service import Page, page, reply

OPEN_S: Final = 30.0
DRAIN_MARGIN_S: Final = 30.0

_IN: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>p2premap</title>
<script type="module" src="/page/enter.js"></script><p><a href="/">Logged in; go on.</a></p></html>"""
_OUT: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>p2premap</title>
<p>This link is not good any more: each works once, for ten minutes.
Run <code>p2premap dashboard</code> for another.</p></html>"""


class RootShape(Shape, frozen=True, kw_only=True):
    """Who answers."""

    node: str
    name: str
    cluster: str
    version: str
    origin: str


class NodesPage(Shape, frozen=True, kw_only=True):
    """Members of the cluster: the one that answers first, then by name."""

    items: list[NodeShape]
    next: str | None


class Steer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall be other at a node; what is left out stays."""

    slots: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None
    refused_actions: (
        Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=100)], ...], msgspec.Meta(max_length=64)]
        | None
    ) = None


class Drained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for what runs and for copies, at most."""

    wait_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 600.0


class TicketShape(Shape, frozen=True, kw_only=True):
    """A one-time login at a node. `url` is "" where a browser of this machine cannot reach it: type `command` there."""

    url: str
    command: str
    expires_s: float


class TextShape(Shape, frozen=True, kw_only=True):
    """A sentence or two for people."""

    text: str


class KindShape(Shape, frozen=True, kw_only=True):
    """A kind of jobs that is installed at the node that answers. `runs_files`: it can be handed in from a file."""

    name: str
    runs_files: bool


class RefusedShape(Shape, frozen=True, kw_only=True):
    """An action of which some nodes (names) run no tasks."""

    name: str
    nodes: list[str]


class KindsShape(Shape, frozen=True, kw_only=True):
    """What can be run."""

    kinds: list[KindShape]
    refused_actions: list[RefusedShape]


class TicketQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time login."""

    ticket: Annotated[str, msgspec.Meta(max_length=200)] = ""


# --- coming in ----------------------------------------------------------------------------------------------------


async def get_root(call: Call) -> Response:
    """Who answers."""
    settings = call.web.settings
    status = await call.web.daemon.ask(lambda n: GetStatus(request=n), Status)
    shape = RootShape(
        node=settings.node, name=settings.name, cluster=status.cluster, version=__version__, origin=call.web.origins[0]
    )
    return reply(call, shape)


async def login(call: Call) -> Response:
    """A ticket becomes a cookie."""
    if not call.web.passes.take_ticket(call.query.ticket, time.time()):
        return HTMLResponse(_OUT, HTTPStatus.UNAUTHORIZED)
    # not a redirect: after one from elsewhere a SameSite=Strict cookie would not be sent along
    return _with_cookie(call, HTMLResponse(_IN))


async def begin_session(call: Call) -> Response:
    """The token becomes a cookie."""
    if call.request.scope["p2premap.by"] == "cookie":
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return _with_cookie(call, Response(status_code=HTTPStatus.NO_CONTENT))


async def end_session(call: Call) -> Response:
    """Log out."""
    web = call.web
    web.passes.log_out(call.request.cookies.get(web.cookie, ""), time.time())
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    answer.delete_cookie(web.cookie, httponly=True, samesite="strict")
    return answer


def _with_cookie(call: Call, answer: Response) -> Response:
    value, secure = call.web.passes.cookie(time.time()), call.request.url.scheme == "https"
    answer.set_cookie(call.web.cookie, value, httponly=True, samesite="strict", secure=secure)
    return answer


async def alive(call: Call) -> Response:
    """Nothing but that somebody is here: a page asks before it moves to this node."""
    return Response(status_code=HTTPStatus.NO_CONTENT, headers={"cross-origin-resource-policy": "cross-origin"})


# --- the cluster and its nodes ------------------------------------------------------------------------------------


async def get_cluster(call: Call) -> Response:
    """The node and its cluster."""
    daemon = call.web.daemon
    status, listed = await asyncio.gather(
        daemon.ask(lambda n: GetStatus(request=n), Status), daemon.ask(lambda n: ListJobs(request=n), Jobs)
    )
    return reply(call, StatusShape.of(status, map(JobShape.of, listed.views)))


async def _views(call: Call) -> tuple[NodeView, ...]:
    return (await call.web.daemon.ask(lambda n: ListNodes(request=n), Nodes)).views


async def find_node(call: Call) -> NodeView:
    """The node that the path names.

    Raises:
        Problem: it is none, or several.
    """
    wanted = call.path["node"]
    views = await _views(call)
    found = [view for view in views if view.name == wanted]
    if not found and len(wanted) >= 4:
        found = [view for view in views if view.node.hex().startswith(wanted.lower())]
    if not found:
        raise Problem(HTTPStatus.NOT_FOUND, f"No node is called {wanted}.")
    if len(found) > 1:
        ids = ", ".join(view.node.hex()[:8] for view in found)
        raise Problem(HTTPStatus.BAD_REQUEST, f"{len(found)} nodes are called {wanted}; give the id of one: {ids}.")
    return found[0]


async def list_nodes(call: Call) -> Response:
    """The members."""
    items, following = page(list(map(NodeShape.of, await _views(call))), call.query)
    return reply(call, NodesPage(items=items, next=following))


async def get_node(call: Call) -> Response:
    """One member."""
    return reply(call, NodeShape.of(await find_node(call)))


async def steer_node(call: Call) -> Response:
    """Change what a node offers."""
    view = await find_node(call)
    wanted: Steer = call.body
    ask = partial(SetNode, node=view.node, slots=wanted.slots, refused_actions=wanted.refused_actions)
    await call.web.daemon.do(lambda n: ask(request=n))
    changed = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
    # a member of this one's view, which hears of it by gossip a moment later
    return reply(call, NodeShape.of(msgspec.structs.replace(await find_node(call), **changed)))


async def drain_node(call: Call) -> Response:
    """Have a node stop once nobody needs it; at once answered."""
    view, wait_s = await find_node(call), call.body.wait_s

    async def drain() -> None:
        ask = partial(Drain, wait_s=wait_s, node=view.node)
        await call.web.daemon.ask(lambda n: ask(request=n), Done, timeout_s=wait_s + DRAIN_MARGIN_S)

    call.web.start(drain())
    return reply(call, TextShape(text=f"{view.name} takes no more work, and stops when it can."), HTTPStatus.ACCEPTED)


async def make_ticket(call: Call) -> Response:
    """A one-time login at a node."""
    view = await find_node(call)
    opened = await call.web.daemon.ask(lambda n: OpenWeb(request=n, node=view.node), WebOpened, timeout_s=OPEN_S)
    mine = await call.web.daemon.ask(lambda n: OpenWeb(request=n), WebOpened, timeout_s=OPEN_S)
    here = opened.machine == mine.machine
    reachable = [origin for origin in opened.origins if here or origin.startswith("https://")]
    url = f"{reachable[0]}/login?ticket={opened.ticket}" if reachable else ""
    command = f"p2premap --node {view.name} dashboard"
    return reply(call, TicketShape(url=url, command=command, expires_s=opened.valid_s), HTTPStatus.CREATED)


async def why_node(call: Call) -> Response:
    """Why a node is as it is."""
    view = await find_node(call)
    about = view.node.hex()
    return reply(call, TextShape(text=await call.web.daemon.do(lambda n: Why(request=n, about=about))))


async def list_kinds(call: Call) -> Response:
    """What can be run."""
    names = await asyncio.to_thread(lambda: {name: planner_of(name) for name in plugins.find(plugins.MODULES)})
    refused: dict[str, list[str]] = {}
    for view in await _views(call):
        for action in view.refused_actions:
            refused.setdefault(action, []).append(view.name)
    shape = KindsShape(
        kinds=[KindShape(name=name, runs_files=bool(planner)) for name, planner in sorted(names.items())],
        refused_actions=[RefusedShape(name=name, nodes=nodes) for name, nodes in sorted(refused.items())],
    )
    return reply(call, shape)


_NODE_FAILS: Final = {404: "no such node", 502: "it does not answer"}
_NOT_MODIFIED: Final = Media("the client has it", empty=True)

ENDPOINTS: Final = [
    Endpoint("GET", "/alive", alive, "Somebody is here.", {204: NOTHING}, public=True),
    Endpoint(
        "GET",
        "/login",
        login,
        "A one-time login becomes a cookie.",
        {200: Media("text/html"), 401: Media("text/html")},
        TicketQuery,
        public=True,
    ),
    Endpoint("GET", "/api/v1", get_root, "Who answers.", {200: RootShape, 304: _NOT_MODIFIED}),
    Endpoint("POST", "/api/v1/session", begin_session, "The token becomes a cookie.", {204: NOTHING}),
    Endpoint("DELETE", "/api/v1/session", end_session, "Log out.", {204: NOTHING}),
    Endpoint("GET", "/api/v1/cluster", get_cluster, "The cluster.", {200: StatusShape, 304: _NOT_MODIFIED}),
    Endpoint("GET", "/api/v1/nodes", list_nodes, "Its nodes.", {200: NodesPage, 304: _NOT_MODIFIED}, Page),
    Endpoint(
        "GET", "/api/v1/nodes/{node}", get_node, "A node.", {200: NodeShape, 304: _NOT_MODIFIED}, fails=_NODE_FAILS
    ),
    Endpoint(
        "PATCH",
        "/api/v1/nodes/{node}",
        steer_node,
        "Change what a node offers.",
        {200: NodeShape},
        body=Steer,
        fails=_NODE_FAILS,
    ),
    Endpoint(
        "POST",
        "/api/v1/nodes/{node}/drain",
        drain_node,
        "Have a node stop once nobody needs it.",
        {202: TextShape},
        body=Drained,
        optional_body=True,
        fails=_NODE_FAILS,
    ),
    Endpoint(
        "POST",
        "/api/v1/nodes/{node}/ticket",
        make_ticket,
        "A one-time login at a node.",
        {201: TicketShape},
        fails={**_NODE_FAILS, 409: "it cannot serve"},
    ),
    Endpoint(
        "GET",
        "/api/v1/nodes/{node}/why",
        why_node,
        "Why a node is as it is.",
        {200: TextShape, 304: _NOT_MODIFIED},
        fails=_NODE_FAILS,
    ),
    Endpoint("GET", "/api/v1/kinds", list_kinds, "What can be run.", {200: KindsShape, 304: _NOT_MODIFIED}),
]
