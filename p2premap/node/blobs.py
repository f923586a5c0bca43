"""Contents on disk, each under its digest: ``blobs/ab/abcdef...``. No trio here: worker processes use it too.

A blob is written under a temporary name, hashed on the way, and renamed into place, so that under a digest there is
either nothing or a whole blob. Only a power cut can tear one that was written without ``durable``: that is found when
it is read, because whoever reads compares the digest. The bytes of a result exist as soon as `Writer.finish` returns;
writing a blob that exists already only renews its age.

Every function here blocks on the disk: the daemon calls them in threads, worker processes directly.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import threading
import time
from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import blake3

from p2premap.errors import P2PRemapError
from p2premap.ids import Digest
from p2premap.tasks.job import BlobRef

if TYPE_CHECKING:
    from pathlib import Path  # a worker process starts sooner without it

_TEMPORARY: Final = "tmp"
_READ_BYTES: Final = 1 << 20
_PARALLEL_BYTES: Final = 8 << 20
"""From here on several threads hash a blob."""
_CHECKED_BYTES_MIN: Final = 1 << 20
_CHECKED_MAX: Final = 10_000
_BUFFER_BYTES: Final = 256 << 10
WRITE_BYTES: Final = 512 << 10
"""Of one write: what was written is hashed from the cache, and a kernel that is given more looks for huge pages."""


class BlobError(P2PRemapError):
    """Something about the store of blobs. Its text is one sentence."""


class BlobMissing(BlobError):
    """The store has no such blob. Definite."""


class BlobCorrupt(BlobError):
    """What lies under a digest does not hash to it (a torn write, a bad disk). It has been removed."""


class StoreUnwritable(BlobError):
    """The disk is full, read-only or failing. Nothing was stored under any digest."""


class StoreUsage(NamedTuple):
    """What the store holds: whole blobs, and their bytes."""

    blobs: int
    bytes: int


class _Seen(NamedTuple):
    """Which file it was, and that nobody has written to it since."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class _Stored(NamedTuple):
    """A blob on disk. `size` in bytes, `written` in seconds since 1970."""

    digest: bytes
    path: str
    size: int
    written: float


