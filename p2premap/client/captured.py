"""What a function takes along when it is pickled by value: global variables of its script, variables around it.

A function is pickled once and then known by a number. Where one of these variables is bound to something else since, as
happens in a notebook, it is another function and is pickled again. What is changed within (a list that grew) is
not noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

from p2premap.client.locals import travelled

CAPTURED_MAX: Final = 256
_EMPTY: Final = object()


class Captured(NamedTuple):
    """A variable (of a namespace, or a cell where `name` is ""), and what it was bound to."""

    where: Any
    name: str
    value: object

    def is_the_same(self) -> bool:
        """Whether it still is."""
        return (self.where.get(self.name, _EMPTY) if self.name else _of_cell(self.where)) is self.value


def captured(function: object) -> tuple[Captured, ...]:
    """The variables of a function, and of others of its script that it names; none of one that workers import."""
    found: dict[tuple[int, str], Captured] = {}
    waiting = [function]
    while waiting and len(found) < CAPTURED_MAX:
        one = waiting.pop()
        if not isinstance(one, FunctionType) or not _by_value(one):
            continue
        for cell in one.__closure__ or ():
            found.setdefault((id(cell), ""), Captured(cell, "", _of_cell(cell)))
        for name in _names(one.__code__):
            value = one.__globals__.get(name, _EMPTY)
            if value is not _EMPTY and (id(one.__globals__), name) not in found:
                found[id(one.__globals__), name] = Captured(one.__globals__, name, value)
                waiting.append(value)
    return tuple(found.values())


def _by_value(function: FunctionType) -> bool:
    module = function.__module__
    return module == "__main__" or not isinstance(module, str) or module in travelled.late


def _of_cell(cell: Any) -> object:  # noqa: ANN401  (types.CellType says nothing of what is in it)
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals, and of attributes, which do no harm; those in functions within it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
