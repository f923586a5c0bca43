"""Writing an output part to a URL: the other half of `p2premap.tasks.delivery`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from blake3 import blake3

from p2premap.tasks.delivery import DeliverParams, unpack_names
from p2premap.worker import urls
from p2premap.worker.runtime import Context, InputLost, Result, Segment


def deliver(params: bytes, segments: Sequence[Segment], context: Context) -> Result:
    """Run one attempt: have the part there, then, if this is the one who does it, no parts of other names.

    Raises:
        InputLost: the part is damaged on this machine's disk.
        UrlError: it cannot be written.
    """
    told = msgspec.msgpack.decode(params, type=DeliverParams)
    (segment,) = segments
    urls.send(_checked(segment, context), urls.below(told.url, told.name))
    if told.others:
        urls.remove_others(told.url, frozenset(unpack_names(told.others)))
    return Result()


def _checked(segment: Segment, context: Context) -> Path:
    """The file of a segment, which is all of it."""
    if segment.start == segment.end:
        empty = Path(context.scratch) / "empty"
        empty.touch()
        return empty
    try:
        whole = segment.start == 0 and os.stat(segment.path).st_size == segment.end
        sound = whole and (segment.verified or blake3().update_mmap(segment.path).digest() == segment.digest)
    except OSError as error:
        raise InputLost(f"A part cannot be read: {error.strerror}.", segment.digest) from None
    if not sound:
        raise InputLost("A part is damaged on this machine's disk.", segment.digest)
    return Path(segment.path)
