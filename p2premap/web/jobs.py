"""Endpoints about jobs: listed, one, its tasks, ended, repeated, removed."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from starlette.responses import Response

from p2premap.client.connection import RequestRefused
from p2premap.client.shapes import JobShape
from p2premap.control.answers import Trouble
from p2premap.control.jobs import AcceptFork, Cancel, Jobs, JobUpdate, ListJobs, Restart, Submitted, Watch, Why
from p2premap.control.web import JobLooked, ListTasks, LookAtJob, RemoveJob, Tasks, TaskView
from p2premap.errors import JobLost, P2PRemapError, RemoteProtocolError
from p2premap.ids import JobId, short
from p2premap.tasks.job import JobView, Part
from p2premap.vertex.plan import KIND as VERTEX
from p2premap.vertex.told import unpack_told
from p2premap.web.cluster import TextShape
from p2premap.web.endpoints import NOTHING, Call, Endpoint, Media
from p2premap.web.jobshapes import (
    AttemptOfTask,
    FailureShape,
    GraphShape,
    JobsPage,
    OneJobShape,
    OneTaskShape,
    OptionsShape,
    ReplicaShape,
    TaskShape,
    TasksPage,
    TermShape,
)
from p2premap.web.problems import Problem, problem_of
from p2premap.web.service import CURSOR, Page, page, reply

PHASES: Final = ("waiting", "running", "done", "failed", "cancelled")
STATES: Final = ("waiting", "running", "done", "failed")
CANCEL_S: Final = 30.0
KEY_BYTES: Final = 16


def some_of(words: tuple[str, ...]) -> str:
    """A pattern: some of these words with commas between, or none."""
    one = "|".join(words)
    return rf"^(({one})(,({one}))*)?\Z"


def in_words(words: tuple[str, ...]) -> str:
    """The same for people."""
    return f"some of {', '.join(words)}, with commas between"


class JobsQuery(Page, frozen=True, kw_only=True):
    """Which jobs: in these phases, of this kind, with this in the name."""

    phase: Annotated[str, msgspec.Meta(pattern=some_of(PHASES), description=in_words(PHASES))] = ""
    kind: Annotated[str, msgspec.Meta(max_length=100)] = ""
    name: Annotated[str, msgspec.Meta(max_length=255)] = ""


class TasksQuery(Page, frozen=True, kw_only=True):
    """Which tasks: of this stage (-1: any), in these states."""

    cursor: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{1,4}\.[0-9]{1,9})?\Z", description=CURSOR)] = ""
    stage: Annotated[int, msgspec.Meta(ge=-1, le=9999)] = -1
    state: Annotated[str, msgspec.Meta(pattern=some_of(STATES), description=in_words(STATES))] = ""


class Ended(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a job is ended."""

    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


