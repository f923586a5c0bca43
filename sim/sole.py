"""A job with one replica that answers at once: what is written is protected, what is proposed is decided."""

from __future__ import annotations

from collections import deque

from p2premap.tasks import events
from p2premap.tasks.coordinator import Coordinator


class Sole:
    """Stands in for the election room where only the coordinator is looked at.

    Attributes:
        decided: its cells.
        batches: its facts.
    """

    def __init__(self) -> None:
        self.decided: dict[str, bytes] = {}
        self.batches: list[bytes] = []

    def step(self, core: Coordinator, now: float, event: events.CoordinatorEvent) -> list[events.CoordinatorEffect]:
        """Have the coordinator take an event, and whatever follows from what it asks of its replicas.

        Returns:
            What else it wants, in order.
        """
        effects: list[events.CoordinatorEffect] = []
        waiting = deque([event])
        while waiting:
            for effect in core.step(now, waiting.popleft()):
                match effect:
                    case events.AppendFacts(batch=batch):
                        self.batches.append(batch)
                        waiting.append(events.FactsProtected(serial=len(self.batches)))
                    case events.ProposeCell(cell=cell, value=value):
                        decided = self.decided.setdefault(cell, value)
                        waiting.append(events.CellDecided(cell=cell, value=decided))
                    case _:
                        effects.append(effect)
        return effects
