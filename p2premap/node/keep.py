"""Keeping a source in a node's own store: what is on this machine already is linked or copied, and checked.

A replica keeps what its job needs, and a second holder keeps results, so that they outlive the node or the machine
that made them. Between the stores of one machine a kept blob is a hard link: it costs no bytes, and stays when the
other node removes its own name for it. Everything here blocks on the disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from blake3 import blake3

from p2premap.ids import Digest
from p2premap.node.blobs import BlobCorrupt, BlobError, BlobStore, StoreUnwritable, blob_path
from p2premap.tasks.job import Source

_READ_BYTES: Final = 1 << 20


class _Place(NamedTuple):
    """Where the bytes of a source may lie on this machine: a range of a file. `blob`: it is the whole of a blob."""

    path: str
    start: int
    blob: bool


def keep_local(blobs: BlobStore, source: Source, neighbours: Iterable[str], *, durable: bool = False) -> bool:
    """Have the source in the store, from this machine's disks; False where they do not have it.

    Args:
        neighbours: directories of blobs of other nodes on this machine.
        durable: return only when it would survive a power cut.

    Raises:
        StoreUnwritable: there is no room for it.
    """
    with contextlib.suppress(BlobError):
        blobs.check(source.digest)
        blobs.renew(source.digest, durable=durable)
        return True
    for place in _places(blobs, source, neighbours):
        if (place.blob and _link(blobs, source, place.path, durable)) or _copy(blobs, source, place, durable):
            return True
    return False


def _places(blobs: BlobStore, source: Source, neighbours: Iterable[str]) -> Iterator[_Place]:
    directories = (blobs.directory, *neighbours)
    whole = source.blob == source.digest or source.blob is None
    for directory in directories:
        yield _Place(blob_path(directory, source.digest), 0, blob=True)
        if source.blob is not None and not whole:
            yield _Place(blob_path(directory, source.blob), source.start, blob=False)
    if source.path:
        yield _Place(source.path, source.start, blob=False)


def _link(blobs: BlobStore, source: Source, path: str, durable: bool) -> bool:
    """Whether the file is now a blob of ours, checked."""
    if not _hashes_to(path, source.digest, source.size):
        return False
    try:
        blobs.adopt(path, source.digest, durable=durable)
    except (OSError, StoreUnwritable):  # another file system, or one without links
        return False
    return True


def _copy(blobs: BlobStore, source: Source, place: _Place, durable: bool) -> bool:
    left = source.size
    try:
        file = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    writer = blobs.writer(durable=durable)
    try:
        while left and (data := os.pread(file, min(_READ_BYTES, left), place.start + source.size - left)):
            writer.write(data)
            left -= len(data)
        writer.finish(source.digest)
    except (OSError, BlobCorrupt):
        return False
    finally:
        writer.discard()
        os.close(file)
    return True


def _hashes_to(path: str, digest: Digest, size: int) -> bool:
    hasher = blake3()
    try:
        with open(path, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            while data := file.read(_READ_BYTES):
                hasher.update(data)
    except OSError:
        return False
    return hasher.digest() == digest
