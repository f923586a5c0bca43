"""How the output of a vertex job is written: what only the planner and the output stage look into."""

from __future__ import annotations

import msgspec

from p2premap.wire import Record, Short


class Writing(Record, frozen=True, kw_only=True):
    """Packed in `p2premap.vertex.plan.Settings.writing`.

    Args:
        writer: one of `p2premap.tasks.mapreduce_plan.WRITERS`.
    """

    writer: Short = "text"

    def pack(self) -> bytes:
        """For `Settings.writing`."""
        return msgspec.msgpack.encode(self)


def unpack_writing(data: bytes) -> Writing:
    """What `Writing.pack` packed.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    return msgspec.msgpack.decode(data, type=Writing)
