"""The names of vertices whose ids are text, by key: each key is the hash of one name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from p2premap.vertex.barrier import VertexError
from p2premap.worker.blocks import shorten
from p2premap.worker.vertex.owners import Keys


def add_names(named: dict[int, bytes], keys: Iterable[int], names: Iterable[bytes]) -> None:
    """Take note of the names of vertices, by key.

    Raises:
        VertexError: two of them have one key.
    """
    for key, name in zip(keys, names, strict=True):
        if (known := named.setdefault(key, name)) != name:
            raise VertexError(
                f"The ids {shorten(name.decode())} and {shorten(known.decode())} have the same hash of 64 bits: "
                "rename one of them."
            )


def packed_names(named: Mapping[int, bytes], keys: Keys) -> tuple[Keys, npt.NDArray[np.uint8]]:
    """The names of these vertices one after the other, and where each begins and the last one ends."""
    names = [named[key] for key in keys.tolist()]
    offsets = np.zeros(len(names) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, names), np.int64, len(names)), out=offsets[1:])
    return offsets, np.frombuffer(b"".join(names), np.uint8)
