"""Answers about what becomes of jobs and nodes: run a job again, clean up, drain a node."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

import msgspec
import trio

from p2premap.control.answers import Done, Trouble
from p2premap.control.jobs import CleanedUp, CleanUp, FindHome, HomeFound, Restart, Submitted
from p2premap.control.nodes import Counted, CountSole, Drain
from p2premap.errors import JobError
from p2premap.ids import JobId, NodeId, short
from p2premap.node import leaving
from p2premap.node.blobs import BlobError
from p2premap.node.charter import Charter
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.desk_ask import PASSED_ON, ask, ask_all, find, line_to, next_answer, oldest_running_s, over
from p2premap.node.endings import Ending
from p2premap.node.logs import sweep_logs
from p2premap.node.upkeep import sweep_environments
from p2premap.tasks.inputs import ReadsInputs
from p2premap.wire import Message

CLEAN_S: Final = 60.0
RESTART_S: Final = 10.0


# --- run again ----------------------------------------------------------------------------------------------------


async def restart(visit: Visit, message: Message, _: bytes) -> None:
    """`Restart`: at the job's home, whose machine has the inputs."""
    assert isinstance(message, Restart)
    house = visit.house
    job = JobId((await find(visit, message.job)).job) if visit.peer is None else JobId(message.job)
    charter = house.core.jobs.submitted(job)
    home = charter.home if charter is not None else await _home(visit, job)
    if home != house.identity.node:
        if visit.peer is not None or home not in {view.node for view in house.others()}:
            name = next((f"{view.name} ({short(home)})" for view in house.nodes() if view.node == home), short(home))
            text = f"The job {short(job)} was handed in at the node {name}, which has its inputs; start that node."
            raise RequestError(Trouble.UNREACHABLE, text)
        forward = msgspec.structs.replace(message, request=PASSED_ON, job=job)
        answer = await ask(visit, home, forward, Submitted, timeout_s=RESTART_S)
        await visit.say(msgspec.structs.replace(answer, request=message.request))
        return
    if charter is None:
        raise RequestError(Trouble.NOT_FOUND, f"Nothing is kept here of the job {short(job)}.")
    await visit.say(await _again(visit, message, job, charter))


async def _home(visit: Visit, job: JobId) -> NodeId:
    """Where the job was handed in.

    Raises:
        RequestError: no member knows.
    """
    if visit.peer is None:
        answers = await ask_all(visit, FindHome(request=PASSED_ON, job=job), HomeFound)
        if answers.given:
            return answers.given[0].home
    raise RequestError(Trouble.NOT_FOUND, f"No node that answers keeps what was handed in as the job {short(job)}.")


async def _again(visit: Visit, message: Restart, job: JobId, charter: Charter) -> Submitted:
    house, spec = visit.house, msgspec.structs.replace(charter.spec, submission_key=message.key)
    try:
        plan = await trio.to_thread.run_sync(house.blobs.get, spec.plan.digest)
        director = house.kinds[spec.kind](job=job, home=charter.home, plan=plan)
    except (BlobError, KeyError, JobError):
        text = f"The code and plan of the job {short(job)} are not here any more; run it again from its files."
        raise RequestError(Trouble.NOT_FOUND, text) from None
    if director.streams:
        raise RequestError(Trouble.USAGE, f"{spec.name} is a program's calls: run that program again.")
    if any(house.blobs.size(blob.digest) != blob.size for blob in spec.blobs()):
        raise RequestError(Trouble.NOT_FOUND, f"The code of the job {short(job)} is not here any more.")
    files = tuple(director.input_files()) if isinstance(director, ReadsInputs) else ()
    accepted = await house.orders.submit(spec, plan, files)
    return Submitted(request=message.request, job=accepted.job, copies=accepted.copies)


async def find_home(visit: Visit, message: Message, _: bytes) -> None:
    """`FindHome`."""
    assert isinstance(message, FindHome)
    charter = visit.house.core.jobs.submitted(JobId(message.job))
    if charter is None:
        raise RequestError(Trouble.NOT_FOUND, f"Nothing is kept here of the job {short(message.job)}.")
    await visit.say(HomeFound(request=message.request, home=charter.home))


