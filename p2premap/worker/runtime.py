"""The half of a kind of job that runs in a worker process, and what it is given.

A worker process (`python -m p2premap.worker`) loads one job's bundle once, then runs attempt after attempt. The
runtime sees local files only: the node has brought every source here before the attempt starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, Protocol

import msgspec

from p2premap.tasks.job import AttemptKey, BlobRef

if TYPE_CHECKING:
    from p2premap.worker.gang import Gang
    from p2premap.worker.messages import Order


class Segment(NamedTuple):
    """A source that is at hand.

    Args:
        path: a local file.
        start, end: the range of it, in bytes.
        digest: BLAKE3 of exactly these bytes.
        verified: the node has checked the digest; otherwise the runtime must, or must read the range through
            `Context.read`, which does.
        name: how the user knows the input (the path as submitted); "" for a blob.
        shift: what makes a place in `path` one in the input: the file may be a copy of a range of it.
    """

    path: str
    start: int
    end: int
    digest: bytes
    verified: bool
    name: str
    shift: int = 0


class BlobWriter(Protocol):
    """Writes a result blob: hashed while it is written, put in place under its digest at `finish`."""

    def write(self, data: bytes | memoryview) -> None:
        """Append."""

    def finish(self) -> BlobRef:
        """Put it in place; only now does it exist for others."""


class Context(Protocol):
    """What an attempt may use."""

    attempt: AttemptKey
    scratch: str
    """A directory of this attempt's own, removed after it."""

    def new_blob(self) -> BlobWriter:
        """Start writing a result blob."""

    def read(self, segment: Segment) -> bytes:
        """The bytes of a segment, checked against its digest.

        Raises:
            InputLost: the file is gone, changed or shorter.
        """

    def map(self, segment: Segment, *, own: bool = False) -> memoryview:
        """The same without a copy: the file, in memory for as long as somebody looks at it. It must not be empty.

        Args:
            own: it may be written to: pages that are become this process's own, and the file stays as it is.

        Raises:
            InputLost: as `read`.
        """

    def count(self, *, records_in: int = 0, records_out: int = 0) -> None:
        """Add to this attempt's counters."""

    def spill(self, path: str, mode: Literal["wb", "ab"] = "wb") -> AbstractContextManager[BinaryIO]:
        """A file in `scratch` for what does not fit into memory. How much is written, and for how long, is told."""


class InputLost(Exception):
    """A source is not what it was announced to be; the attempt ends as INPUT_LOST."""

    def __init__(self, message: str, digest: bytes) -> None:
        super().__init__(message)
        self.digest = digest


class Result(msgspec.Struct, frozen=True):
    """What an attempt yields: a small value, and the blobs that it wrote."""

    value: bytes = b""
    blobs: tuple[BlobRef, ...] = ()


class Together(Protocol):
    """What a runtime has besides, whose kind has stages with `p2premap.tasks.director.StagePlan.shared`."""

    def run_together(
        self, function: str, orders: Sequence[Order], gang: Gang, contexts: Sequence[Context]
    ) -> Sequence[Result]:
        """Run attempts at once, together with the other processes of their gang.

        Args:
            orders: task, attempt, params and segments of each.
            gang: how to talk to the others.
            contexts: one an order.

        Returns:
            One result an order.

        Raises:
            PeerLost: let through: all of them end as STOPPED, at no cost.
            Exception: whatever user code raises: all of them end as RAISED.
            InputLost: those end so that read it, the others as STOPPED.
        """


class Runtime(Protocol):
    """The other half of a `p2premap.tasks.director.Director`."""

    def __init__(self, bundle: bytes, directory: str) -> None:
        """Load the job's code. `directory` is this job's own on this worker, for unpacked sources.

        Raises:
            Exception: whatever user code raises when it is imported; every attempt then ends as RAISED with it.
        """

    def run(self, function: str, params: bytes, segments: Sequence[Segment], context: Context) -> Result:
        """Run one attempt.

        Raises:
            Exception: whatever user code raises: the attempt ends as RAISED.
            InputLost: see there.
        """
