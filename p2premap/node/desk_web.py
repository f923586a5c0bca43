"""Answers to the HTTP service, and to the page through it: a login, tasks one by one, nodes steered, jobs removed."""

from __future__ import annotations

from typing import Final

import msgspec

from p2premap.control.answers import Done, Trouble
from p2premap.control.web import (
    JobLooked,
    ListTasks,
    LookAtJob,
    OpenWeb,
    RemoveJob,
    SetNode,
    TaskAttempt,
    Tasks,
    TaskView,
    WebOpened,
)
from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import JobId, NodeId, short
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.desk_ask import PASSED_ON, Answers, ask, ask_all, find, over
from p2premap.node.events import RefuseActions
from p2premap.node.removal import remove_everywhere, remove_here
from p2premap.node.webdoor import START_S
from p2premap.node.webtold import TICKET_S
from p2premap.tasks import events as tasks
from p2premap.tasks.listing import Row
from p2premap.wire import Message

TASKS_MAX: Final = 1_000
NOT_KNOWN_S: Final = 3.0


async def open_web(visit: Visit, message: Message, _: bytes) -> None:
    """`OpenWeb`: here, or at the member that is named."""
    assert isinstance(message, OpenWeb)
    house = visit.house
    if message.node is not None and message.node != house.identity.node:
        if visit.peer is not None:
            raise RequestError(Trouble.NOT_FOUND, f"This is not the node {short(message.node)}.")
        forward = OpenWeb(request=PASSED_ON, node=message.node)
        answer = await ask(visit, message.node, forward, WebOpened, timeout_s=START_S)
        await visit.say(msgspec.structs.replace(answer, request=message.request))
        return
    ready = await house.web.open(revoke=message.revoke and visit.local)
    token_file, header_file, authority_file = house.web.files
    mine = house.core.capabilities(house.identity.node)
    await visit.say(
        WebOpened(
            request=message.request,
            origins=tuple(ready.origins),
            ticket=house.web.ticket(),
            valid_s=TICKET_S,
            token_file=token_file,
            header_file=header_file,
            authority_file=authority_file,
            machine=mine.machine if mine is not None else b"",
        )
    )


async def set_node(visit: Visit, message: Message, _: bytes) -> None:
    """`SetNode`: here, or at the member that is named."""
    assert isinstance(message, SetNode)
    house = visit.house
    if message.node != house.identity.node:
        if visit.peer is not None:
            raise RequestError(Trouble.NOT_FOUND, f"This is not the node {short(message.node)}.")
        answer = await ask(visit, message.node, msgspec.structs.replace(message, request=PASSED_ON), Done)
        await visit.say(msgspec.structs.replace(answer, request=message.request))
        return
    if message.slots is not None:
        house.deliver(tasks.SetSlots(slots=message.slots))
    if message.refused_actions is not None:
        house.unfit.refuse(message.refused_actions)
        house.deliver(RefuseActions(actions=message.refused_actions))
    await visit.say(Done(request=message.request))


# --- jobs ---------------------------------------------------------------------------------------------------------


async def remove_job(visit: Visit, message: Message, _: bytes) -> None:
    """`RemoveJob`: a client's at every node, a member's here."""
    assert isinstance(message, RemoveJob)
    if visit.peer is None:
        view = await find(visit, message.job)
        if not over(view):
            raise RequestError(Trouble.REFUSED, f"The job {short(view.job)} is not over: cancel it first.")
        if not await remove_everywhere(visit, JobId(view.job)):
            text = f"Somebody is still to be told that the job {short(view.job)} is over: its callback is not answered."
            raise RequestError(Trouble.REFUSED, text)
        await visit.say(Done(request=message.request))
    else:
        gone = await remove_here(visit.house, JobId(message.job))
        await visit.say(Done(request=message.request, changed=gone))


async def list_tasks(visit: Visit, message: Message, _: bytes) -> None:
    """`ListTasks`: by whoever leads the job, or led it to its end."""
    assert isinstance(message, ListTasks)
    house = visit.house
    view = await find(visit, message.job)
    job, start = JobId(view.job), (message.stage_first, message.first)
    count = min(message.count, TASKS_MAX)
    rows = house.core.jobs.list_tasks(job, start, count, stage=message.stage, states=message.states)
    if rows is not None:
        found = tuple(_task_view(row, attempts=message.attempts) for row in rows.rows)
        await visit.say(Tasks(request=message.request, tasks=found, next=rows.next))
        return
    if visit.peer is not None:
        raise RequestError(Trouble.UNREACHABLE, f"The job {short(job)} is led by another node.")
    forward = msgspec.structs.replace(message, request=PASSED_ON, job=job)
    answers = Answers[Tasks]()
    if over(view):  # every replica knows
        answers = await ask_all(visit, forward, Tasks)
    else:
        try:
            answers.given.append(await ask(visit, NodeId(view.leader), forward, Tasks))
        except (PeerUnreachable, RequestError, RemoteProtocolError) as error:
            text = f"Nobody leads the job {short(job)} just now: {error}"
            raise RequestError(Trouble.UNREACHABLE, text) from None
    if not answers.given:
        raise RequestError(Trouble.UNREACHABLE, f"No node that answers knows the tasks of the job {short(job)}.")
    await visit.say(msgspec.structs.replace(answers.given[0], request=message.request))


def _task_view(row: Row, *, attempts: bool) -> TaskView:
    tries = [
        TaskAttempt(
            attempt=one.attempt,
            node=one.node,
            node_name=one.node_name,
            outcome=one.outcome,
            error=one.error,
            detail=one.detail,
        )
        for one in row.tries
    ]
    return TaskView(
        stage=row.stage,
        stage_name=row.stage_name,
        task=row.task,
        state=row.state,
        node_name=row.node_name,
        started=len(tries),
        error=row.error,
        attempts=tuple(tries) if attempts else (),
    )


async def look_at_job(visit: Visit, message: Message, _: bytes) -> None:
    """`LookAtJob`: by any replica."""
    assert isinstance(message, LookAtJob)
    house = visit.house
    job = JobId((await find(visit, message.job)).job) if visit.peer is None else JobId(message.job)
    charter = house.core.jobs.submitted(job)
    if charter is not None:
        answer = JobLooked(
            request=message.request, replicas=house.core.jobs.replicas(job), options=charter.spec.options
        )
        await visit.say(answer)
        return
    if visit.peer is None:
        answers = await ask_all(visit, LookAtJob(request=PASSED_ON, job=job), JobLooked, timeout_s=NOT_KNOWN_S)
        if answers.given:
            await visit.say(msgspec.structs.replace(answers.given[0], request=message.request))
            return
    raise RequestError(Trouble.NOT_FOUND, f"Nothing is kept here of the job {short(job)}.")


HANDLERS: dict[type[Message], Handler] = {
    OpenWeb: open_web,
    SetNode: set_node,
    RemoveJob: remove_job,
    ListTasks: list_tasks,
    LookAtJob: look_at_job,
}
