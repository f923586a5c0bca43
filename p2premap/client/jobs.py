"""A job as a client handles it: hand it in, watch it through the loss of nodes, fetch its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from mmap import mmap
from typing import Protocol

import blake3
import msgspec

from p2premap.client.connection import PATIENCE_S, Connection, NodeSilent, RequestRefused
from p2premap.control.answers import Chunk, Done, Trouble
from p2premap.control.data import PutBlob, ReadLog, ReadPart
from p2premap.control.jobs import Cancel, JobUpdate, Submit, Submitted, Watch
from p2premap.errors import ConfigError, JobCancelled, JobFailed, JobLost, JobRejected, NodeUnavailable, PeerUnreachable
from p2premap.ids import Digest, JobId, NodeId, short
from p2premap.tasks.job import BlobRef, JobSpec, JobView, Part, Phase
from p2premap.wire import PAYLOAD_BYTES_MAX, Frame

LOOK_S = 0.5
"""A watcher gets a turn at least this often, although nothing changed: for clocks and time-outs on a screen."""
LOST_S = 10.0
"""So long a job is looked for although nobody answers, or nobody who does knows it: then it is lost."""
AGAIN_S = 0.2
CANCEL_S = 30.0


class Connect(Protocol):
    """Opens connections to whatever daemon can be reached."""

    def __call__(self, *, patience_s: float = PATIENCE_S, tick: Callable[[], None] = ...) -> Connection:
        """One of them; the arguments are as of `local`. Who asks again himself has a `patience_s` of 0."""


def put_blob(connection: Connection, data: bytes | memoryview | mmap, *, job: JobId | None = None) -> BlobRef:
    """Have the daemon keep these bytes, or those of a mapped file.

    Args:
        job: that they are for: when that is over they may go.

    Raises:
        RequestRefused: it will not, such as a full disk.
        PeerUnreachable: indefinite, and safe to repeat.
    """
    ref = BlobRef(digest=Digest(blake3.blake3(data).digest()), size=len(data))
    view = memoryview(data)
    starts = range(0, len(data), PAYLOAD_BYTES_MAX) or range(1)
    for start in starts:
        piece = view[start : start + PAYLOAD_BYTES_MAX]
        put = partial(PutBlob, digest=ref.digest, last=start + len(piece) == len(data), job=job)
        connection.ask(lambda n, put=put: put(request=n), Done, payload=piece)  # type: ignore[misc]
    return ref


def submit(connection: Connection, spec: JobSpec, files: tuple[str, ...], *, again: bool = False) -> JobId:
    """Hand in a job whose code and plan have been put; from now on it ends.

    Args:
        again: it may have been handed in before.

    Raises:
        JobRejected: the job never existed.
        PeerUnreachable: indefinite; submitting again under the same key finds the same job.
    """
    try:
        return connection.ask(lambda n: Submit(request=n, spec=spec, files=files, again=again), Submitted).job
    except RequestRefused as error:
        if error.trouble is Trouble.USAGE:
            raise JobRejected(str(error)) from None
        raise


def cancel(connection: Connection, job: bytes, reason: str = "") -> str:
    """End a job; return when no attempt of it runs any more, with what the daemon says about it."""
    return connection.do(lambda n: Cancel(request=n, job=job, reason=reason), timeout_s=CANCEL_S)


def follow(
    connect: Connect,
    job: bytes,
    *,
    known: bool = False,
    look_s: float = LOOK_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[JobView | None]:
    """The job whenever it changes, until it is over; None at least every `look_s` seconds between changes.

    When the daemon that is asked goes away, another one is: the job does not depend on whom its watcher talks to.

    Args:
        known: it was accepted before, so that a first failure to find it is no proof that it never was.

    Raises:
        RequestRefused: no such job, at the first look.
        JobLost: the job was known, and now nobody knows it.
        NodeUnavailable: no daemon answers any more; one that says nothing is asked again for `LOST_S`.
    """
    last_seen = clock()
    last: JobView | None = None
    while True:
        try:
            with connect(patience_s=0.0) as connection:
                told = False
                for view in _updates(connection, job, look_s):
                    if view is not None:
                        known = told = True
                        view = last = _filled(view, last)
                    if told:  # whoever knows it says what changes
                        last_seen = clock()
                    yield view
                    if view is not None and view.phase.over:
                        return
        except RequestRefused as error:
            if not known or error.trouble not in (Trouble.NOT_FOUND, Trouble.UNREACHABLE):
                raise
            if clock() - last_seen > LOST_S:
                raise _lost(job) from None
        except (PeerUnreachable, NodeUnavailable) as error:
            if not (known or isinstance(error, NodeSilent)) or clock() - last_seen > LOST_S:
                raise
        yield None
        time.sleep(AGAIN_S)


def _filled(view: JobView, last: JobView | None) -> JobView:
    """Between two leaders a replica knows little of the job: what was seen last, with who leads and why it waits."""
    if last is None or view.stages or view.phase.over:
        return view
    return msgspec.structs.replace(
        last,
        leader=view.leader,
        leader_name=view.leader_name,
        leader_pid=view.leader_pid,
        note=view.note,
        copies=view.copies,
    )


def _updates(connection: Connection, job: bytes, look_s: float) -> Iterator[JobView | None]:
    request = connection.send(lambda n: Watch(request=n, job=job))
    parts: dict[int, Part] = {}
    while True:
        frame: Frame | None = connection.next(request, timeout_s=look_s)
        match frame:
            case None:
                yield None
            case Frame(message=JobUpdate(view=view, gone=gone, more=more)):
                for number in gone:
                    parts.pop(number, None)
                parts.update((part.number, part) for part in view.parts)
                if not more:
                    yield msgspec.structs.replace(view, parts=tuple(parts[number] for number in sorted(parts)))
            case _:
                raise PeerUnreachable(f"The node {connection.welcome.name} gave an answer that does not fit.")


def _lost(job: bytes) -> JobLost:
    return JobLost(
        f"No node that answers knows the job {short(job)} any more: all that kept its ledger are gone. When one of "
        "them is back, it goes on; else run it again.",
        job=job.hex(),
    )


def read_part(
    connection: Connection, job: JobId, part: int, *, leader: NodeId | None, tick: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """The bytes of one output part, wherever it is held.

    Args:
        leader: of the job, as its view says; None: it has none.
        tick: see `Connection.stream`.
    """
    read = partial(ReadPart, job=job, part=part, leader=leader)
    yield from chunks(connection.stream(lambda n: read(request=n), Chunk, tick=tick))


def read_log(connection: Connection, job: bytes, *, stage: int = -1, task: int = -1) -> Iterator[bytes]:
    """What the job's attempts printed; -1 means all."""
    yield from chunks(connection.stream(lambda n: ReadLog(request=n, job=job, stage=stage, task=task), Chunk))


