"""The runtime directory: one Unix socket a running daemon, named after its node id. No trio: the CLI reads it too.

A socket appears under its name only when it already listens (`publish` renames it into place), so whoever is refused
at it knows that its owner is dead, at once and without waiting. A directory is one cluster's: two clusters of one
user never meet in it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from p2premap.errors import ConfigError
from p2premap.ids import NODE_ID_BYTES, NodeId
from p2premap.node.paths import UNIX_PATH_BYTES_MAX

SUFFIX = ".sock"
BACKLOG = 128


def socket_path(directory: Path, node: NodeId) -> Path:
    """Where this node's control socket is."""
    return directory / f"{node.hex()}{SUFFIX}"


def node_of(path: Path) -> NodeId | None:
    """The node whose socket this is; None where the name is not one of ours."""
    try:
        node = bytes.fromhex(path.name.removesuffix(SUFFIX))
    except ValueError:
        return None
    return NodeId(node) if path.suffix == SUFFIX and len(node) == NODE_ID_BYTES else None


def listed(directory: Path) -> list[Path]:
    """The sockets in a directory, the oldest first. Some may be stale: ask them."""
    found: list[tuple[int, str, Path]] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if node_of(Path(entry.path)) is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.getuid():
                    found.append((status.st_mtime_ns, entry.name, Path(entry.path)))
    return [path for _, _, path in sorted(found)]


def publish(directory: Path, node: NodeId) -> socket.socket:
    """A listening socket under this node's name, mode 0600; a stale one of an earlier run is replaced.

    Raises:
        ConfigError: the path is too long, or the directory cannot be written.
    """
    path = socket_path(directory, node)
    # a name of its own until it listens: nobody may find a socket that refuses although its owner lives
    hidden = directory / f".{os.urandom(4).hex()}"
    if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
        raise ConfigError(f"{path} is too long for a Unix socket; set P2PREMAP_HOME to a shorter directory.")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(hidden))
        hidden.chmod(0o600)
        listener.listen(BACKLOG)
        hidden.rename(path)
    except OSError as error:
        listener.close()
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise ConfigError(f"Cannot make the control socket {path}: {error.strerror}.") from None
    return listener


def identity_of(path: Path) -> tuple[int, int] | None:
    """Which file is under this name now; None where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def remove_stale(path: Path, seen: tuple[int, int]) -> bool:
    """Remove a socket that refused, unless its node has come back in the meantime.

    Looking and unlinking cannot be one step, so the file is first moved aside, then looked at; what turns out to be
    a new socket goes back under its name, unless that is taken again.

    Args:
        path: the socket.
        seen: what `identity_of` said before the refused attempt.

    Returns:
        Whether the stale socket is gone.
    """
    aside = path.with_name(f".{os.urandom(4).hex()}")
    try:
        path.rename(aside)
    except OSError:
        return identity_of(path) is None
    stale = identity_of(aside) == seen
    with contextlib.suppress(OSError):
        if not stale:
            os.link(aside, path, follow_symlinks=False)
        aside.unlink()
    return stale


def unpublish(path: Path, mine: tuple[int, int] | None) -> None:
    """Remove this node's own socket at its end; one that a later run has put there stays."""
    if mine is not None and identity_of(path) == mine:
        remove_stale(path, mine)
