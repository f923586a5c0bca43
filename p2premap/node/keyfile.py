"""The keyring on disk: the second line of the secret's file (`p2premap.node.secret`). No trio here.

Nodes of one user on one machine share the file. Each change is read, made and written under a lock, in one rename; a
node learns what another one has written when it reads the file again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from p2premap.errors import ConfigError
from p2premap.node import secret as secrets
from p2premap.node.keyring import Former, Keyring, Offer
from p2premap.ports import Randomness


class _Tail(msgspec.Struct):
    """What the second line says besides the secret's epoch and origin."""

    pending: tuple[Offer, ...] = ()
    former: tuple[Former, ...] = ()
    shut: tuple[str, ...] = ()


def load(config: Path) -> Keyring | None:
    """The keyring in the config directory; None where there is no secret.

    Raises:
        ConfigError: as `p2premap.node.secret.load`.
    """
    found = secrets.load_whole(config)
    if found is None:
        return None
    current, line = found
    try:
        tail = msgspec.json.decode(line or b"{}", type=_Tail)
        return Keyring(current, tail.pending, tail.former, tail.shut)
    except msgspec.ValidationError:
        raise ConfigError(
            f"{config / 'secret'} is damaged behind its first line; remove the second one, or restore the file."
        ) from None


def change(
    config: Path, before: Keyring, how: Callable[[Keyring], Keyring], randomness: Randomness = os.urandom
) -> Keyring:
    """Change the keyring on disk, and return it; on disk it is when this returns.

    Args:
        config: the user's config directory.
        before: what this node knows; where the file is of another cluster by now, nothing changes.
        how: may raise; then nothing has changed.

    Raises:
        ConfigError: it cannot be read or written.
    """
    with secrets.locked(config):
        stored = load(config)
        if stored is None or stored.current.place != before.current.place:
            return before  # this machine has left or joined another, and its node is about to begin anew
        changed = how(stored)
        if changed != stored:
            tail: dict[str, object] = {"pending": changed.pending, "former": changed.former, "shut": changed.shut}
            secrets.replace(config, changed.current, randomness, tail)
        return changed
