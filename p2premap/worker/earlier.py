"""Output parts of map/reduce jobs, read as map/reduce reads them where they are its input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from p2premap.worker.formats import records_of
from p2premap.worker.jobfile import JobFile
from p2premap.worker.readers import Records
from p2premap.worker.runtime import Segment

_JOB: Final = JobFile(
    map=lambda key, value: None,
    map_yields=False,
    combine=None,
    reduce=None,
    reduce_yields=False,
    partition=None,
    reader="parts",
    encoding="utf-8",
    errors="strict",
)


def records(segment: Segment, name: str) -> Iterator[Records]:
    """The pairs of a part, in groups.

    Raises:
        InputLost: the file is gone, changed or shorter.
        JobCodeError: it is no part of a job.
    """
    return records_of(segment, name, b"", _JOB)
