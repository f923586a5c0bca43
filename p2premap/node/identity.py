"""A node's own identity: an Ed25519 key, the id that is its hash, and how often the node has started.

::

    <state>/<cluster>/<machine>/<node id>/      one directory a node, mode 0700
        lock    held by flock(2) while the node runs: the next node on this machine takes the next directory
        key     32 bytes, mode 0600: the node's Ed25519 seed
        boot    its last starts, one a line, this one last; on disk before the node speaks
        tls     cached: the CA and this node's leaf, PEM
        name    what its owner has called it, where he has

A free directory is taken again at each start, so that a node keeps its id, its finished work and its place in jobs:
the one of its name, where it is started with one; else the first that has none. An id that is not safely ours (its
starts are lost or older than peers remember, or it is alive elsewhere) is set aside for good, with everything in it,
and a new one begun.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from p2premap.errors import ConfigError
from p2premap.ids import BOOT_BITS, NODE_ID_BYTES, Boot, NodeId, next_boot, starts_of
from p2premap.node.certificates import KEY_BYTES, Credentials, issue, node_id, public_key
from p2premap.node.paths import Paths, private_directory
from p2premap.node.secret import ClusterSecret
from p2premap.ports import Randomness

_NETWORK_FILESYSTEMS: Final = frozenset(
    (
        *("9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.glusterfs", "fuse.rclone"),
        *("fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2"),
        *("smb3", "smbfs", "webdav"),
    )
)
_PEM_END: Final = b"-----END CERTIFICATE-----\n"
_LINUX: Final = sys.platform == "linux"
_TICK_NS: Final = 1_000_000_000
"""What any file system can tell apart."""
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
PEERS: Final = "node.db"
"""In a node's directory: what it remembers that may be lost without harm, see `p2premap.node.store`."""
NAME: Final = "name"
BOOTS_MAX: Final = 32
"""Starts that a node remembers."""
NODES_MAX: Final = 256
"""Directories looked at on one machine: beyond this somebody starts nodes in a loop."""


class Identity(msgspec.Struct, frozen=True):
    """Who this node is, from `claim` on.

    Args:
        node: its id.
        boot: which of its starts this is.
        directory: its own, locked until the process ends or `release`.
        credentials: what it shows to peers.
        lock: the descriptor that holds the lock; not inherited by worker processes.
        name: for people.
        former: its last starts before this one, the oldest first.
    """

    node: NodeId
    boot: Boot
    directory: Path
    credentials: Credentials
    lock: int
    name: str = "node"
    former: tuple[Boot, ...] = ()

    def __repr__(self) -> str:
        return f"<Identity {self.node.hex()} start {starts_of(self.boot)}>"

    def release(self) -> None:
        """Let another process take this identity; call it once, when the node has ended."""
        os.close(self.lock)


def state_paths(paths: Paths, filesystem: Callable[[Path], str] | None = None) -> tuple[Paths, str]:
    """The paths with the state on local disk, and a sentence where it had to move there ("" where not).

    SQLite's WAL needs shared memory, which no network file system gives; file locks do not hold there either.

    Args:
        paths: the user's.
        filesystem: tells the type of the file system under a path; by default the system is asked.
    """
    kind = (filesystem or _filesystem)(paths.state)
    if kind not in _NETWORK_FILESYSTEMS:
        return paths, ""
    who = hashlib.sha256(os.fsencode(paths.state)).hexdigest()[:8]
    local = Path("/var/tmp") / f"p2premap-{os.getuid()}" / who  # noqa: S108  (0700, its owner is checked)
    private_directory(local.parent)
    sentence = f"{paths.state} is on a network file system ({kind}); this node keeps its data in {local}."
    return msgspec.structs.replace(paths, state=local), sentence


