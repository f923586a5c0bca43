"""A job that is ready to be handed in, whatever its kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from blake3 import blake3

from p2premap.ids import Digest
from p2premap.tasks.job import BlobRef, JobOptions, JobSpec

SUBMISSION_KEY_BYTES: Final = 16
_NAME_CHARACTERS_MAX: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job ready to be submitted.

    Args:
        blobs: code, plan, and the lock of an environment; to be put first.
        files: absolute paths that its attempts may ask this machine for.
        bytes_in: of all inputs.
        tasks: of its first stage, as far as they are known.
    """

    spec: JobSpec
    blobs: tuple[tuple[Digest, bytes], ...]
    files: tuple[str, ...]
    bytes_in: int
    tasks: int


def with_blob(submission: Submission, blob: bytes) -> Submission:
    """The same job, with one more blob to be put first."""
    return replace(submission, blobs=(*submission.blobs, (Digest(blake3(blob).digest()), blob)))


def submission_of(
    kind: str,
    options: JobOptions,
    *,
    name: str,
    code: bytes,
    plan: bytes,
    files: Sequence[str] = (),
    bytes_in: int = 0,
    tasks: int = 0,
) -> Submission:
    """The job that a planner has made, under a submission key of its own.

    Args:
        name: for people.
        code: the bundle that workers load (`p2premap.client.bundle.pack_file`).
        plan: what the kind's director is made from.
        files, bytes_in, tasks: see `Submission`.
    """
    blobs = tuple((Digest(blake3(blob).digest()), blob) for blob in (code, plan))
    refs = [BlobRef(digest=digest, size=len(blob)) for digest, blob in blobs]
    spec = JobSpec(
        submission_key=os.urandom(SUBMISSION_KEY_BYTES),
        kind=kind,
        name=name[:_NAME_CHARACTERS_MAX],
        code=refs[0],
        plan=refs[1],
        options=options,
    )
    return Submission(spec=spec, blobs=blobs, files=tuple(dict.fromkeys(files)), bytes_in=bytes_in, tasks=tasks)
