"""The base of what a core is told and of what it asks for.

A frozen msgspec struct, not a dataclass: a step makes several of them, and a struct is made in a third of the time;
and a daemon defines a hundred of them when it starts, each in a twentieth of the time.
"""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True):
    """An immutable value with named fields. Subclasses add ``frozen=True, kw_only=True``."""