def _filesystem(path: Path) -> str:
    """The type of the file system that holds `path`, or will hold it once it is made; "" where nobody knows."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return filesystem_in(path.resolve(), _mounts())


def _mounts() -> list[tuple[Path, str]]:
    """(mount point, type) of everything mounted; the later hides the earlier."""
    if _LINUX:
        # proc(5): device, mount point with octal escapes for blanks, type, ...
        lines = Path("/proc/self/mounts").read_bytes().splitlines()
        fields = [line.split(b" ") for line in lines]
        return [(Path(os.fsdecode(_OCTAL.sub(_unescape, f[1]))), os.fsdecode(f[2])) for f in fields if len(f) > 2]
    import psutil  # 30 ms and 3 MB that a node on Linux does not pay

    return [(Path(m.mountpoint), m.fstype) for m in psutil.disk_partitions(all=True)]


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])


def filesystem_in(path: Path, mounts: Iterable[tuple[Path, str]]) -> str:
    """Of (mount point, type), the type of the one that holds `path`: the longest; of two equal, the later."""
    best, kind = -1, ""
    for point, fstype in mounts:
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fstype
    return kind


def claim(
    paths: Paths, secret: ClusterSecret, randomness: Randomness = os.urandom, *, name: str = "", host: str = "node"
) -> Identity:
    """Take a free identity of this machine in the cluster, or make one; this is a new start of it.

    Args:
        paths: with the state on local disk (see `state_paths`).
        secret: the cluster's.
        randomness: for a new key, and for each start.
        name: what the owner calls the node; "": as before, or `host` with a number from the second such node on.
        host: what the machine calls itself.

    Raises:
        ConfigError: the state directory cannot be written, or is full.
    """
    root = paths.nodes(secret.place)
    try:
        for directory in _wanted(_existing(root), name):
            if (lock := _lock(directory)) is not None:
                if (identity := _resume(directory, lock, secret, randomness)) is not None:
                    return _called(identity, name, host)
                os.close(lock)
        return _called(_make(root, secret, randomness), name, host)
    except OSError as error:
        raise ConfigError(
            f"Cannot keep this node's identity in {root}: {error.strerror}. Free some space or make it writable."
        ) from None


def take_new(paths: Paths, secret: ClusterSecret, old: Identity, randomness: Randomness = os.urandom) -> Identity:
    """Another identity, because `old` is not safely this node's; its directory is kept aside as evidence.

    The new one knows the peers that the old one knew: where multicast is blocked it would find nobody otherwise.

    Raises:
        ConfigError: the state directory cannot be written, or is full.
    """
    try:
        aside = _set_aside(old.directory)
        os.close(old.lock)
        new = _make(paths.nodes(secret.place), secret, randomness)
        for file in (PEERS, NAME):
            with contextlib.suppress(OSError):
                shutil.copyfile(aside / file, new.directory / file)
        return msgspec.structs.replace(new, name=old.name)
    except OSError as error:
        raise ConfigError(f"Cannot make a new identity in {old.directory.parent}: {error.strerror}.") from None


def credentials(identity: Identity, secret: ClusterSecret) -> Credentials:
    """What this node shows under another secret of its cluster; nothing is written.

    Raises:
        ConfigError: its key cannot be read any more.
    """
    try:
        return issue(secret, (identity.directory / "key").read_bytes())
    except OSError as error:
        raise ConfigError(f"Cannot read this node's key in {identity.directory}: {error.strerror}.") from None


def _existing(root: Path) -> list[Path]:
    """The nodes' directories, the oldest identity first."""
    found: list[tuple[int, str]] = []
    for path in root.iterdir():
        if len(path.name) == 2 * NODE_ID_BYTES and not path.is_symlink():
            with contextlib.suppress(OSError, ValueError):
                bytes.fromhex(path.name)
                found.append(((path / "key").stat().st_mtime_ns, path.name))
    return [root / name for _, name in sorted(found)[:NODES_MAX]]


def _wanted(existing: list[Path], name: str) -> list[Path]:
    """Those that a node of this name may take, the best first: never what belongs to another node of this machine."""
    given = {directory: _given(directory) for directory in existing}
    unnamed = [directory for directory in existing if not given[directory]]
    if not name:
        return [*unnamed, *(directory for directory in existing if given[directory])]
    own = [directory for directory in existing if given[directory] == name]
    return own + unnamed or existing[: len(existing) == 1]  # where there has only been one node, it has a new name now


def _given(directory: Path) -> str:
    """What the owner has called the node of this directory; "" where nothing."""
    try:
        return (directory / NAME).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _called(identity: Identity, name: str, host: str) -> Identity:
    """The same with its name, which is kept if the owner gave it."""
    directory = identity.directory
    before = _given(directory)
    if name and name != before:
        (directory / NAME).write_text(f"{name}\n")
    if not (name := name or before):
        unnamed = [other for other in _existing(directory.parent) if not _given(other)]
        number = 1 + unnamed.index(directory) if directory in unnamed else 1
        name = host if number == 1 else f"{host}-{number}"
    return msgspec.structs.replace(identity, name=name)


