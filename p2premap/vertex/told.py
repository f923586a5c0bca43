"""How a vertex job gets on, as its director tells clients: what was loaded, and superstep after superstep."""

from __future__ import annotations

from typing import Final

import msgspec

from p2premap.vertex.loading import Loaded
from p2premap.vertex.plan import EpochReport, StepRow
from p2premap.wire import Count, Record, Text

ROWS_TOLD_MAX: Final = 256
"""About 20 KB. Of more supersteps the first and the last ones are told, and of the others every second, fourth, ..."""
FIRST_ROWS: Final = 64
LAST_ROWS: Final = 64


class Told(Record, frozen=True, kw_only=True):
    """What clients are told (`p2premap.tasks.job.JobView.told`).

    Args:
        loaded: by the load stage, once it has ended.
        vertices, edges: of the whole graph, as it is now.
        supersteps: how many are done.
        checkpoints: epochs that have been agreed upon.
        rows: of the supersteps, in order; of many, not all.
        dropped: messages to vertices that do not exist.
        why: how it ended; "" while it goes on.
    """

    loaded: Loaded = Loaded()
    vertices: Count = 0
    edges: Count = 0
    supersteps: Count = 0
    checkpoints: Count = 0
    rows: tuple[StepRow, ...] = ()
    dropped: Count = 0
    why: Text = ""


def unpack_told(data: bytes) -> Told | None:
    """What a view tells; None: nothing, or nothing that this version knows."""
    try:
        return msgspec.msgpack.decode(data, type=Told) if data else None
    except msgspec.DecodeError:
        return None


class Account:
    """Keeps what is told of a job, in bounded room."""

    def __init__(self) -> None:
        self._told = Told()
        self._rows: list[StepRow] = []
        self._every = 1
        self._packed = b""

    def load(self, loaded: Loaded) -> None:
        """The load stage has ended."""
        self._change(loaded=loaded)

    def build(self, vertices: int, edges: int) -> None:
        """The graph is built."""
        self._change(vertices=vertices, edges=edges)

    def epoch(self, report: EpochReport) -> None:
        """An epoch has ended: its report, of partition 0."""
        self._rows += report.rows
        self._thin()
        while len(self._rows) > ROWS_TOLD_MAX:
            self._every *= 2
            self._thin()
        self._change(
            vertices=report.vertices,
            edges=report.edges,
            supersteps=report.superstep,
            checkpoints=self._told.checkpoints + 1,
            rows=tuple(self._rows),
            dropped=report.dropped,
            why=report.why,
        )

    def pack(self) -> bytes:
        """For `p2premap.tasks.director.Tells`."""
        if not self._packed:
            self._packed = msgspec.msgpack.encode(self._told)
        return self._packed

    def _thin(self) -> None:
        last = self._rows[-min(LAST_ROWS, len(self._rows))].superstep if self._rows else 0
        self._rows = [
            row for row in self._rows if not FIRST_ROWS <= row.superstep < last or row.superstep % self._every == 0
        ]

    def _change(self, **fields: object) -> None:
        self._told = msgspec.structs.replace(self._told, **fields)
        self._packed = b""
