"""Where a node keeps things: config, state and runtime directories. No trio here: the CLI uses it too.

::

    config   $XDG_CONFIG_HOME/p2premap/           secret (0600), open names
    state    $XDG_STATE_HOME/p2premap/<cluster>/<machine>/<node>/     blobs, node.db, logs, identity
    runtime  $XDG_RUNTIME_DIR/p2premap/<cluster>/   one Unix socket a node, 0700

`<cluster>` is the cluster's public tag, `<machine>` a hash of the machine id: labs share home directories.
P2PREMAP_HOME, where set, replaces all three (config/, state/, run/ under it): tests, several clusters of one user.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec

from p2premap.errors import ConfigError

LOCK_NAME = "p2premap.lock"
"""In an environment that was made for a job: the lock that it was made from."""
LINKS_NAME = "p2premap-links"
"""In such an environment: the directory in which p2premap and what it depends on are found."""
UNIX_PATH_BYTES_MAX = 100
"""Unix socket paths end at 104 (macOS) or 108 bytes (Linux)."""


class Paths(msgspec.Struct, frozen=True):
    """The three roots. Directories are made when first asked for, mode 0700."""

    config: Path
    state: Path
    runtime: Path

    @classmethod
    def of_user(cls) -> Paths:
        """The current user's directories.

        Raises:
            ConfigError: P2PREMAP_HOME is too long a path for the sockets in it.
        """
        if home := os.environ.get("P2PREMAP_HOME"):
            root = Path(home).absolute()
            if len(os.fsencode(root)) > UNIX_PATH_BYTES_MAX - 50:
                raise ConfigError(f"P2PREMAP_HOME={root} is too long for Unix sockets in it; choose a shorter path.")
            return cls(root / "config", root / "state", root / "run")
        import platformdirs  # 10 ms that a node under P2PREMAP_HOME does not pay

        return cls(
            Path(platformdirs.user_config_dir("p2premap", appauthor=False)),
            Path(platformdirs.user_state_dir("p2premap", appauthor=False)),
            _runtime_root(),
        )

    def sockets(self, cluster: str) -> Path:
        """The directory of this cluster's sockets on this machine, made if need be."""
        return private_directory(self.runtime / cluster)

    def nodes(self, cluster: str) -> Path:
        """The directory that holds a directory for each of this machine's nodes in this cluster."""
        return private_directory(self.state / cluster / machine_hash())


def _runtime_root() -> Path:
    """A directory on local disk that only this user can enter, the same in every session of the user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK) and len(os.fsencode(runtime)) < UNIX_PATH_BYTES_MAX - 60:
        return Path(runtime) / "p2premap"
    return Path("/tmp") / f"p2premap-{os.getuid()}"  # noqa: S108  (checked for owner and mode below)


def private_directory(path: Path) -> Path:
    """`path`, made with mode 0700 if need be.

    Raises:
        ConfigError: it cannot be made, or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"Cannot use the directory {path}: {error.strerror}. Make it writable for you.") from None
    if status.st_uid != os.getuid():
        raise ConfigError(f"The directory {path} belongs to another user; remove it or set P2PREMAP_HOME.")
    return path


def machine_hash() -> str:
    """16 hexadecimal digits that differ from machine to machine, and tell nothing about it."""
    import hashlib  # these two cost a command 10 ms, and few commands come here

    for name in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text:
            break
    else:
        import uuid

        text = f"{uuid.getnode():x}/{socket.gethostname()}"
    return hashlib.sha256(b"p2premap machine " + text.encode()).hexdigest()[:16]
