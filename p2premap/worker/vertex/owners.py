"""Which partition a vertex belongs to: the same in every process, on every machine, for equal ids.

Every id has a *key* of 64 bits, by which vertices are sorted, looked up and sent: an integer that fits is its own key,
any other id has 64 bits of a BLAKE3 hash. Keys are mixed (splitmix64's finalizer: Steele, Lea and Flood, 2014), so that
ids with a pattern, such as multiples of the number of partitions, spread evenly all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from p2premap.vertex.loading import unpack_reading
from p2premap.vertex.plan import Settings

Keys: TypeAlias = npt.NDArray[np.int64]
Owners: TypeAlias = npt.NDArray[np.uint16]

_KEY_MIN: Final = -(1 << 63)
_KEY_MAX: Final = (1 << 63) - 1
_MIX_ROWS: Final = 1 << 15
"""Keys are mixed by so many: what is made on the way stays in the processor's cache."""
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_S27, _S30, _S31, _S32 = (np.uint64(bits) for bits in (27, 30, 31, 32))


def owner(keys: Keys, partitions: int, ranges: Keys | None = None) -> Owners:
    """The partition of each key.

    Args:
        partitions: how many there are, at most 65,535.
        ranges: the smallest key of each partition but the first, ascending; None: by mixing.
    """
    if partitions == 1:
        return np.zeros(len(keys), np.uint16)
    if ranges is not None:
        return np.searchsorted(ranges, keys, side="right").astype(np.uint16)
    owners = np.empty(len(keys), np.uint16)
    count = np.uint64(partitions)
    unsigned = keys.view(np.uint64)
    for start in range(0, len(keys), _MIX_ROWS):
        mixed = unsigned[start : start + _MIX_ROWS] + _STEP
        mixed ^= mixed >> _S30
        mixed *= _FIRST
        mixed ^= mixed >> _S27
        mixed *= _SECOND
        mixed ^= mixed >> _S31
        mixed >>= _S32
        mixed *= count
        mixed >>= _S32
        owners[start : start + _MIX_ROWS] = mixed
    return owners


def ranges_of(settings: Settings) -> Keys | None:
    """What `owner` is to be given for the vertices of this job."""
    ranges = unpack_reading(settings.reading).ranges
    return np.array(ranges, np.int64) if ranges else None


def key_of(vertex: object) -> int:
    """The key of a vertex id. Ids that are equal in a dict (1, 1.0 and True) have the same."""
    if isinstance(vertex, np.integer) or (isinstance(vertex, float) and vertex.is_integer()):
        vertex = int(vertex)
    if isinstance(vertex, int) and _KEY_MIN <= vertex <= _KEY_MAX:
        return int(vertex)
    if isinstance(vertex, str):
        return hashed(vertex.encode("utf-8", "surrogatepass"))
    return hashed(repr(vertex).encode("utf-8", "surrogatepass"))


def hashed(name: bytes) -> int:
    """The key of an id that is text, given as UTF-8."""
    return int.from_bytes(blake3(name).digest(8), "little", signed=True)


def owners_of(ids: Sequence[object], partitions: int, ranges: Keys | None = None) -> list[int]:
    """The partition of each id."""
    keys = np.fromiter(map(key_of, ids), np.int64, len(ids))
    return [int(number) for number in owner(keys, partitions, ranges).tolist()]
