"""``with_requirements``: a requirements file, resolved once to a lock, and its wheels where nodes find them.

pip resolves, with the indexes, proxies and constraints that the user has configured or that the file names
(`p2premap.node.pip`). What comes of it is kept for a day under a digest of all that it depends on, so that a second
run with the same file neither resolves nor downloads. Whoever makes the environment needs no index: the wheels
are blobs of the node to which the job is handed in, and go from node to node from there.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from blake3 import blake3

from p2premap.client.connection import Connection
from p2premap.client.jobs import put_blob
from p2premap.control.data import BlobsMissing, LookForBlobs
from p2premap.errors import JobRejected
from p2premap.ids import Digest
from p2premap.node import pip
from p2premap.node.paths import Paths, private_directory
from p2premap.tasks import placement, requirements
from p2premap.tasks.environment import LOCK_VERSION, Lock, Wheel
from p2premap.tasks.job import BlobRef, JobOptions

LOCK_KEPT_S: Final = 86_400.0
NESTED_MAX: Final = 100

_INDEX_OPTIONS: Final = ("-i", "--index-url", "--extra-index-url", "--no-index", "-f", "--find-links", "--trusted-host")
_NESTED: Final = re.compile(r"\s*(?:-r|--requirement|-c|--constraint)(?:\s*=\s*|\s+|(?=\S))(\S+)")
_WITH_VALUE: Final = re.compile(r"^(--[a-z-]+)=")
_EXTRA: Final = re.compile(r";.*\bextra\s*==")


class Environment(NamedTuple):
    """What a job needs to be installed, ready to be handed in.

    Args:
        lock: says what.
        blob: the same as bytes; it goes in with the job's code.
    """

    lock: Lock
    blob: bytes

    def of(self, options: JobOptions) -> JobOptions:
        """A job's options with this environment: what is in it, nodes need not have themselves."""
        needs = [line for line in options.requires if not _installs(self.lock, line)]
        if minor := self.lock.minor():
            needs.append(f"python {minor}")
        ref = BlobRef(digest=Digest(blake3(self.blob).digest()), size=len(self.blob))
        return msgspec.structs.replace(options, requires=tuple(dict.fromkeys(needs)), environment=ref)


def prepare(
    connection: Connection, file: str, *, told: Callable[[str], None] = lambda _: None, paths: Paths | None = None
) -> Environment:
    """Resolve a requirements file, and have its wheels at a node.

    Args:
        connection: to the node that is to hand them out.
        file: its path; relative ones are of the current directory.
        told: hears a sentence where this takes a while.
        paths: where locks are kept.

    Raises:
        JobRejected: one sentence: no such file, what pip says where nothing fits, no room.
        RequestRefused, PeerUnreachable: the node does not keep the wheels.
    """
    texts = [Path(os.path.normpath(file))]
    _read(texts[0], texts)
    kept = _kept_at(texts, paths or Paths.of_user())
    lock = _kept_lock(kept)
    if lock is not None and not _missing(connection, lock):
        return Environment(lock, lock.encode())
    told(f"Resolving {file} with pip; what comes of it is kept for a day.")
    with tempfile.TemporaryDirectory(prefix="p2premap-") as directory:
        lock = _resolve(file, texts, directory)
        missing = set(_missing(connection, lock))
        for wheel in lock.wheels:
            if wheel.digest in missing:
                _put(connection, Path(directory, wheel.name))
    _keep_lock(kept, lock)
    return Environment(lock, lock.encode())


def _put(connection: Connection, wheel: Path) -> None:
    with wheel.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        put_blob(connection, data)


def read(path: str) -> Environment:
    """The environment that this process itself runs in.

    Raises:
        JobRejected: its lock cannot be read.
    """
    try:
        blob = Path(path).read_bytes()
    except OSError as error:
        raise JobRejected(f"Cannot read {path}: {error.strerror}.") from None
    return Environment(Lock.decode(blob), blob)


def _installs(lock: Lock, line: str) -> bool:
    """Whether a requirement is met by what the environment brings, whatever the node has."""
    facts = placement.Facts(packages=lock.packages(), programs=())
    return not placement.lacks(requirements.read((line,)), facts)


