"""What the replicas of one job have of it, for a walk that looks at its coordinators alone.

Stands in for the election room at its most unhelpful: what is protected is never lost, and everything else may be, or
may come back later, as the contract allows (`p2premap.election.events`):

- A successor begins with what the former leader had when it began, the protected part of what that appended, and any
  contiguous part of what followed. The rest may turn up at a later takeover, after the facts of the leaders between.
- A leader of which nothing was protected may never have been, as far as its successor can see.
- A cell that was proposed and not decided may be decided later, or never. A successor may hear late of a decision.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from p2premap.tasks.ledger import FINAL_CELL


class _Term(NamedTuple):
    """One leader's time."""

    base: list[bytes]
    stream: list[bytes]
    protected: int
    strays: list[list[bytes]]


class Succession(NamedTuple):
    """How a leader begins.

    Args:
        decided: the cells that it knows.
        protected: batches of its predecessor's stream that no leader can lack.
        known: those of them that it has.
    """

    history: list[bytes]
    decided: dict[str, bytes]
    protected: int
    known: int


class Quorum:
    """One job's replicas.

    Args:
        random: chooses what they have.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self.base: list[bytes] = []
        self.stream: list[bytes] = []
        self.protected = 0
        self.chosen: dict[str, bytes] = {}
        self.open: dict[str, bytes] = {}
        """Proposed, and not known to the present leader as decided."""
        self.proposals: dict[str, bytes] = {}
        """What was proposed first, by any leader."""
        self._surviving: set[str] = set()
        self._strays: list[list[bytes]] = []
        self._before: _Term | None = None

    def append(self, batch: bytes) -> None:
        """The leader has facts."""
        self.stream.append(batch)

    def protect(self) -> int:
        """More of the stream has reached a quorum; up to which batch."""
        self.protected = self._random.randint(self.protected + 1, len(self.stream))
        return self.protected

    def propose(self, cell: str, value: bytes) -> str:
        """The leader proposes. Returns what is wrong with that, or ""."""
        first = self.proposals.setdefault(cell, value)
        if cell not in self._surviving:
            self.open[cell] = value
        if cell != FINAL_CELL and first != value:
            return f"{cell} is proposed again with another value"
        return ""

    def decide(self) -> tuple[str, bytes]:
        """One of the open cells is decided, or the leader hears that it is."""
        cell = self._random.choice(sorted(self.open))
        value = self.chosen.setdefault(cell, self.open.pop(cell))
        self._surviving.discard(cell)
        return cell, value

    def successor(self) -> Succession:
        """A new leader begins."""
        last = self.protected
        forgotten = self._before is not None and not self.protected and self._random.random() < 0.3
        if forgotten and self._before is not None:
            self.base, self.stream, self.protected, self._strays = self._before
        self._before = _Term(self.base, self.stream, self.protected, [list(stray) for stray in self._strays])
        known = self._random.randint(self.protected, len(self.stream))
        history = self.base + self.stream[:known]
        strays = []
        for stray in self._strays:
            more = self._random.randint(0, len(stray))
            history += stray[:more]
            strays.append(stray[more:])
        self._strays = [stray for stray in (*strays, self.stream[known:]) if stray]
        self.base, self.stream, self.protected = history, [], 0
        for cell in list(self.open):
            if cell not in self.chosen and self._random.random() < 0.5:
                del self.open[cell]
        decided = {cell: value for cell, value in self.chosen.items() if self._random.random() < 0.7}
        self.open.update((cell, value) for cell, value in self.chosen.items() if cell not in decided)
        self._surviving = set(self.open)
        return Succession(history, decided, last, 0 if forgotten else known)
