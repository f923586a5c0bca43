"""`Why`: what explains a job, a task or a node, in a sentence or two, from whoever knows it best."""

from __future__ import annotations

import msgspec
import trio

from p2premap.control.answers import Done, Trouble
from p2premap.control.jobs import Why
from p2premap.control.nodes import NodeView
from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import NOBODY, JobId, short
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.desk_ask import PASSED_ON, PREFIX_BYTES_MIN, ask, find, over, refuse_unknown_task
from p2premap.tasks.job import JobView, Phase
from p2premap.wire import Message

_STATES = {
    "stalled": "accepts connections and does not answer, as if it were stopped, swapping or overloaded, or it answers "
    "others and not us; it gets no new work until that is clear",
    "suspect": "does not answer; it gets no new work, and what it runs counts as lost once it is declared dead",
    "dead": "counts as dead: its process is gone, or it has not answered for long; what it ran runs elsewhere",
    "left": "has left the cluster",
}


async def why(visit: Visit, message: Message, _: bytes) -> None:
    """`Why`."""
    assert isinstance(message, Why)
    node = None if message.task >= 0 else node_called(visit, message.about)
    text = await _why_node(visit, node) if node is not None else await _why_job(visit, message)
    await visit.say(Done(request=message.request, text=text))


# --- nodes --------------------------------------------------------------------------------------------------------


def node_called(visit: Visit, about: str) -> NodeView | None:
    """The member of this name or id; None if a job must be meant.

    Raises:
        RequestError: several are meant.
    """
    views = visit.house.nodes()
    found = [view for view in views if view.name == about]
    if not found and len(about) >= 2 * PREFIX_BYTES_MIN:
        found = [view for view in views if view.node.hex().startswith(about.lower())]
    if len(found) > 1:
        ids = ", ".join(view.node.hex()[:8] for view in found)
        raise RequestError(Trouble.USAGE, f"{len(found)} nodes are called {about}; give the id of one of them: {ids}.")
    return found[0] if found else None


async def _why_node(visit: Visit, view: NodeView) -> str:
    name = f"{view.name} ({view.node.hex()[:8]})"
    if view.state in _STATES:
        return f"{name} {_STATES[view.state]} ({view.state} for {view.since_s:.0f} s)."
    if view.me:
        return f"{name} {_busy(view)}; {_runs(visit)}."
    if visit.peer is None:
        question = Why(request=PASSED_ON, about=view.node.hex())
        try:
            return (await ask(visit, view.node, question, Done)).text
        except (PeerUnreachable, RequestError, RemoteProtocolError) as error:
            return f"{name} {_busy(view)}, but did not answer just now: {error}"
    return f"{name} {_busy(view)}."


def _busy(view: NodeView) -> str:
    slots = f"{view.slots} slot{'' if view.slots == 1 else 's'}"
    if view.held_back:
        return f"offers {slots} and no more, because {view.held_back}; busy: {view.busy}"
    return f"is well and offers {slots}; busy: {view.busy}"


def _runs(visit: Visit) -> str:
    """What the slots of this node do."""
    running = visit.house.executor.running()
    making = "; it is making the environment of a job" if visit.house.environments.making else ""
    if not running:
        return f"nothing runs here{making}"
    tasks = [
        f"task {now.stage}.{now.task} of {short(now.job)} for {now.seconds:.0f} s"
        if now.task >= 0
        else f"a batch of {short(now.job)}, whose inputs are on their way"
        for now in running
    ]
    return f"here run {', '.join(tasks)}{making}"


# --- jobs and tasks -----------------------------------------------------------------------------------------------


async def _why_job(visit: Visit, message: Why) -> str:
    about = message.about[: len(message.about) // 2 * 2]
    try:
        prefix = bytes.fromhex(about)
    except ValueError:
        raise RequestError(Trouble.NOT_FOUND, f"No node is called {message.about}, and no job either.") from None
    view = await find(visit, prefix)
    house, job = visit.house, JobId(view.job)
    stage = message.stage if message.stage >= 0 else len(view.stages) - 1
    if stage < len(view.stages) or over(view):  # else it is not planned yet, which explains something
        refuse_unknown_task(view, stage, message.task)
    if over(view):
        return _ended(view)
    if house.core.jobs.leads(job):
        return house.core.jobs.why(trio.current_time(), job, stage=message.stage, task=message.task) or _seen(view)
    if visit.peer is None and any(other.node == view.leader for other in house.others()):
        question = msgspec.structs.replace(message, request=PASSED_ON, about=job.hex())
        try:
            return (await ask(visit, view.leader, question, Done)).text
        except (PeerUnreachable, RequestError, RemoteProtocolError) as error:
            return f"{_seen(view)} ({error})"
    return _seen(view)


def _seen(view: JobView) -> str:
    """A job that this node does not lead, as far as it knows it."""
    who = "is led by nobody just now"
    if view.leader != NOBODY:
        who = f"was led by {view.leader_name}, which does not answer this node"
    return f"The job {short(view.job)} {who}. {view.note}".rstrip()


def _ended(view: JobView) -> str:
    how = {Phase.DONE: "is done", Phase.FAILED: "has failed", Phase.CANCELLED: "was cancelled"}[view.phase]
    return f"The job {short(view.job)} {how}{': ' + view.error if view.error else '.'} {view.note}".rstrip()


HANDLERS: dict[type[Message], Handler] = {Why: why}
