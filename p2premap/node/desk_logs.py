"""What the attempts of a job printed, from each node that has logs; of nodes that are gone, what the ledger has."""

from __future__ import annotations

from functools import partial

import trio

from p2premap.control.answers import Chunk
from p2premap.control.data import ReadLog, Remember, Remembered
from p2premap.control.nodes import NodeView
from p2premap.errors import PeerUnreachable, RemoteProtocolError
from p2premap.ids import NOBODY, JobId, NodeId
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.desk_ask import PASSED_ON, ask, ask_all, find, line_to, next_answer, over, refuse_unknown_task
from p2premap.node.logs import list_logs, read_output
from p2premap.node.logs import read_log as read_log_file
from p2premap.tasks.job import Failure, JobView
from p2premap.wire import Message


async def read_log(visit: Visit, message: Message, _: bytes) -> None:
    """`ReadLog`: what every living node has kept, and the last words of attempts on others."""
    assert isinstance(message, ReadLog)
    if visit.peer is not None:
        await _tell_own(visit, message)
    else:
        view = await find(visit, message.job)
        refuse_unknown_task(view, message.stage, message.task)
        wanted = ReadLog(request=PASSED_ON, job=view.job, stage=message.stage, task=message.task)
        await _tell_own(visit, message, wanted)
        heard = {visit.house.identity.node}
        for other in visit.house.others():
            if await _tell_of(visit, message, other, wanted):
                heard.add(other.node)
        known = await _remembered(visit, view)
        for attempt in sorted(known, key=lambda one: (one.stage, one.task, one.attempt)):
            asked = message.stage in (-1, attempt.stage) and message.task in (-1, attempt.task)
            if asked and attempt.detail and attempt.node not in heard:
                await visit.say(Chunk(request=message.request), _last_words(attempt))
    await visit.say(Chunk(request=message.request, last=True))


async def _tell_own(visit: Visit, message: ReadLog, wanted: ReadLog | None = None) -> None:
    """What this node has; `wanted` names the job in full."""
    asked = wanted or message
    so_far = await _so_far(visit, asked)
    look = partial(list_logs, visit.house.executor.logs, JobId(asked.job), stage=asked.stage, task=asked.task)
    for file in await trio.to_thread.run_sync(look):
        key = file.stage, file.task, file.attempt
        so_far.pop(key, None)
        text = await trio.to_thread.run_sync(read_log_file, file)
        await visit.say(Chunk(request=message.request), _head(visit, *key) + text + b"\n")
    for key, text in sorted(so_far.items()):
        await visit.say(Chunk(request=message.request), _head(visit, *key) + text)


def _head(visit: Visit, stage: int, task: int, attempt: int) -> bytes:
    return f"==> stage {stage}, task {task}, attempt {attempt}, on {visit.house.name} <==\n".encode()


async def _so_far(visit: Visit, asked: ReadLog) -> dict[tuple[int, int, int], bytes]:
    """What attempts of this node that run have printed: by stage, task, attempt."""

    def running() -> dict[tuple[int, int, int], str]:
        return {
            (one.stage, one.task, one.attempt): one.output
            for one in visit.house.executor.running()
            if one.job == asked.job
            and one.task >= 0
            and asked.stage in (-1, one.stage)
            and asked.task in (-1, one.task)
        }

    before = running()
    texts = await trio.to_thread.run_sync(lambda: [read_output(output) for output in before.values()])
    still = running()  # else what was read may be of the next one
    return {key: text for key, text in zip(before, texts, strict=True) if text and key in still}


async def _tell_of(visit: Visit, message: ReadLog, other: NodeView, wanted: ReadLog) -> bool:
    """What another node has. False: it did not answer, or not to the end."""
    try:
        async with line_to(visit, other.node, wanted) as stream:
            while True:
                frame = await next_answer(stream, other.node)
                if not isinstance(frame.message, Chunk) or frame.message.last:
                    return True
                await visit.say(Chunk(request=message.request), frame.payload)
    except (PeerUnreachable, RequestError, RemoteProtocolError) as error:
        await visit.say(Chunk(request=message.request), f"==> {other.name}: {error} <==\n".encode())
        return False


async def _remembered(visit: Visit, view: JobView) -> tuple[Failure, ...]:
    """What the ledger knows, from whoever has it best; () where nobody who does answers."""
    house, job = visit.house, JobId(view.job)
    question = Remember(request=PASSED_ON, job=job)
    if over(view):
        if own := house.core.jobs.remembered(job):
            return own
        answers = await ask_all(visit, question, Remembered)
        return max((given.attempts for given in answers.given), key=len, default=())
    if view.leader in (NOBODY, house.identity.node):
        return house.core.jobs.remembered(job)
    try:
        return (await ask(visit, NodeId(view.leader), question, Remembered)).attempts
    except (PeerUnreachable, RequestError, RemoteProtocolError):
        return ()


def _last_words(attempt: Failure) -> bytes:
    where = f"on {attempt.node_name}, which does not answer; the end of it, from the job's ledger"
    head = f"==> stage {attempt.stage}, task {attempt.task}, attempt {attempt.attempt}, {where} <==\n"
    return f"{head}{attempt.detail}\n".encode()


async def remember(visit: Visit, message: Message, _: bytes) -> None:
    """`Remember`: of a job that is led here, or over."""
    assert isinstance(message, Remember)
    attempts = visit.house.core.jobs.remembered(JobId(message.job))
    await visit.say(Remembered(request=message.request, attempts=attempts))


HANDLERS: dict[type[Message], Handler] = {ReadLog: read_log, Remember: remember}
