"""What attempts printed last, as the ledger keeps it for the time when the nodes that have their logs are gone.

The logs themselves stay where they were written (`p2premap.node.logs`). With the end of an attempt comes the tail of
what it printed: of one that failed as a part of what is told about that anyway (`FailureFact.detail`), of one that
yielded a result as a fact of its own, here. A job may print without end and its ledger may not grow so, hence the
first tails of a job are kept, `WORDS_BYTES_MAX` of them; once it is over, the last of these, `KEPT_BYTES_MAX`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from p2premap.ids import NodeId
from p2premap.tasks.job import AttemptEnd, Outcome, StageId

WORDS_BYTES_MAX: Final = 256 << 10
KEPT_BYTES_MAX: Final = 16 << 10
CHARACTERS_MAX: Final = 1_000
"""Of one attempt."""
ENTRY_BYTES: Final = 128
"""What an entry costs beside its text."""


class Words(NamedTuple):
    """The end of what one attempt printed that yielded a result."""

    stage: StageId
    task: int
    attempt: int
    node: NodeId
    text: str


class LastWords:
    """Those of a job."""

    def __init__(self) -> None:
        self._texts: dict[tuple[StageId, int, int, NodeId], str] = {}
        self._left = WORDS_BYTES_MAX

    def __iter__(self) -> Iterator[Words]:
        return (Words(*key, text) for key, text in self._texts.items())

    def __bool__(self) -> bool:
        return bool(self._texts)

    def of(self, stage: StageId, task: int, attempt: int, node: NodeId) -> str:
        """Of one attempt; "" if none are kept."""
        return self._texts.get((stage, task, attempt, node), "")

    def take(self, words: Words) -> bool:
        """Keep these. False: they are known, or there is no room for more."""
        key = words[:4]
        cost = _cost(words.text)
        if key in self._texts or cost > self._left:
            return False
        self._texts[key] = words.text
        self._left -= cost
        return True

    def last(self, bytes_max: int) -> list[Words]:
        """The latest first."""
        found, left = [], bytes_max
        for words in reversed(list(self)):
            left -= _cost(words.text)
            if left < 0:
                break
            found.append(words)
        return found


def words_of(stage: StageId, node: NodeId, end: AttemptEnd) -> Words | None:
    """What an attempt that yielded a result printed last; None: nothing."""
    if not end.detail or end.outcome is not Outcome.DONE:
        return None
    return Words(stage, end.task, end.attempt, node, end.detail[-CHARACTERS_MAX:])


def _cost(text: str) -> int:
    return ENTRY_BYTES + len(text.encode(errors="replace"))
