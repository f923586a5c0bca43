"""What the class of a vertex program in a job file says of itself, without running it."""

from __future__ import annotations

import ast
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence

from p2premap.client.bundle import Source, named_bases
from p2premap.errors import JobRejected
from p2premap.vertex.program import REQUIRED, ArrayProgram, VertexProgram


class Class:
    """The class that is the program.

    Args:
        file: as the user typed it.
        source: what is in it.
        chosen: by the user; "": nobody has.

    Raises:
        JobRejected: nobody knows which class is meant, or it lacks a method.
    """

    def __init__(self, file: str, source: Source, chosen: str) -> None:
        self.name = _chosen(file, source.programs, chosen)
        self.per_vertex = self.name in source.per_vertex
        self._form = VertexProgram if self.per_vertex else ArrayProgram
        self._lineage = _lineage(file, source.programs, self.name)
        self._whole = all(len(found.bases) == 1 for found in self._lineage)
        self._methods = {one.name: one for found in self._lineage[::-1] for one in found.body if isinstance(one, _DEF)}
        self._constants = ChainMap(*map(_constants, self._lineage))
        for method, call in REQUIRED[self._form.__name__].items():
            if self._whole and method not in self._methods and method not in self._stored():
                raise JobRejected(f"{file}: {self.name} has no method {method}: define {call}.")
            found = self._methods.get(method)
            if isinstance(found, ast.AsyncFunctionDef):
                raise JobRejected(f"{file}, line {found.lineno}: {method} is async; define it with a plain def.")
            if found is not None and (line := _yields(found)):
                raise JobRejected(f"{file}, line {line}: {method} yields, and nobody takes what; see docs/vertex.md.")

    @property
    def both(self) -> bool:
        """It sees edges from both ends."""
        return self._constants.get("view") in ("both", "simple")

    @property
    def weighted(self) -> bool:
        """It needs weights."""
        return self._constants.get("weighted") is True

    @property
    def prepares(self) -> bool:
        """It makes vertices of lines itself."""
        return self.per_vertex and "prepare" in self._methods

    def check_options(self, names: Iterable[str]) -> None:
        """Whether it has these options, as far as that can be seen.

        Raises:
            JobRejected: it has not.
        """
        stored = self._stored()
        for name in names:
            if self._whole and name not in stored and not hasattr(self._form, name):
                known = ", ".join(sorted(self._constants)) or "nothing"
                raise JobRejected(f"{self.name} has no option {name!r}; options are what its class sets: {known}.")

    def _stored(self) -> set[str]:
        """What anybody in these classes gives a value, in the body or in a method."""
        nodes = [node for found in self._lineage for node in ast.walk(found)]
        names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


_DEF = (ast.FunctionDef, ast.AsyncFunctionDef)


def _yields(found: ast.AST) -> int:
    """The line in which a function yields; 0: it does not."""
    for node in ast.iter_child_nodes(found):
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            return node.lineno
        if not isinstance(node, (*_DEF, ast.Lambda)) and (line := _yields(node)):
            return line
    return 0


def _chosen(file: str, programs: Mapping[str, ast.ClassDef], chosen: str) -> str:
    """The class from which no other derives, if there is one only, or which the user means."""
    if chosen in programs:
        return chosen
    above = {base for found in programs.values() for base in _above(found)}
    candidates = [name for name in programs if name not in above]
    if chosen or len(candidates) > 1:
        known = ", ".join(programs)
        raise JobRejected(f"{file} has the vertex programs {known}: say --option program=NAME with one of these.")
    if not candidates:
        raise _in_a_circle(file, programs)
    return candidates[0]


def _lineage(
    file: str, programs: Mapping[str, ast.ClassDef], name: str, below: tuple[str, ...] = ()
) -> Sequence[ast.ClassDef]:
    """A class and those of the same file that it derives from.

    Args:
        below: classes that derive from it, each from the next.
    """
    if name in below:
        raise _in_a_circle(file, below[below.index(name) :])
    found, below = programs[name], (*below, name)
    bases = (base for base in _above(found) if base in programs)
    return [found, *(above for base in bases for above in _lineage(file, programs, base, below))]


def _above(found: ast.ClassDef) -> list[str]:
    """What it derives from by name; one of its own name is what the file has imported under that."""
    return [base for base in named_bases(found) if base != found.name]


def _in_a_circle(file: str, names: Iterable[str]) -> JobRejected:
    """Two classes have one name, and one of them derives from the other by way of a third."""
    circle = " and ".join(names)
    return JobRejected(
        f"{file}: the vertex programs {circle} derive from each other: give each class a name of its own."
    )


def _constants(found: ast.ClassDef) -> dict[str, object]:
    """What a class's body sets to constants."""
    constants: dict[str, object] = {}
    for statement in found.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value))
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value))
            ):
                constants[name] = value
    return constants
