"""Which blobs can be read now, and where: what the leader has observed of holders.

Not facts: a dead node may come back with its disk, and then holds again what it held.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2premap.ids import Digest, NodeId


class Locations:
    """Holders that are gone or doubtful, copies that could not be read, and copies made since.

    Args: none; `clear` is True as long as nothing has ever gone wrong, which spares every other question.
    """

    def __init__(self) -> None:
        self.clear = True
        self._gone: set[NodeId] = set()
        self._doubtful: set[NodeId] = set()
        self._unreadable: set[tuple[Digest, NodeId]] = set()
        self._made: dict[Digest, dict[NodeId, float]] = {}

    def lose(self, node: NodeId) -> None:
        """What it holds cannot be read."""
        self.clear = False
        self._gone.add(node)
        self._doubtful.discard(node)

    def doubt(self, node: NodeId) -> None:
        """What it holds may be readable again soon."""
        self.clear = False
        self._doubtful.add(node)

    def is_gone(self, node: NodeId) -> bool:
        """Whether what it holds counts as lost."""
        return node in self._gone

    def in_doubt(self, node: NodeId) -> bool:
        """Whether it may be dead or not."""
        return node in self._doubtful

    def trust(self, node: NodeId) -> None:
        """It is there (again), with its disk as far as anybody knows."""
        self._gone.discard(node)
        self._doubtful.discard(node)

    def unreadable(self, blob: Digest, node: NodeId) -> None:
        """The node lives, but somebody could not read the blob from it."""
        self.clear = False
        self._unreadable.add((blob, node))

    def made(self, now: float, blob: Digest, node: NodeId) -> None:
        """The node has (again) yielded this blob, whose first holders were told to others before."""
        self._unreadable.discard((blob, node))
        self._made.setdefault(blob, {})[node] = now

    def made_since(self, blob: Digest, when: float) -> bool:
        """Whether a copy was made later than `when`: who was told the holders before does not know of it."""
        return any(made > when for made in self._made.get(blob, {}).values())

    def known(self, blob: Digest, told: Iterable[NodeId]) -> list[NodeId]:
        """Every holder ever heard of that is not gone and not found unreadable, those made since last."""
        holders = dict.fromkeys((*told, *self._made.get(blob, ())))
        return [n for n in holders if n not in self._gone and (blob, n) not in self._unreadable]

    def readable(self, blob: Digest, told: Iterable[NodeId]) -> list[NodeId]:
        """Those of `known` that are beyond doubt."""
        return [n for n in self.known(blob, told) if n not in self._doubtful]
