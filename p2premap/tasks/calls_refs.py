"""What a call refers to beside its arguments: values that were put, and results of other calls.

They go from node to node, and not through the client. A pack that refers to something (flag `REFS`) names it between
its head and its arguments, by number; the pickled arguments hold the numbers::

    refs    bytes in all, count  |  each: kind, then
            INLINE    length, a pickle              a small result that the client has anyway
            VALUE     a blob                        a value that was put: one object for all calls of a worker process
            COPY      a blob                        a large argument: each call has its own
            ANSWER    a blob, position, calls       one of the results in the answer to another pack
            RESULT    a blob, position, calls       the same, where large arrays stand beside the pickles
            CALL      pack, position                the result of a call of an earlier pack, whatever that will be

Of a CALL the job's leader makes one of the others, once that pack has its answer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from p2premap.errors import JobError
from p2premap.ids import DIGEST_BYTES, NODE_ID_BYTES, Digest, NodeId
from p2premap.tasks.job import Source

INLINE: Final = 0
VALUE: Final = 1
COPY: Final = 2
ANSWER: Final = 3
RESULT: Final = 4
CALL: Final = 5

BLOB_AT: Final = struct.Struct(f"<{DIGEST_BYTES}sQ{NODE_ID_BYTES}s")
_HEAD: Final = struct.Struct("<II")
_KIND: Final = struct.Struct("<B")
_LENGTH: Final = struct.Struct("<I")
_PLACE: Final = struct.Struct("<II")
_OF_PACK: Final = struct.Struct("<QI")


class BlobAt(NamedTuple):
    """A blob and a node that has it. `size` in bytes."""

    digest: Digest
    size: int
    holder: NodeId

    def source(self, holders: tuple[NodeId, ...] = ()) -> Source:
        """For an attempt that reads it.

        Args:
            holders: all that are known, where there are more.
        """
        return Source(digest=self.digest, start=0, end=self.size, holders=holders or (self.holder,), blob=self.digest)


class Ref(NamedTuple):
    """Something that a call refers to.

    Args:
        kind: what it is.
        blob: that holds it; None: `data` is it.
        position, calls: of an ANSWER or a RESULT: which of how many.
        pack: of a CALL, with the position in it.
    """

    kind: int
    blob: BlobAt | None = None
    data: bytes | memoryview = b""
    position: int = 0
    calls: int = 0
    pack: int = 0


def pack_refs(refs: Sequence[Ref]) -> bytes:
    """What stands between the head of a pack and its arguments."""
    parts = []
    for ref in refs:
        parts.append(_KIND.pack(ref.kind))
        if ref.kind == CALL:
            parts.append(_OF_PACK.pack(ref.pack, ref.position))
        elif ref.blob is None:
            parts += [_LENGTH.pack(len(ref.data)), bytes(ref.data)]
        else:
            parts.append(BLOB_AT.pack(*ref.blob))
        if ref.kind in (ANSWER, RESULT):
            parts.append(_PLACE.pack(ref.position, ref.calls))
    body = b"".join(parts)
    return _HEAD.pack(len(body), len(refs)) + body


def unpack_refs(data: bytes | memoryview, at: int) -> tuple[list[Ref], int]:
    """The refs that begin here, and where they end.

    Raises:
        JobError: these are none.
    """
    try:
        size, count = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        end = at + size
        refs = []
        for _ in range(count):
            ref, at = _unpack(data, at)
            refs.append(ref)
    except struct.error as error:
        raise JobError(f"What a call refers to makes no sense: {error}.") from None
    if at != end or end > len(data):
        raise JobError("What a call refers to makes no sense: lengths do not add up.")
    return refs, end


def _unpack(data: bytes | memoryview, at: int) -> tuple[Ref, int]:
    (kind,) = _KIND.unpack_from(data, at)
    at += _KIND.size
    if kind == INLINE:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        return Ref(kind, data=data[at : at + length]), at + length
    if kind == CALL:
        pack, position = _OF_PACK.unpack_from(data, at)
        return Ref(kind, position=position, pack=pack), at + _OF_PACK.size
    if kind not in (VALUE, COPY, ANSWER, RESULT):
        raise JobError(f"A call refers to something of the unknown kind {kind}.")
    digest, size, holder = BLOB_AT.unpack_from(data, at)
    at += BLOB_AT.size
    blob = BlobAt(Digest(digest), size, NodeId(holder))
    if kind in (VALUE, COPY):
        return Ref(kind, blob), at
    position, calls = _PLACE.unpack_from(data, at)
    return Ref(kind, blob, position=position, calls=calls), at + _PLACE.size