def prefix_of(call: Call) -> bytes:
    """The beginning of the id that the path names."""
    text = call.path["job"]
    return bytes.fromhex(text[: len(text) // 2 * 2])


async def whole_view(call: Call) -> JobView:
    """The job that the path names, with its parts.

    Raises:
        RequestRefused: there is none.
    """
    prefix = prefix_of(call)
    parts: dict[int, Part] = {}
    async with contextlib.aclosing(
        call.web.daemon.stream(lambda n: Watch(request=n, job=prefix))  # type: ignore[type-var]
    ) as frames:
        async for frame in frames:
            if not isinstance(frame.message, JobUpdate):
                raise RemoteProtocolError("The node gave an answer that does not fit the question.")
            parts.update((part.number, part) for part in frame.message.view.parts)
            if not frame.message.more:
                found = tuple(parts[number] for number in sorted(parts))
                return msgspec.structs.replace(frame.message.view, parts=found)
    raise JobLost("Nobody can tell of the job now; try again.")


async def show(call: Call, view: JobView) -> OneJobShape:
    """A job with what only its own page shows."""
    looked: JobLooked | None = None
    with contextlib.suppress(P2PRemapError):
        looked = await call.web.daemon.ask(lambda n: LookAtJob(request=n, job=view.job), JobLooked)
    names = await call.web.names()
    history = [
        TermShape(
            at=round(view.submitted + age_s, 3),
            age_s=round(age_s, 3),
            leader=ReplicaShape(id=node.hex(), name=names.get(node, name)),
        )
        for node, name, age_s in view.history
    ]
    replicas = () if looked is None else looked.replicas
    return OneJobShape(
        **msgspec.structs.asdict(JobShape.of(view)),
        replicas=[ReplicaShape(id=node.hex(), name=names.get(node, short(node))) for node in replicas],
        history=history,
        options=None if looked is None else OptionsShape.of(looked.options),
        graph=_graph(view),
        failures=[FailureShape.of(one) for one in view.failures if one.outcome != "done"],
    )


def _graph(view: JobView) -> GraphShape | None:
    told = unpack_told(view.told) if view.kind == VERTEX else None
    return None if told is None else GraphShape.of(told)


async def answer_job(call: Call, view: JobView, status: int = HTTPStatus.OK) -> Response:
    """A job, as an answer."""
    shape = await show(call, view)
    still = msgspec.structs.replace(shape, age_s=0.0, unprotected_s=0.0)
    headers = {"location": f"/api/v1/jobs/{shape.id}"} if status == HTTPStatus.CREATED else {}
    return reply(call, shape, status, headers, same=still)


# --- looking ------------------------------------------------------------------------------------------------------


async def list_jobs(call: Call) -> Response:
    """Jobs."""
    query: JobsQuery = call.query
    phases = query.phase.split(",") if query.phase else PHASES
    found = await call.web.daemon.ask(lambda n: ListJobs(request=n), Jobs)
    shapes = [
        JobShape.of(view)
        for view in found.views
        if view.phase.value in phases and query.kind in ("", view.kind) and query.name in view.name
    ]
    items, following = page(shapes, query)
    still = [msgspec.structs.replace(item, age_s=0.0, unprotected_s=0.0) for item in items]
    shape = JobsPage(items=items, next=following, silent=found.silent)
    return reply(call, shape, same=msgspec.structs.replace(shape, items=still))


async def get_job(call: Call) -> Response:
    """One job."""
    return await answer_job(call, await whole_view(call))


async def why_job(call: Call) -> Response:
    """Why a job is as it is."""
    about = prefix_of(call).hex()
    return reply(call, TextShape(text=await call.web.daemon.do(lambda n: Why(request=n, about=about))))


async def list_tasks(call: Call) -> Response:
    """Tasks of a job."""
    query: TasksQuery = call.query
    states = tuple(query.state.split(",")) if query.state else ()
    stage, _, task = query.cursor.partition(".")
    ask = partial(
        ListTasks,
        job=prefix_of(call),
        stage=query.stage,
        stage_first=int(stage or 0),
        first=int(task or 0),
        count=query.limit,
        states=states,
    )
    found = await call.web.daemon.ask(lambda n: ask(request=n), Tasks)
    following = None if found.next is None else f"{found.next[0]}.{found.next[1]}"
    return reply(call, TasksPage(items=list(map(TaskShape.of, found.tasks)), next=following))


async def get_task(call: Call) -> Response:
    """One task."""
    stage, task = map(int, call.path["task"].split("."))
    job = prefix_of(call)
    why = await call.web.daemon.do(lambda n: Why(request=n, about=job.hex(), stage=stage, task=task))
    ask = partial(ListTasks, job=job, stage=stage, stage_first=stage, first=task, count=1, attempts=True)
    found = await call.web.daemon.ask(lambda n: ask(request=n), Tasks)
    view = next((one for one in found.tasks if one.task == task), None)
    if view is None:  # of a job that is over only failures are kept
        view = TaskView(stage=stage, stage_name="", task=task, state="", started=0)
    shape = OneTaskShape(
        stage=stage,
        stage_name=view.stage_name,
        task=task,
        state=view.state,
        node=view.node_name,
        error=view.error,
        attempts=list(map(AttemptOfTask.of, view.attempts)),
        why=why,
    )
    return reply(call, shape)


# --- steering -----------------------------------------------------------------------------------------------------


async def cancel_job(call: Call) -> Response:
    """End a job; answered when no attempt of it runs any more."""
    job, reason = prefix_of(call), call.body.reason or "by the API"
    await call.web.daemon.do(lambda n: Cancel(request=n, job=job, reason=reason), timeout_s=CANCEL_S)
    return await answer_job(call, await whole_view(call))


async def restart_job(call: Call) -> Response:
    """Run a job again, as a new one."""
    job, key = prefix_of(call), os.urandom(KEY_BYTES)
    again = await call.web.daemon.ask(lambda n: Restart(request=n, job=job, key=key), Submitted)
    return await answer_new(call, JobId(again.job))


async def answer_new(call: Call, job: JobId) -> Response:
    """A job that has just been handed in, as an answer."""
    call.path["job"] = job.hex()
    return await answer_job(call, await whole_view(call), HTTPStatus.CREATED)


async def accept_fork(call: Call) -> Response:
    """Make a fork the job."""
    fork = prefix_of(call)
    try:
        text = await call.web.daemon.do(lambda n: AcceptFork(request=n, fork=fork))
    except RequestRefused as error:
        status = HTTPStatus.CONFLICT if error.trouble is Trouble.USAGE else problem_of(error).status
        raise Problem(status, str(error)) from None
    return reply(call, TextShape(text=text))


async def delete_job(call: Call) -> Response:
    """Forget a job that is over, with its results and logs."""
    job = prefix_of(call)
    await call.web.daemon.do(lambda n: RemoveJob(request=n, job=job))
    return Response(status_code=HTTPStatus.NO_CONTENT)


_GONE: Final = {404: "no such job"}
_NOT_NOW: Final = {409: "not now"}
_NOT_MODIFIED: Final = Media("the client has it", empty=True)
_JOB: Final = "/api/v1/jobs/{job}"

ENDPOINTS: Final = [
    Endpoint("GET", "/api/v1/jobs", list_jobs, "Jobs.", {200: JobsPage, 304: _NOT_MODIFIED}, JobsQuery),
    Endpoint("GET", _JOB, get_job, "A job.", {200: OneJobShape, 304: _NOT_MODIFIED}, fails=_GONE),
    Endpoint("DELETE", _JOB, delete_job, "Forget a job that is over.", {204: NOTHING}, fails={**_GONE, **_NOT_NOW}),
    Endpoint("GET", f"{_JOB}/why", why_job, "Why it is as it is.", {200: TextShape, 304: _NOT_MODIFIED}, fails=_GONE),
    Endpoint(
        "POST",
        f"{_JOB}/cancel",
        cancel_job,
        "End a job.",
        {200: OneJobShape},
        body=Ended,
        optional_body=True,
        fails={**_GONE, **_NOT_NOW},
    ),
    Endpoint("POST", f"{_JOB}/restart", restart_job, "Run it again.", {201: OneJobShape}, fails={**_GONE, **_NOT_NOW}),
    Endpoint(
        "POST",
        f"{_JOB}/accept",
        accept_fork,
        "Make a fork the job.",
        {200: TextShape},
        fails={**_GONE, 409: "it is no fork"},
    ),
    Endpoint(
        "GET", f"{_JOB}/tasks", list_tasks, "Its tasks.", {200: TasksPage, 304: _NOT_MODIFIED}, TasksQuery, fails=_GONE
    ),
    Endpoint(
        "GET",
        f"{_JOB}/tasks/{{task}}",
        get_task,
        "A task with its attempts.",
        {200: OneTaskShape, 304: _NOT_MODIFIED},
        fails={404: "no such job, or task"},
    ),
]