def _lock(directory: Path) -> int | None:
    """The lock of a node's directory; None where a running node holds it."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _resume(directory: Path, lock: int, secret: ClusterSecret, randomness: Randomness) -> Identity | None:
    """The identity in a locked directory; None (and the directory set aside) where it is damaged."""
    seed = (directory / "key").read_bytes()
    if len(seed) != KEY_BYTES or node_id(public_key(seed)).hex() != directory.name:
        _set_aside(directory)
        return None
    try:
        former = tuple(Boot(int(line)) for line in (directory / "boot").read_bytes().split())[-BOOTS_MAX:]
        boot = next_boot(former[-1], _drawn(randomness))
    except (FileNotFoundError, ValueError, IndexError):
        # without its starts the node might say again, differently, what it has said before
        _set_aside(directory)
        return None
    _write(directory / "boot", _lines(*former, boot))
    node, shown = NodeId(bytes.fromhex(directory.name)), _credentials(directory, secret, seed)
    return Identity(node, boot, directory, shown, lock, former=former)


def _drawn(randomness: Randomness) -> int:
    return int.from_bytes(randomness(BOOT_BITS // 8), "big")


def _lines(*boots: Boot) -> bytes:
    return b"".join(b"%d\n" % boot for boot in boots)


def _make(root: Path, secret: ClusterSecret, randomness: Randomness) -> Identity:
    """A new identity, complete and locked before its directory has a name that others look at."""
    seed = randomness(KEY_BYTES)
    node = node_id(public_key(seed))
    hidden = root / f".{node.hex()}"
    older = _existing(root)
    hidden.mkdir(mode=0o700)
    lock = _lock(hidden)
    assert lock is not None, "a new directory is already locked"
    boot = next_boot(Boot(0), _drawn(randomness))
    for name, content in (("key", seed), ("boot", _lines(boot))):
        _write_file(hidden / name, content)
    if older:
        _make_younger(hidden / "key", older[-1] / "key")
    credentials = _credentials(hidden, secret, seed)
    _sync(hidden)
    directory = root / node.hex()
    hidden.rename(directory)
    _sync(root)
    return Identity(node, boot, directory, credentials, lock)


def _make_younger(file: Path, other: Path) -> None:
    """Their times say which is the older: also if the clock was set back, or has not ticked since."""
    with contextlib.suppress(FileNotFoundError):
        least = other.stat().st_mtime_ns + _TICK_NS
        if file.stat().st_mtime_ns < least:
            os.utime(file, ns=(least, least))


def _credentials(directory: Path, secret: ClusterSecret, seed: bytes) -> Credentials:
    """The cached certificates, or new ones where there are none that fit."""
    path = directory / "tls"
    with contextlib.suppress(OSError, ValueError):
        first, key = path.read_bytes().split(b"\n", 1)
        ca, leaf, private = _parts(key)
        if first.decode() == hashlib.sha256(secret.value + seed + key).hexdigest():
            return Credentials(ca, leaf, private)
    made = issue(secret, seed)
    content = made.ca + made.leaf + made.key
    # what a power cut leaves of it is found out, and made anew
    digest = hashlib.sha256(secret.value + seed + content).hexdigest().encode()
    _write_file(path, digest + b"\n" + content, sync=False)
    return made


def _parts(content: bytes) -> tuple[bytes, bytes, bytes]:
    ca, leaf, key = content.split(_PEM_END)
    return ca + _PEM_END, leaf + _PEM_END, key


def _set_aside(directory: Path) -> Path:
    """Keep what is there under a name that `claim` never takes again."""
    names = (directory.with_name(f"{directory.name}.aside-{number}") for number in itertools.count())
    aside = next(path for path in names if not path.exists())
    return directory.rename(aside)


def _write(path: Path, content: bytes) -> None:
    """Replace a file of mode 0600; after a power cut it has the old content or the new."""
    temporary = path.with_name(f"{path.name}.new")
    _write_file(temporary, content)
    temporary.replace(path)
    _sync(path.parent)


def _write_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file of mode 0600; with `sync`, its content survives a power cut once its directory is synced."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        if sync:
            os.fsync(file)


def _sync(directory: Path) -> None:
    """Make a rename in the directory survive a power cut."""
    file = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