# --- clean up -----------------------------------------------------------------------------------------------------


async def clean_up(visit: Visit, message: Message, _: bytes) -> None:
    """`CleanUp`: a client's at every node, a member's here."""
    assert isinstance(message, CleanUp)
    if visit.peer is not None:
        await visit.say(await _clean_here(visit, message))
        return
    oldest = await oldest_running_s(visit)
    asked = msgspec.structs.replace(message, request=PASSED_ON, older_s=max(message.older_s, oldest))
    here = await _clean_here(visit, asked)
    answers = await ask_all(visit, asked, CleanedUp, timeout_s=CLEAN_S)
    every = [here, *answers.given]
    await visit.say(
        CleanedUp(
            request=message.request,
            blobs=sum(one.blobs for one in every),
            size_bytes=sum(one.size_bytes for one in every),
            jobs=tuple(sorted({job for one in every for job in one.jobs})),
            nodes=len(every),
            silent=tuple(answers.silent),
            environments=sum(one.environments for one in every),
        )
    )


async def _clean_here(visit: Visit, message: CleanUp) -> CleanedUp:
    house = visit.house
    keep = house.core.jobs.blobs_in_use() | house.bringer.blobs_in_use()
    before = await trio.to_thread.run_sync(partial(house.blobs.sweep, older_s=math.inf))
    after = await trio.to_thread.run_sync(partial(house.blobs.sweep, older_s=message.older_s, keep=keep))
    await trio.to_thread.run_sync(partial(sweep_logs, house.executor.logs, older_s=message.older_s))
    environments = await sweep_environments(house, message.older_s)
    jobs: list[JobId] = []
    for view in house.jobs():
        charter = house.core.jobs.submitted(JobId(view.job))
        # a job that is over goes with its plan, which is as old as it
        if over(view) and (charter is None or house.blobs.size(charter.spec.plan.digest) is None):
            house.orders.forget(JobId(view.job))
            jobs.append(JobId(view.job))
    return CleanedUp(
        request=message.request,
        blobs=max(0, before.blobs - after.blobs),
        size_bytes=max(0, before.bytes - after.bytes),
        jobs=tuple(jobs),
        environments=environments,
    )


# --- drain --------------------------------------------------------------------------------------------------------


async def drain(visit: Visit, message: Message, _: bytes) -> None:
    """`Drain`: as `stop`, in time."""
    assert isinstance(message, Drain)
    if message.node not in (None, visit.house.identity.node):
        await _drain_there(visit, message, NodeId(message.node))
        return
    try:
        text = await leaving.drain(visit.house, wait_s=message.wait_s, sole_elsewhere=partial(_sole_elsewhere, visit))
    except trio.Cancelled:
        visit.house.orders.stop_taking(again=True)  # whoever asked has hung up: the node stays
        raise
    try:
        await visit.say(Done(request=message.request, text=text))
    finally:  # also where the client has gone
        visit.house.end(Ending.STOP)


async def _drain_there(visit: Visit, message: Drain, node: NodeId) -> None:
    """Have a member do so; it stays where this visitor hangs up before."""
    if visit.peer is not None:
        raise RequestError(Trouble.NOT_FOUND, f"This is not the node {short(node)}.")
    async with line_to(visit, node, msgspec.structs.replace(message, request=PASSED_ON)) as stream:
        frame = await next_answer(stream, node)
    text = frame.message.text if isinstance(frame.message, Done) else ""
    await visit.say(Done(request=message.request, text=text))


async def _sole_elsewhere(visit: Visit) -> int:
    """Results of jobs led by other nodes that only this one holds."""
    question = CountSole(request=PASSED_ON, node=visit.house.identity.node)
    return sum(counted.count for counted in (await ask_all(visit, question, Counted)).given)


async def count_sole(visit: Visit, message: Message, _: bytes) -> None:
    """`CountSole`."""
    assert isinstance(message, CountSole)
    await visit.say(Counted(request=message.request, count=visit.house.core.jobs.sole_results(message.node)))


HANDLERS: dict[type[Message], Handler] = {
    Restart: restart,
    FindHome: find_home,
    CleanUp: clean_up,
    Drain: drain,
    CountSole: count_sole,
}