def _missing(connection: Connection, lock: Lock) -> tuple[Digest, ...]:
    digests = tuple(wheel.digest for wheel in lock.wheels)
    return connection.ask(lambda n: LookForBlobs(request=n, digests=digests), BlobsMissing).digests


# --- what the user wrote ------------------------------------------------------------------------------------------


def _read(file: Path, files: list[Path]) -> None:
    """Add the files that this one names.

    Raises:
        JobRejected: one cannot be read.
    """
    for line in _lines(file):
        nested = _NESTED.match(line)
        if nested is not None and "://" not in nested[1]:
            found = Path(os.path.normpath(file.parent / nested[1]))
            if found not in files:
                if len(files) >= NESTED_MAX:
                    raise JobRejected(f"{files[0]} names more than {NESTED_MAX} other files.")
                files.append(found)
                _read(found, files)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError as error:
        raise JobRejected(f"Cannot read the requirements file {file}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise JobRejected(f"The requirements file {file} is not text.") from None


def _index_options(files: Iterable[Path]) -> Iterator[str]:
    """Lines that say where wheels are, with paths that are the same from everywhere on this machine."""
    for file in files:
        for line in _lines(file):
            try:
                words = shlex.split(_WITH_VALUE.sub(r"\1 ", line), comments=True)
            except ValueError:
                continue  # pip will say what is wrong with it
            if words and words[0] in _INDEX_OPTIONS:
                option, *values = words
                beside = [os.path.abspath(file.parent / v) for v in values if (file.parent / v).is_dir()]
                yield " ".join((option, *(beside or values)))


# --- locks ----------------------------------------------------------------------------------------------------------


def _kept_at(texts: list[Path], paths: Paths) -> Path:
    """Where the lock is, or would be: named by the files, this Python, and what p2premap itself allows."""
    said = ["\n".join(_lines(file)) for file in texts]
    said += sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("PIP_"))
    said += [sys.version, sys.platform, str(LOCK_VERSION), _own_bounds(), os.path.abspath(texts[0].parent)]
    return paths.state / "locks" / blake3("\0".join(said).encode()).hexdigest()


def _kept_lock(path: Path) -> Lock | None:
    with suppress(OSError, JobRejected):
        if time.time() - path.stat().st_mtime < LOCK_KEPT_S:
            return Lock.decode(path.read_bytes())
    return None


def _keep_lock(path: Path, lock: Lock) -> None:
    with suppress(OSError):  # it is resolved again the next time
        private_directory(path.parent)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_bytes(lock.encode())
        fresh.replace(path)


def _own_bounds() -> str:
    """The versions that p2premap itself can work with: workers run in the environment, too."""
    try:
        needed = metadata.requires("p2premap") or ()
    except metadata.PackageNotFoundError:
        raise JobRejected(f"No environment can be asked for: {pip.NOT_INSTALLED}.") from None
    lines = [line for line in needed if not _EXTRA.search(line)]
    return "\n".join((*lines, ""))


def _resolve(file: str, texts: list[Path], directory: str) -> Lock:
    """Download everything; what has been found.

    Raises:
        JobRejected: in pip's words.
    """
    if not pip.is_installed():
        raise JobRejected(f"{file} cannot be resolved: {pip.NO_PIP}.")
    bounds = Path(directory, "p2premap.txt")
    bounds.write_text(_own_bounds())
    command = pip.download(file, directory, constraints=str(bounds))
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if ended.returncode:
        said = pip.reason(f"{ended.stderr}\n{ended.stdout}").rstrip(".")
        raise JobRejected(f"{file} cannot be resolved: {said.replace('The user requested (constraint)', 'p2premap')}.")
    wheels = [_wheel(path) for path in sorted(Path(directory).glob("*.whl"))]
    lock = Lock(
        version=LOCK_VERSION,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        wheels=tuple(sorted(wheels, key=lambda wheel: wheel.name)),
        options=tuple(_index_options(texts)),
    )
    return Lock.decode(lock.encode())  # what nodes would refuse is refused here


def _wheel(path: Path) -> Wheel:
    data = path.read_bytes()
    return Wheel(
        name=path.name,
        digest=Digest(blake3(data).digest()),
        size=len(data),
        sha256=hashlib.sha256(data).digest(),
    )
