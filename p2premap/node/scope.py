"""Whether this user's cluster reaches beyond this machine: a file beside the secret, so that a restart remembers.

A node listens on loopback only until its user invites, joins or opens; from then on on every interface. The file
holds a line for each address that a join was told, for networks where multicast does not pass.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Final

from p2premap.errors import ConfigError
from p2premap.ids import Address
from p2premap.node.joins import parse_join
from p2premap.node.paths import Paths, private_directory

_FILE: Final = "network"
ADDRESSES_MAX: Final = 64


def is_open(paths: Paths) -> bool:
    """Whether the user has opened the cluster to the network before."""
    return (paths.config / _FILE).exists()


def addresses(paths: Paths) -> tuple[Address, ...]:
    """Where members were when this machine joined; lines that are none are passed over."""
    try:
        lines = (paths.config / _FILE).read_text().splitlines()[:ADDRESSES_MAX]
    except (OSError, UnicodeDecodeError):
        return ()
    found: list[Address] = []
    for line in lines:
        with contextlib.suppress(ConfigError):
            target = parse_join(line, default_port=0)
            found.append(Address(target.host, target.port))
    return tuple(found)


def remember_open(paths: Paths, members: Sequence[Address] | None = None) -> None:
    """From now on nodes start open to the network.

    Args:
        members: where members are, after a join; None leaves what is known.

    Raises:
        ConfigError: the config directory cannot be written.
    """
    path = private_directory(paths.config) / _FILE
    if members is None and path.exists():
        return
    aside = path.with_name(f"{_FILE}.{os.getpid()}")
    try:
        aside.write_text("".join(f"{address}\n" for address in (members or ())[:ADDRESSES_MAX]))
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}. Make its directory writable for you.") from None


def forget_open(paths: Paths) -> None:
    """From now on nodes start on loopback; never raises."""
    with contextlib.suppress(OSError):
        (paths.config / _FILE).unlink()
