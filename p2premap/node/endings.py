"""The ways in which a run of a node ends."""

from __future__ import annotations

import enum


class Ending(enum.Enum):
    """How a run of a node ended."""

    STOP = "stop"
    RESTART = "restart"
    """Begin again, under what is in the config directory now (a join, a leave)."""
    REOPEN = "reopen"
    """Begin again as what it was: what is on its disk has to be looked through anew."""
    NEW_IDENTITY = "new identity"
    """The identity is not safely this node's: begin again under another."""
