"""What user code and the shuffle exchange: pairs; and what user code is told that must not be."""

from __future__ import annotations

from typing import Any

from p2premap.errors import P2PRemapError

Key = Any
Value = Any
Pair = tuple[Key, Value]


class JobCodeError(P2PRemapError):
    """User code did what a job file must not do. Definite: the same attempt elsewhere would end the same."""
