"""Large values between a client and the node of its machine: as files, so that none of it goes through a socket.

::

    StartFile  --> (here already?) --> BlobKept
               --> FileStarted(path); the client writes there, and says FileGrew --> (read and hashed so far)
                   then FinishFile --> (the rest, too; renamed) --> BlobKept
    ReadBlob(here) --> (brought here, if need be) --> BlobHere(path); the client maps it

A blob is named by what this node has read from the file, and not by what the client says; so a file that is torn, or
changes while it is written, is at worst a blob that nobody asked for. The file of a client that goes before it is
finished goes with it.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from p2premap.control.answers import Trouble
from p2premap.control.data import BlobHere, BlobKept, FileGrew, FileStarted, FinishFile, ReadBlob, StartFile
from p2premap.ids import Digest, JobId, RequestId
from p2premap.node.desk import Handler, RequestError, Visit
from p2premap.node.desk_watch import bring, send_source
from p2premap.wire import Message

FILES_MAX: Final = 16
"""That a client may write at the same time on one connection."""


async def start_file(visit: Visit, message: Message, _: bytes) -> None:
    """`StartFile`."""
    assert isinstance(message, StartFile)
    if not visit.local:
        raise RequestError(Trouble.USAGE, "Only a client on this machine can write a file for its node.")
    blobs = visit.house.blobs
    if message.digest is not None and blobs.size(message.digest) == message.size:
        await trio.to_thread.run_sync(blobs.renew, message.digest)
        _note(visit, message.job, message.digest)
        await visit.say(BlobKept(request=message.request, digest=message.digest))
        return
    if message.request in visit.files or len(visit.files) >= FILES_MAX:
        raise RequestError(Trouble.USAGE, f"More than {FILES_MAX} files at a time on one connection.")
    writer = await trio.to_thread.run_sync(blobs.writer)
    visit.files[message.request] = writer, message.job
    await visit.say(FileStarted(request=message.request, path=writer.path))


async def read_ahead(visit: Visit, message: Message, _: bytes) -> None:
    """`FileGrew`: hashing keeps up with writing, where there are two CPUs."""
    assert isinstance(message, FileGrew)
    started = visit.files.get(message.file)
    if started is not None:
        await trio.to_thread.run_sync(started[0].read_ahead, message.size)


async def finish_file(visit: Visit, message: Message, _: bytes) -> None:
    """`FinishFile`."""
    assert isinstance(message, FinishFile)
    started = visit.files.pop(message.file, None)
    if started is None:
        raise RequestError(Trouble.USAGE, f"No file number {message.file} has been started on this connection.")
    writer, job = started
    try:
        ref = await trio.to_thread.run_sync(partial(writer.take_in, message.size))
    finally:
        writer.discard()
    _note(visit, job, ref.digest)
    await visit.say(BlobKept(request=message.request, digest=ref.digest))


def _note(visit: Visit, job: JobId | None, digest: Digest) -> None:
    if job is not None:
        visit.house.call_blobs.note(job, (digest,))


async def read_blob(visit: Visit, message: Message, _: bytes) -> None:
    """`ReadBlob`: from this node's blobs, a neighbour's, or fetched from a node that holds it."""
    assert isinstance(message, ReadBlob)
    request: RequestId = message.request
    if not (message.here and visit.local):
        await send_source(visit, request, message.source, "The result")
        return
    found = await bring(visit, request, message.source, "The result")
    await visit.say(
        BlobHere(request=request, path=found.path, start=found.start, end=found.end, checked=found.verified)
    )


HANDLERS: dict[type[Message], Handler] = {
    StartFile: start_file,
    FileGrew: read_ahead,
    FinishFile: finish_file,
    ReadBlob: read_blob,
}
