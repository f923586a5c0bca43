"""Bytes of jobs: blobs to and fro, parts of the output, what attempts printed."""

from __future__ import annotations

from p2premap.ids import RequestId
from p2premap.tasks.job import Part, Source
from p2premap.wire import Count, DigestField, JobIdField, Message, NodeIdField


class PutBlob(Message, tag=103, frozen=True, kw_only=True):
    """Keep these bytes (the frame's payload; at most PAYLOAD_BYTES_MAX a piece). `Done` when they are stored.

    Args:
        digest: of the whole blob; checked when the last piece has come.
        last: this is the last piece.
    """

    request: RequestId
    digest: DigestField
    last: bool = True


class LookForBlobs(Message, tag=156, frozen=True, kw_only=True):
    """Which of these do you not have? Those that you have are wanted now. Answered by `BlobsMissing`."""

    request: RequestId
    digests: tuple[DigestField, ...]


class BlobsMissing(Message, tag=157, frozen=True, kw_only=True):
    """These have to be put."""

    request: RequestId
    digests: tuple[DigestField, ...]


class ReadBlob(Message, tag=144, frozen=True, kw_only=True):
    """Send these bytes of a blob, wherever they are held. Answered by `Chunk`s."""

    request: RequestId
    source: Source


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
