"""Tasks that need results of others of the same stage: each is kept back until the last of these is there.

A task that is looked at too early waits for one of those that it lacks, the one with the highest number, as the others
will mostly be there by then; so each is looked at a few times, however many it needs.

What a successor of the leader may not know is a result that the program has been told of. If that task runs again and
yields something else, what followed it must not be made of the other one. So nothing that follows is handed out by a
successor before the program has spoken again: it withdraws what it has, which from then on counts as failed for what
follows, even if there is a result by now. And what a successor finds running, or is told of, counts only where it knows
a result of everything that it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

ATTEMPTS_A_TERM: Final = 1_000
"""A leader of term n numbers a task's attempts from n times this, so that those of two leaders never share one."""

_PROGRAM: Final = -1
"""In the place of a task: the program is to be heard first."""


class FollowUp:
    """The tasks of one stage that follow others.

    Attributes:
        after: each of them, and the tasks whose results it needs.
        unheard: another leader's stage: the program has not been heard since.
        withdrawn: tasks whose results the program has, from the time of another leader.
    """

    def __init__(self) -> None:
        self.after: dict[int, tuple[int, ...]] = {}
        self.unheard = False
        self.withdrawn: set[int] = set()
        self._waiting: dict[int, list[int]] = {}

    def must_wait(self, task: int, is_settled: Callable[[int], bool]) -> bool:
        """Whether the task cannot be handed out yet; then `ready` names it when it may be looked at again."""
        if (before := self.after.get(task)) is None:
            return False
        other = _PROGRAM if self.unheard else next((n for n in reversed(before) if not is_settled(n)), None)
        if other is None:
            return False
        self._waiting.setdefault(other, []).append(task)
        return True

    def first_lacking(self, task: int, is_settled: Callable[[int], bool]) -> int | None:
        """The first of the tasks that this one still waits for."""
        return next((other for other in self.after.get(task, ()) if not is_settled(other)), None)

    def ready(self, task: int) -> list[int]:
        """The task is settled: what has waited for it."""
        return self._waiting.pop(task, [])

    def heard(self, withdrawn: Iterable[int]) -> list[int]:
        """The program has spoken: what has waited for that."""
        self.unheard = False
        self.withdrawn.update(withdrawn)
        return self._waiting.pop(_PROGRAM, [])

    def is_orphan(self, task: int, attempt: int, result_of: Callable[[int], int | None]) -> bool:
        """Whether this attempt of the task was given what is not known here, or was begun before what is known.

        Args:
            result_of: the attempt whose result is chosen; None: there is no result.
        """
        term = attempt // ATTEMPTS_A_TERM
        results = map(result_of, self.after.get(task, ()))
        return any(other is None or other // ATTEMPTS_A_TERM > term for other in results)
