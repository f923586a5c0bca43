"""Bytes of jobs: blobs to and fro, parts of the output, what attempts printed."""

from p2premap.ids import RequestId
from p2premap.tasks.job import Failure, Part, Source
from p2premap.wire import Count, DigestField, FilePath, JobIdField, Message, NodeIdField


class PutBlob(Message, tag=103, frozen=True, kw_only=True):
    """Keep these bytes (the frame's payload; at most PAYLOAD_BYTES_MAX a piece). `Done` when they are stored.

    Args:
        digest: of the whole blob; checked when the last piece has come.
        last: this is the last piece.
        job: that it is for: when that is over, nobody needs it any more.
    """

    request: RequestId
    digest: DigestField
    last: bool = True
    job: JobIdField | None = None


class StartFile(Message, tag=146, frozen=True, kw_only=True):
    """A client of this machine will write a large blob itself. Answered by `FileStarted`, or `BlobKept`: it is here.

    Args:
        size: of the blob, in bytes.
        digest: of the blob, where the client knows it.
        job: that it is for: when that is over, nobody needs it any more.
    """

    request: RequestId
    size: Count
    digest: DigestField | None = None
    job: JobIdField | None = None


class FileStarted(Message, tag=147, frozen=True, kw_only=True):
    """The blob is to be written to the file at `path`, which is empty, and removed unless `FinishFile` comes."""

    request: RequestId
    path: FilePath


class FileGrew(Message, tag=158, frozen=True, kw_only=True):
    """So much of the file has been written, and the node may read it already. Not answered.

    Args:
        file: the number of its `StartFile`.
        size: in bytes from its start.
    """

    request: RequestId
    file: RequestId
    size: Count


class FinishFile(Message, tag=148, frozen=True, kw_only=True):
    """The file is whole. Answered by `BlobKept`.

    Args:
        file: the number of its `StartFile`.
        size: what was written, in bytes.
    """

    request: RequestId
    file: RequestId
    size: Count


class BlobKept(Message, tag=149, frozen=True, kw_only=True):
    """The blob is in the store, under this digest, which the node has found by reading it."""

    request: RequestId
    digest: DigestField


class LookForBlobs(Message, tag=156, frozen=True, kw_only=True):
    """Which of these do you not have? Those that you have are wanted now. Answered by `BlobsMissing`."""

    request: RequestId
    digests: tuple[DigestField, ...]


class BlobsMissing(Message, tag=157, frozen=True, kw_only=True):
    """These have to be put."""

    request: RequestId
    digests: tuple[DigestField, ...]


class ReadBlob(Message, tag=144, frozen=True, kw_only=True):
    """Send these bytes of a blob, wherever they are held. Answered by `Chunk`s.

    Args:
        here: a client of this machine would rather be told of a file. Answered by empty `Chunk`s while the bytes are on
            their way, then a `BlobHere`.
    """

    request: RequestId
    source: Source
    here: bool = False


class BlobHere(Message, tag=155, frozen=True, kw_only=True):
    """The bytes are in a file of this machine.

    Args:
        start, end: where in it.
        checked: the node has compared them with their digest.
    """

    request: RequestId
    path: FilePath
    start: Count
    end: Count
    checked: bool


class ReadPart(Message, tag=111, frozen=True, kw_only=True):
    """Send the bytes of one output part. Answered by `Chunk`s, wherever the part is held.

    Args:
        leader: of the job, where the client knows it: then it need not be looked for.
    """

    request: RequestId
    job: JobIdField
    part: Count
    leader: NodeIdField | None = None


class FindPart(Message, tag=129, frozen=True, kw_only=True):
    """Which bytes are this part? A member asks the job's leader. Answered by `PartFound`."""

    request: RequestId
    job: JobIdField
    part: Count


class PartFound(Message, tag=130, frozen=True, kw_only=True):
    """The part's name and holders."""

    request: RequestId
    part: Part


class ReadLog(Message, tag=112, frozen=True, kw_only=True):
    """Send what attempts of this job printed. Answered by `Chunk`s.

    Args:
        stage, task: -1 for all.
    """

    request: RequestId
    job: bytes
    stage: int = -1
    task: int = -1


class Remember(Message, tag=159, frozen=True, kw_only=True):
    """What does the ledger know of what attempts of this job printed last? A member asks. Answered by `Remembered`."""

    request: RequestId
    job: JobIdField


class Remembered(Message, tag=160, frozen=True, kw_only=True):
    """This much is known where the job is led, or was ended; elsewhere nothing."""

    request: RequestId
    attempts: tuple[Failure, ...] = ()
