"""Inputs at URLs: what a map attempt fetches itself, a few files ahead of what it reads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Final

from p2premap.tasks.mapreduce_plan import AtUrl, MapParams
from p2premap.worker.places import Found
from p2premap.worker.runtime import Context, Segment
from p2premap.worker.urls import read

AHEAD: Final = 4
"""Files that are fetched side by side: of small ones, waiting for the first byte is what takes time."""


def with_fetched(params: MapParams, segments: Sequence[Segment], context: Context) -> Iterator[Segment]:
    """A segment for each of the names: one that the node has brought, or one that is fetched.

    Raises:
        Changed: a file is another than when the job was submitted.
        UrlError: it cannot be had.
    """
    brought = iter(segments)
    given = list(zip(params.names, params.urls, strict=True))
    wanted = ((name, at, context.scratch) for name, at in given if at is not None)
    pool = ThreadPoolExecutor(AHEAD)
    try:
        coming = deque(pool.submit(_fetched, *each) for each in islice(wanted, AHEAD))
        for _, at in given:
            if at is None:
                yield next(brought)
                continue
            done = coming.popleft()
            if (error := done.exception()) is not None:
                raise error.with_traceback(None)  # the way through a thread tells nobody anything
            segment = done.result()
            coming.extend(pool.submit(_fetched, *each) for each in islice(wanted, 1))
            yield segment
            with suppress(OSError):
                os.unlink(segment.path)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _fetched(url: str, at: AtUrl, directory: str) -> Segment:
    size = 0
    # of a name that no later attempt draws: a thread of this one may outlive it
    path = os.path.join(directory, f"input-{os.urandom(8).hex()}")
    with open(path, "xb", buffering=0) as file:
        for piece in read(Found(url, at.size, at.identity, at.ranges), at.start, at.end):
            size += file.write(piece)
    return Segment(path, 0, size, b"", True, url, at.start)
