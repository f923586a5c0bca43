"""What user code and the shuffle exchange: pairs; and what user code is told that must not be."""

from __future__ import annotations

from typing import Any

from p2premap.errors import P2PRemapError

Key = Any
Value = Any
Pair = tuple[Key, Value]


class JobCodeError(P2PRemapError):
    """User code did what a job file must not do. Definite: the same attempt elsewhere would end the same."""


def as_plain(thing: Value) -> Any:  # noqa: ANN401  (what users make)
    """A number or an array of numpy as Python's own; anything else as None. numpy itself is not imported for it."""
    if type(thing).__module__.partition(".")[0] != "numpy" or not hasattr(thing, "tolist"):
        return None
    return thing.tolist()


def in_json(thing: Value) -> Any:  # noqa: ANN401  (likewise)
    """For an encoder of JSON that does not know what this is.

    Raises:
        NotImplementedError: neither is there another way to say it.
    """
    if (plain := as_plain(thing)) is None:
        raise NotImplementedError(f"it is of type {type(thing).__qualname__}")
    return plain
