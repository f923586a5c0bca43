"""Who looks at a world, and what is raised where something is seen that must never be."""

from __future__ import annotations

from typing import Protocol

from p2premap.sim.machines import Seat


class InvariantBroken(AssertionError):
    """A checker found what must never be.

    Args:
        checker: its name: planted bugs are recognised by it.
        text: one sentence with the facts.
        at: virtual seconds.
        replay: the command that shows it again.
        tail: what happened last at the node concerned.
    """

    def __init__(self, checker: str, text: str, *, at: float, replay: str, tail: str = "") -> None:
        super().__init__(f"{checker}: {text} (at {at:.3f} s)\nreplay: {replay}\n{tail}")
        self.checker = checker
        self.text = text
        self.at = at


class Observer(Protocol):
    """Sees what happens; checkers are observers.

    Args:
        kinds: the effects that it wants to see.
    """

    kinds: tuple[type, ...]

    def effect(self, seat: Seat, effect: object) -> None:
        """A core asked for this."""

    def told(self, seat: Seat, event: object) -> None:
        """A core is about to be told this by the world's owner (not by the network)."""

    def fault(self, seat: Seat, word: str) -> None:
        """Something was done to a machine: "start", "crash", "off", "pause", "resume", "sleep", "left"...

        A process that ends is still there to be looked at.
        """
