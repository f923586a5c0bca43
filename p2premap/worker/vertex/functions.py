"""Vertex programs in remap's form: two functions of a module, instead of a class.

::

    prepare(line)                                    -> (id, vertex), (id, vertex, edges); (None, None): no vertex
    compute(send, superstep, vertex, messages)       -> (vertex, halt)
    compute(send, subscribe, unsubscribe, superstep, vertex, messages)
                                                     -> (vertex, halt)

As in remap, `compute` is called for every vertex in every superstep, and the job ends with the first superstep in
which all of them say halt. A vertex that comes back as None stays as it was. Beyond remap: `send` takes a list of ids
as well, and `send.all(value)` sends along the edges that `prepare` gave.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

from p2premap.vertex.barrier import Globals, VertexError
from p2premap.vertex.program import STOP, Verdict, VertexProgram

_SHORT: Final = 4
_LONG: Final = 6


class FunctionProgram(VertexProgram):
    """A program of two functions.

    Args:
        prepare, compute: see above.

    Raises:
        VertexError: `compute` takes another number of arguments.
    """

    every = True

    def __init__(self, prepare: Callable[[str], Any], compute: Callable[..., Any]) -> None:
        self._prepare = prepare
        count = _arity(compute)
        if count not in (_SHORT, _LONG):
            raise VertexError(
                f"compute takes {count} arguments: it must take {_SHORT} (send, superstep, vertex, messages) or "
                f"{_LONG} (send, subscribe, unsubscribe, superstep, vertex, messages)."
            )
        self._called = compute
        self.compute = self._compute_short if count == _SHORT else self._compute_long  # type: ignore[method-assign]

    def prepare(self, line: str) -> Sequence[Any] | None:
        """See `VertexProgram`."""
        found = self._prepare(line)
        if found is None or (isinstance(found, tuple) and found and found[0] is None):
            return None
        return found  # type: ignore[no-any-return]

    def master(self, now: Globals) -> Verdict | None:
        """The job ends when all have halted in one superstep, whatever mail is under way."""
        return None if now.active else STOP

    def _compute_short(self, ctx: Any, vertex: Any, messages: Sequence[Any]) -> None:  # noqa: ANN401  (see there)
        value, halt = self._called(ctx.send, ctx.superstep, vertex.value, messages)
        if value is not None:
            vertex.value = value
        if halt:
            ctx.halt()

    def _compute_long(self, ctx: Any, vertex: Any, messages: Sequence[Any]) -> None:  # noqa: ANN401  (see there)
        value, halt = self._called(ctx.send, ctx.subscribe, ctx.unsubscribe, ctx.superstep, vertex.value, messages)
        if value is not None:
            vertex.value = value
        if halt:
            ctx.halt()


def _arity(compute: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(found.kind in kinds for found in inspect.signature(compute).parameters.values())


def program_of(module: ModuleType) -> FunctionProgram:
    """The program that a module's functions `prepare` and `compute` are.

    Raises:
        VertexError: it does not have both, or `compute` takes another number of arguments.
    """
    prepare, compute = getattr(module, "prepare", None), getattr(module, "compute", None)
    if not (callable(prepare) and callable(compute)):
        raise VertexError("The job file has no functions prepare and compute once it is imported.")
    return FunctionProgram(prepare, compute)