def chunks(answers: Iterator[tuple[Chunk, bytes]]) -> Iterator[bytes]:
    """The bytes of an answer that comes in pieces."""
    for chunk, payload in answers:
        yield payload
        if chunk.last:
            return


# --- as users name jobs, and hear of their ends ---------------------------------------------------------------------


def job_bytes(text: str) -> bytes:
    """The id, or the beginning of it, that a user typed.

    Raises:
        ConfigError: it is no such thing.
    """
    even = text[: len(text) // 2 * 2]
    try:
        found = bytes.fromhex(even)
        int(text, 16)
    except ValueError:
        found = b""
    if not 2 <= len(found) <= 16:
        raise ConfigError(
            f"{text[:40]!r} is no job id: give its hexadecimal digits, or the first four or more of them; "
            "`p2premap jobs` lists them."
        )
    return found


def raise_unless_done(view: JobView) -> None:
    """Say how a job that is over ended.

    Raises:
        JobFailed: with the remote traceback.
        JobCancelled: somebody ended it.
    """
    job = view.job.hex()
    if view.phase is Phase.CANCELLED:
        raise JobCancelled(f"Job {job[:8]} was cancelled{': ' + view.error if view.error else '.'}", job=job)
    if view.phase is Phase.FAILED:
        kept = f" `p2premap results {job[:8]} -o DIR` fetches the parts." if view.output and view.parts else ""
        raise JobFailed(f"Job {job[:8]} failed: {view.error}{kept}", job=job, detail=view.detail)
