"""Answers about jobs: hand in, list, cancel, accept a fork."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import accumulate
from typing import Final

import trio

from p2premap.control.answers import Done, Trouble
from p2premap.control.data import BlobsMissing, LookForBlobs, PutBlob
from p2premap.control.jobs import AcceptFork, Cancel, Jobs, ListJobs, Submit, Submitted
from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import Digest, JobId, short
from p2premap.node.blobs import BlobStore, StoreUnwritable
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.desk_ask import PASSED_ON, Answers, ask, ask_all, find, over, worth
from p2premap.tasks.job import JobView, Phase
from p2premap.wire import Message

LOOK_AGAIN_S: Final = 0.25
"""A job that nobody leads is asked after again after this long."""
CANCEL_S: Final = 25.0
LIST_BYTES_MAX: Final = 2 << 20
"""Of the views in one list of jobs: half of what a message's header may be."""
UPLOADS_MAX: Final = 16


async def put_blob(visit: Visit, message: Message, payload: bytes) -> None:
    """`PutBlob`."""
    assert isinstance(message, PutBlob)
    writer = visit.uploads.get(message.digest)
    if writer is None:
        if len(visit.uploads) >= UPLOADS_MAX:
            raise RequestError(Trouble.USAGE, f"More than {UPLOADS_MAX} blobs at a time on one connection.")
        writer = visit.uploads[message.digest] = visit.house.blobs.writer()
    try:
        await trio.to_thread.run_sync(writer.write, payload)
        if message.last:
            del visit.uploads[message.digest]
            ref = await trio.to_thread.run_sync(writer.finish)
            if ref.digest != message.digest:
                raise RequestError(Trouble.USAGE, "What was sent is not what was announced; send it again.")
            if message.job is not None:
                visit.house.call_blobs.note(message.job, (ref.digest,))
    except BaseException:
        visit.uploads.pop(message.digest, None)
        writer.discard()
        raise
    await visit.say(Done(request=message.request))


async def look_for_blobs(visit: Visit, message: Message, _: bytes) -> None:
    """`LookForBlobs`."""
    assert isinstance(message, LookForBlobs)
    missing = await trio.to_thread.run_sync(_missing, visit.house.blobs, message.digests)
    await visit.say(BlobsMissing(request=message.request, digests=missing))


def _missing(blobs: BlobStore, digests: Iterable[Digest]) -> tuple[Digest, ...]:
    missing = []
    for digest in digests:
        try:
            blobs.renew(digest)
        except StoreUnwritable:
            missing.append(digest)
    return tuple(missing)


async def submit(visit: Visit, message: Message, _: bytes) -> None:
    """`Submit`."""
    assert isinstance(message, Submit)
    house = visit.house
    for blob in message.spec.blobs():
        if house.blobs.size(blob.digest) != blob.size:
            raise RequestError(Trouble.USAGE, "The job's code and plan have not been put before it; put them first.")
    plan = await trio.to_thread.run_sync(house.blobs.get, message.spec.plan.digest)
    for blob in message.spec.blobs():  # a job that is acknowledged outlives a power cut
        await trio.to_thread.run_sync(partial(house.blobs.renew, blob.digest, durable=True))
    accepted = await house.orders.submit(message.spec, plan, message.files, again=message.again)
    await visit.say(Submitted(request=message.request, job=accepted.job, copies=accepted.copies))


async def list_jobs(visit: Visit, message: Message, _: bytes) -> None:
    """`ListJobs`."""
    assert isinstance(message, ListJobs)
    views = {view.job: view.brief() for view in visit.house.jobs() if view.stages or over(view) or visit.peer is None}
    answers = Answers[Jobs]()
    if visit.peer is None:
        answers = await ask_all(visit, ListJobs(request=PASSED_ON), Jobs)
        for jobs in answers.given:
            for view in jobs.views:
                known = views.get(view.job)
                views[view.job] = view if known is None else max(known, view, key=worth)
    newest = sorted(views.values(), key=lambda view: (-view.submitted, view.age_s, view.job))
    sizes = accumulate(_bytes_at_most(view) for view in newest)
    told = tuple(view for view, size in zip(newest, sizes, strict=True) if size <= LIST_BYTES_MAX)
    left_out = len(newest) - len(told) + sum(jobs.left_out for jobs in answers.given)
    await visit.say(Jobs(request=message.request, views=told, silent=tuple(answers.silent), left_out=left_out))


