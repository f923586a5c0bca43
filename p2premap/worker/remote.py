"""Inputs at URLs: what a map attempt fetches itself, one file after the other, each when its turn comes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from p2premap.tasks.mapreduce_plan import AtUrl, MapParams
from p2premap.worker.places import Found
from p2premap.worker.runtime import Context, Segment
from p2premap.worker.urls import read


def with_fetched(params: MapParams, segments: Sequence[Segment], context: Context) -> Iterator[Segment]:
    """A segment for each of the names: one that the node has brought, or one that is fetched now.

    Raises:
        Changed: a file is another than when the job was submitted.
        UrlError: it cannot be had.
    """
    brought = iter(segments)
    for number, (name, at) in enumerate(zip(params.names, params.urls, strict=True)):
        if at is None:
            yield next(brought)
            continue
        path = os.path.join(context.scratch, f"input-{number}")
        yield _fetched(name, at, path)
        os.unlink(path)


def _fetched(url: str, at: AtUrl, path: str) -> Segment:
    size = 0
    with open(path, "xb", buffering=0) as file:
        for piece in read(Found(url, at.size, at.identity, at.ranges), at.start, at.end):
            size += file.write(piece)
    return Segment(path, 0, size, b"", True, url, at.start)
