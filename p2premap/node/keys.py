"""What one running node shows and understands of its cluster's secrets, now: the keyring on disk, its own
certificates under each, and the TLS contexts for them.

Everything that speaks for the cluster (transport, inviter, search) asks here, and is told when the secret changes.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from p2premap.errors import ConfigError
from p2premap.ids import NodeId
from p2premap.node import identity as identities
from p2premap.node import keyfile, keyring, tls
from p2premap.node.certificates import Credentials
from p2premap.node.identity import Identity
from p2premap.node.keyring import Keyring, Offer
from p2premap.node.secret import ClusterSecret

Told: TypeAlias = Callable[[Sequence[NodeId] | None], None]
"""Hears who is a member still, where somebody was evicted; else None. Sync."""

log = logging.getLogger(__name__)


class Face(msgspec.Struct, frozen=True):
    """How this node looks under one secret.

    Args:
        tag: the secret's.
        server_name: what it says to whom it dials.
        credentials: issued under it.
        client_context, server_context: show these, and ask the other end for the like.
    """

    tag: str
    server_name: str
    credentials: Credentials
    client_context: ssl.SSLContext
    server_context: ssl.SSLContext


def _face_of(credentials: Credentials, tag: str) -> Face:
    """A face.

    Raises:
        ConfigError: no temporary file can be written.
    """
    return Face(
        tag, tls.server_name(tag), credentials, tls.client_context(credentials), tls.server_context(credentials)
    )


class Keys:
    """One node's keys.

    Args:
        identity: its own.
        secret: under which its identity was claimed.
        config: the user's config directory, where the keyring is; None for a keyring of this one secret.
        wall_s: seconds since 1970.
    """

    def __init__(
        self, *, identity: Identity, secret: ClusterSecret, config: Path | None, wall_s: Callable[[], float]
    ) -> None:
        self._identity, self._config, self._wall_s = identity, config, wall_s
        self._claimed = secret.tag
        stored = keyfile.load(config) if config is not None and not secret.open_name else None
        self.ring = stored if stored is not None and stored.current == secret else Keyring(secret)
        self._faces: dict[str, Face] = {}
        self._told: list[Told] = []

    @property
    def secret(self) -> ClusterSecret:
        """The cluster's present one."""
        return self.ring.current

    @property
    def face(self) -> Face:
        """The one for the present secret."""
        return self._face(self.secret.tag)

    def on_change(self, told: Told) -> None:
        """Have somebody told, in order, whenever `secret` and `face` have become others."""
        self._told.append(told)

    def understood(self, tag: str) -> Face | None:
        """The face for somebody who speaks under this secret, if it is one that is understood now.

        That is the present one, one that is prepared, or one that was the cluster's a while ago. Where a connection has
        been made under a secret, this is asked again before it is used: somebody may have been evicted meanwhile.
        """
        return self._face(tag) if tag in self._known() else None

    @property
    def secrets(self) -> tuple[ClusterSecret, ...]:
        """All that are understood now, the present one first."""
        return tuple(secret for tag in self._known() if (secret := self.ring.secret_of(tag)) is not None)

    def others(self) -> tuple[Face, ...]:
        """The faces for all such secrets, those that are prepared first."""
        return tuple(self._face(tag) for tag in self.ring.understood(self._wall_s()))

    def _known(self) -> tuple[str, ...]:
        return self.secret.tag, *self.ring.understood(self._wall_s())

    def _face(self, tag: str) -> Face:
        if (face := self._faces.get(tag)) is None:
            face = self._faces[tag] = _face_of(self._credentials(tag), tag)
        return face

    def _credentials(self, tag: str) -> Credentials:
        if tag == self._claimed:
            return self._identity.credentials
        secret = self.ring.secret_of(tag)
        assert secret is not None, "asked for what is in the keyring"
        return identities.credentials(self._identity, secret)

    # --- changes ----------------------------------------------------------------------------------------------------

    def prepare(self, offer: Offer) -> None:
        """Understand a new secret too; it is on disk when this returns.

        Raises:
            RotationRefused, ConfigError: not.
        """
        self._change(lambda ring: keyring.prepare(ring, offer, self._wall_s()))

    def drop(self, tag: str) -> None:
        """A prepared secret was given up.

        Raises:
            ConfigError: it cannot be written.
        """
        self._change(lambda ring: keyring.drop(ring, tag))

    def switch(self, tag: str) -> None:
        """A prepared secret is decided.

        Raises:
            ConfigError: it cannot be written; nothing has changed.
        """
        self._change(lambda ring: keyring.switch(ring, tag, self._wall_s()))

    def take(self, secret: ClusterSecret) -> None:
        """A member gives this node, which was away, the present secret.

        Raises:
            ConfigError: it cannot be written; nothing has changed.
        """
        self._change(lambda ring: keyring.take(ring, secret, self._wall_s()))

    def proved(self, tag: str) -> None:
        """Somebody has proved to speak under this secret: if it was prepared here, it is decided. Never raises."""
        if self.ring.is_pending(tag):
            try:
                self.switch(tag)
            except ConfigError as error:
                log.warning("the rotation of the cluster's secret waits: %s", error)

    def look(self) -> bool:
        """Read the file again, which another node of this machine may have changed; whether it has."""
        before = self.secret.tag
        try:
            self._change(lambda ring: ring)
        except ConfigError as error:
            log.warning("the cluster's secret cannot be read again: %s", error)
        return self.secret.tag != before

    def entitled(self, tag: str, node: NodeId) -> bool:
        """Whether the present secret is given to this node, which speaks under a former one."""
        return keyring.entitled(self.ring, tag, node, self._wall_s())

    def _change(self, how: Callable[[Keyring], Keyring]) -> None:
        before = self.ring
        if self._config is not None and not before.current.open_name:
            after = keyfile.change(self._config, before, how)
        else:
            after = how(before)
        self.ring = after
        self._faces = {tag: face for tag, face in self._faces.items() if after.secret_of(tag) is not None}
        if after.current.tag != before.current.tag:
            log.info("the cluster's secret is number %d now", after.current.epoch)
            members = _members(before, after)
            for told in self._told:
                told(members)


def _members(before: Keyring, after: Keyring) -> Sequence[NodeId] | None:
    """Who is a member still, where somebody was evicted: as far as is known here. None where nobody was."""
    if after.secret_of(before.current.tag) is not None:
        return None
    # another node of this machine may have been asked alone; then who is none is not known, and everybody comes anew
    return next((offer.listed for offer in before.pending if offer.secret == after.current), ())