def _bytes_at_most(view: JobView) -> int:
    """How long a brief view is in a message, at most; a character is up to four bytes."""
    texts = (view.name, view.kind, view.leader_name, view.error, view.note, *(name for name, _ in view.nodes))
    stages = sum(160 + 4 * len(stage.name) for stage in view.stages)
    return 128 + stages + sum(16 + 4 * len(text) for text in texts)


async def cancel(visit: Visit, message: Message, _: bytes) -> None:
    """`Cancel`: by whoever leads the job, also where that changes meanwhile."""
    assert isinstance(message, Cancel)
    view = await find(visit, message.job)
    job = JobId(view.job)
    if over(view):
        await visit.say(Done(request=message.request, text=f"The job was over already: {view.phase.value}."))
        return
    with trio.move_on_after(CANCEL_S):
        while not over(view):
            if visit.house.core.jobs.leads(job):
                seen = visit.house.bulletin.latest(job)
                visit.house.orders.cancel(job, message.reason)
                if await visit.house.bulletin.after(job, seen) is None:
                    await visit.house.bulletin.moved(job, within_s=LOOK_AGAIN_S)
            elif visit.peer is not None:
                raise RequestError(Trouble.UNREACHABLE, f"The job {short(job)} is led by another node.")
            else:
                await _cancel_there(visit, view, message.reason)
            view = await find(visit, job)
        cancelled = view.phase is Phase.CANCELLED
        how = "is cancelled; nothing of it runs any more" if cancelled else f"was over before that: {view.phase.value}"
        await visit.say(Done(request=message.request, text=f"The job {short(job)} {how}."))
        return
    raise RequestError(Trouble.UNREACHABLE, f"The job {short(job)} could not be cancelled yet: {view.note}")


async def _cancel_there(visit: Visit, view: JobView, reason: str) -> None:
    """Ask the job's leader; a while later where it does not answer, or is none."""
    try:
        await ask(visit, view.leader, Cancel(request=PASSED_ON, job=view.job, reason=reason), Done, timeout_s=CANCEL_S)
    except (PeerUnreachable, RemoteProtocolError):
        await trio.sleep(LOOK_AGAIN_S)
    except RequestError as error:
        if error.trouble not in (Trouble.NOT_FOUND, Trouble.UNREACHABLE):
            raise
        await trio.sleep(LOOK_AGAIN_S)


async def accept_fork(visit: Visit, message: Message, _: bytes) -> None:
    """`AcceptFork`: by the node that leads the fork, or kept its end."""
    assert isinstance(message, AcceptFork)
    view = await find(visit, message.fork)
    if not view.fork or view.fork != short(view.job):
        raise RequestError(Trouble.USAGE, f"{short(view.job)} is no fork; `p2premap jobs` names forks.")
    if visit.house.core.jobs.leads(JobId(view.job)) or over(view):
        visit.house.orders.accept_fork(JobId(view.job))
        if over(view) and visit.peer is None:  # so that all who keep its end know
            await ask_all(visit, AcceptFork(request=PASSED_ON, fork=view.job), Done)
    elif visit.peer is None:
        forward = AcceptFork(request=PASSED_ON, fork=view.job)
        await ask(visit, view.leader, forward, Done)
    else:
        raise RequestError(Trouble.UNREACHABLE, f"The fork {short(view.job)} is led by another node.")
    await visit.say(Done(request=message.request, text=f"The fork {short(view.job)} is the job from now on."))


HANDLERS: dict[type[Message], Handler] = {
    AcceptFork: accept_fork,
    PutBlob: put_blob,
    LookForBlobs: look_for_blobs,
    Submit: submit,
    ListJobs: list_jobs,
    Cancel: cancel,
}