class BlobStore:
    """The blobs of one node.

    It remembers which large files were what their digests say: whoever reads one of them again need not hash it again.

    Args:
        directory: usually ``blobs`` in the node's state directory; made if need be.

    Raises:
        StoreUnwritable: the directory cannot be made.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory: Final = str(directory)
        self._numbers = itertools.count()
        self._checked: dict[bytes, _Seen] = {}
        try:
            os.makedirs(os.path.join(self.directory, _TEMPORARY), mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.directory, error) from None

    def path(self, digest: Digest) -> str:
        """Where the blob is, or would be."""
        return blob_path(self.directory, digest)

    def size(self, digest: Digest) -> int | None:
        """The blob's size in bytes; None if the store does not have it."""
        try:
            return os.stat(self.path(digest)).st_size
        except OSError:
            return None

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here."""
        return self.size(digest) is not None

    def writer(self, *, durable: bool = False) -> Writer:
        """Start a blob of unknown digest.

        Args:
            durable: `Writer.finish` returns only when the blob would survive a power cut.

        Raises:
            StoreUnwritable: see there.
        """
        name = f"{os.getpid()}-{next(self._numbers)}"
        temporary = os.path.join(self.directory, _TEMPORARY, name)
        return Writer(self.directory, temporary, durable=durable, checked=self.note_checked)

    def note_checked(self, digest: bytes, status: os.stat_result) -> None:
        """The bytes of this file hash to the digest; of small ones that is not worth knowing."""
        if status.st_size >= _CHECKED_BYTES_MIN:
            self._checked.pop(digest, None)
            self._checked[digest] = _seen(status)
            while len(self._checked) > _CHECKED_MAX:
                with contextlib.suppress(StopIteration, KeyError):  # several threads come here
                    del self._checked[next(iter(self._checked))]

    def is_checked(self, digest: bytes, status: os.stat_result) -> bool:
        """Whether `note_checked` was told of this file, and it is the same still."""
        known = self._checked.get(digest)
        return known is not None and known == _seen(status)

    def vouches(self, digest: bytes) -> bool:
        """Whether the blob need not be checked by who reads it."""
        if digest not in self._checked:
            return False
        try:
            return self.is_checked(digest, os.stat(self.path(Digest(digest))))
        except OSError:
            return False

    def put(self, data: bytes | memoryview, *, durable: bool = False) -> BlobRef:
        """Store these bytes.

        Raises:
            StoreUnwritable: see there.
        """
        writer = self.writer(durable=durable)
        try:
            writer.write(data)
            return writer.finish()
        finally:
            writer.discard()

    def get(self, digest: Digest) -> bytes:
        """The whole blob, checked.

        Raises:
            BlobMissing: there is none.
            BlobCorrupt: it was damaged, and is gone now.
        """
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise BlobMissing(f"The store has no blob {digest.hex()[:16]}.") from None
        except OSError as error:
            raise BlobCorrupt(f"Blob {digest.hex()[:16]} cannot be read: {error.strerror}.") from None
        if blake3.blake3(data).digest() != digest:
            self.delete(digest)
            raise BlobCorrupt(f"Blob {digest.hex()[:16]} was damaged on disk; it has been removed.")
        return data

    def check(self, digest: Digest) -> None:
        """Read the blob through without keeping it.

        Raises:
            BlobMissing, BlobCorrupt: as `get`.
        """
        hasher = blake3.blake3()
        try:
            with open(self.path(digest), "rb") as file:
                while data := file.read(_READ_BYTES):
                    hasher.update(data)
        except FileNotFoundError:
            raise BlobMissing(f"The store has no blob {digest.hex()[:16]}.") from None
        except OSError as error:
            raise BlobCorrupt(f"Blob {digest.hex()[:16]} cannot be read: {error.strerror}.") from None
        if hasher.digest() != digest:
            self.delete(digest)
            raise BlobCorrupt(f"Blob {digest.hex()[:16]} was damaged on disk; it has been removed.")

    def delete(self, digest: Digest) -> bool:
        """Remove the blob; False if there was none."""
        return _gone(self.path(digest))

    def adopt(self, path: str, digest: Digest, *, durable: bool = False) -> None:
        """Take a file on the same file system as this blob, by a hard link; the caller has checked its bytes.

        Args:
            durable: return only when it would survive a power cut.

        Raises:
            OSError, StoreUnwritable: it cannot be linked from there, or the disk fails.
        """
        ours = self.path(digest)
        os.makedirs(os.path.dirname(ours), mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(path, ours, follow_symlinks=False)
        self.renew(digest, durable=durable)

    def renew(self, digest: Digest, *, durable: bool = False) -> None:
        """A blob that is here is wanted now: `sweep` counts its age from this moment.

        Args:
            durable: return only when it would survive a power cut.

        Raises:
            StoreUnwritable: it is not here, or the disk fails.
        """
        path = self.path(digest)
        try:
            os.utime(path)
            if durable:
                _sync(path)
                _sync(os.path.dirname(path))
        except OSError as error:
            raise _unwritable(self.directory, error) from None

    def clear_temporary(self, pid: int | None = None) -> None:
        """Remove what the writers of a process that died left behind; of all processes, before this node writes."""
        temporary = os.path.join(self.directory, _TEMPORARY)
        for name in _names(temporary):
            if pid is None or name.startswith(f"{pid}-"):
                _gone(os.path.join(temporary, name))

    def sweep(self, *, older_s: float, keep: Container[bytes] = ()) -> StoreUsage:
        """Remove blobs that were last written more than `older_s` seconds ago, except `keep`; tell what is left."""
        oldest = time.time() - older_s
        blobs = size = 0
        for blob in self._all():
            if blob.written < oldest and blob.digest not in keep and _gone(blob.path):
                continue
            blobs += 1
            size += blob.size
        return StoreUsage(blobs, size)

    def shrink(self, *, bytes_max: int, older_s: float, keep: Container[bytes] = ()) -> StoreUsage:
        """Remove blobs, those first that were written longest ago, until the rest is not too much; tell what is left.

        Args:
            bytes_max: of the rest, which may be more all the same for what must stay.
            older_s, keep: what may go, as with `sweep`.
        """
        oldest = time.time() - older_s
        found = sorted(self._all(), key=lambda blob: blob.written)
        blobs, size = len(found), sum(blob.size for blob in found)
        for blob in found:
            if size <= bytes_max or blob.written >= oldest:
                break
            if blob.digest not in keep and _gone(blob.path):
                blobs -= 1
                size -= blob.size
        return StoreUsage(blobs, size)

    def _all(self) -> Iterator[_Stored]:
        for prefix in _names(self.directory):
            if len(prefix) != 2:
                continue
            with os.scandir(os.path.join(self.directory, prefix)) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError, ValueError):
                        status = entry.stat()
                        yield _Stored(bytes.fromhex(entry.name), entry.path, status.st_size, status.st_mtime)


class Writer:
    """One blob being written: a `p2premap.worker.runtime.BlobWriter`. End it with `finish` or `discard`.

    Args:
        checked: hears of the whole file, with its digest.
    """

    def __init__(
        self,
        directory: str,
        temporary: str,
        *,
        durable: bool,
        checked: Callable[[bytes, os.stat_result], None] = lambda digest, status: None,
    ) -> None:
        self._directory = directory
        self._temporary = temporary
        self._durable = durable
        self._checked = checked
        self._hasher = blake3.blake3()
        self._size = 0
        self._reader: io.FileIO | None = None
        self._announced = 0
        self._reading = threading.Lock()
        try:
            self._file = open(temporary, "xb", buffering=_BUFFER_BYTES)  # noqa: SIM115  (closed in finish or discard)
        except OSError as error:
            raise _unwritable(directory, error) from None

    @property
    def path(self) -> str:
        """The file, which another process may write instead: see `take_in`."""
        return self._temporary

    def write(self, data: bytes | memoryview) -> None:
        """Append.

        Raises:
            StoreUnwritable: the blob is given up.
        """
        size = len(data) if isinstance(data, bytes) else data.nbytes
        try:
            if size <= WRITE_BYTES:
                self._file.write(data)
                self._hasher.update(data)
            else:
                view = memoryview(data).cast("B")
                for start in range(0, size, WRITE_BYTES):
                    self._file.write(view[start : start + WRITE_BYTES])
                    self._hasher.update(view[start : start + WRITE_BYTES])
        except OSError as error:
            self.discard()
            raise _unwritable(self._directory, error) from None
        self._size += size

    def finish(self, expected: Digest | None = None) -> BlobRef:
        """Put the blob in place; only now does it exist for others.

        Args:
            expected: what the bytes were announced to hash to.

        Raises:
            BlobCorrupt: they do not; the blob is given up.
            StoreUnwritable: the blob is given up.
        """
        digest = Digest(self._hasher.digest())
        if expected is not None and digest != expected:
            self.discard()
            raise BlobCorrupt(f"What came as blob {expected.hex()[:16]} is something else.")
        return self._put_in_place(digest)

    def read_ahead(self, size: int) -> None:
        """Another process writes to `path`, and has come so far: hash that already, beside its writing.

        Any order of calls will do, from any threads. What goes wrong here is told by `take_in`.

        Args:
            size: what has been written, in bytes from the start.
        """
        self._announced = max(self._announced, size)
        if self._reading.acquire(blocking=False):  # else the thread that reads goes on to there
            try:
                while self._size < (announced := self._announced):
                    self._read_to(announced)
                    if self._size < announced:
                        break  # it is not there yet
            except (OSError, ValueError):
                pass
            finally:
                self._reading.release()

    def take_in(self, size: int) -> BlobRef:
        """As `finish`, of what another process of this user has written to `path`: its name is what its bytes hash to.

        Args:
            size: what that process says it has written, in bytes.

        Raises:
            BlobCorrupt: the file is something else; it is given up.
            StoreUnwritable: it cannot be read or put in place; it is given up.
        """
        try:
            with self._reading:
                found = os.stat(self._temporary).st_size
                if found == size:
                    self._read_to(size)
        except OSError as error:
            self.discard()
            raise _unwritable(self._directory, error) from None
        if found != size:
            self.discard()
            raise BlobCorrupt(f"A file of {size} bytes was announced, and {found} are there: it was not written whole.")
        return self._put_in_place(Digest(self._hasher.digest()))

    def _read_to(self, size: int) -> None:
        """Raises: OSError: the file cannot be read. ValueError: it was given up meanwhile."""
        if self._reader is None:
            self._hasher = blake3.blake3(max_threads=blake3.blake3.AUTO if size >= _PARALLEL_BYTES else 1)
            self._reader = open(self._temporary, "rb", buffering=0)  # noqa: SIM115  (closed in `_close`)
        # one buffer: the file may be larger than the memory, or be cut short
        buffer = memoryview(bytearray(min(max(size - self._size, 0), _READ_BYTES)))
        while self._size < size and (count := self._reader.readinto(buffer[: size - self._size])):
            self._hasher.update(buffer[:count])
            self._size += count

    def _put_in_place(self, digest: Digest) -> BlobRef:
        path = blob_path(self._directory, digest)
        try:
            self._file.flush()
            if self._durable:
                os.fsync(self._file.fileno())
            status = os.fstat(self._file.fileno())
            self._close()
            try:
                os.rename(self._temporary, path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                os.rename(self._temporary, path)
            if self._durable:
                _sync(os.path.dirname(path))
        except OSError as error:
            self.discard()
            raise _unwritable(self._directory, error) from None
        self._checked(digest, status)
        return BlobRef(digest=digest, size=self._size)

    def discard(self) -> None:
        """Give up what is not finished; does nothing after `finish`."""
        with contextlib.suppress(OSError):  # closing flushes, and the disk is full: the bytes go anyway
            self._close()
        _gone(self._temporary)

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._file.close()


def blob_path(directory: str, digest: Digest) -> str:
    """Where a store in `directory` keeps this blob: a neighbour's store is read so."""
    name = digest.hex()
    return f"{directory}/{name[:2]}/{name}"


def why_unwritable(error: OSError) -> str:
    """Why something could not be written, in a person's words."""
    return {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "this user may not write there",
    }.get(error.errno or 0, error.strerror or str(error))


def _unwritable(directory: str, error: OSError) -> StoreUnwritable:
    return StoreUnwritable(f"Cannot write to {directory}: {why_unwritable(error)}.")


def _seen(status: os.stat_result) -> _Seen:
    return _Seen(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _gone(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
