"""Output that goes to a URL: one more stage behind the last of a job of any kind, which writes each part there.

The stage is planned once the results of all others are pinned. So whoever writes a part, and however often, writes the
same bytes under the same name: an attempt that was lost, repeated or overtaken does no harm. Each part is there whole
or not at all (`p2premap.worker.places.Places.write`), and of a job whose tasks fail nothing is. The parts stay results
of the job, too, and can be read from its nodes.

Two lineages would write two outputs under the same names. A job that writes to a URL is therefore `strict`: it is
never forked (`p2premap.election.forks`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from p2premap.tasks.director import StagePlan, TaskInput
from p2premap.tasks.job import JobOptions, Part
from p2premap.wire import FilePath, Record, Text

DELIVER: Final = "p2premap:deliver"
"""The function of the stage: no kind's runtime is called for it."""


class DeliverParams(Record, frozen=True, kw_only=True):
    """Told to an attempt that writes a part, which is its one source.

    Args:
        url: of the directory.
        name: of the file.
        others: of all parts, packed by `pack_names`, for the one attempt that removes earlier parts of other names;
            else b"".
    """

    url: Text
    name: FilePath
    others: bytes = b""


class Delivery:
    """The stage of one lineage.

    Args:
        options: of the job.
        parts: all of them.
    """

    def __init__(self, options: JobOptions, parts: Sequence[Part]) -> None:
        self._url = options.output
        self._parts = parts
        self._replaces = options.overwrite

    def stage(self) -> StagePlan:
        """One task a part."""
        size = sum(part.source.size for part in self._parts)
        return StagePlan(name="deliver", function=DELIVER, tasks=len(self._parts), bytes_in=size)

    def task(self, task: int) -> TaskInput:
        """What it takes to write one part."""
        part = self._parts[task]
        others = pack_names([each.file_name for each in self._parts]) if self._replaces and task == 0 else b""
        params = DeliverParams(url=self._url, name=part.file_name, others=others)
        return TaskInput(params=msgspec.msgpack.encode(params), sources=(part.source,))


def pack_names(names: Sequence[str]) -> bytes:
    """Names of parts, which are alike: a few bytes each."""
    return zlib.compress("\0".join(names).encode())


def unpack_names(packed: bytes) -> list[str]:
    """The same read."""
    return zlib.decompress(packed).decode().split("\0")
