"""What a job requires of nodes, as users write it. Pure; loaded where a job requires anything.

A requirement is one line of text, so that it reads the same in a job file, on the command line and in a program; what
several of them say must all be there, and of the alternatives in one of them, divided by ``|``, any one::

    cpus 4                          so many CPUs for each attempt
    memory 8G                       so much memory for each attempt (powers of 1,000)
    gpu        gpu 2                so many GPUs for each attempt
    tag ssd                         a tag that the node's owner gave it (`p2premap node --tag`)
    python >=3.11,<3.13             the Python of its workers; `python 3.11` is any 3.11
    package numpy >=1.26            an installed distribution, of any version where none is said
    program ffmpeg | program avconv a program that the node finds on its PATH
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from p2premap.errors import JobRejected
from p2premap.tasks.placement import Need, Requirements, normal

REQUIREMENTS_MAX: Final = 64
ALTERNATIVES_MAX: Final = 16

_AMOUNTS: Final = ("cpus", "memory", "gpu")
_NAMED: Final = ("tag", "package", "program")
_FORM: Final = re.compile(r"([a-z]+)(?![a-z0-9_.-])\s*(?:=(?!=))?\s*(.*)", re.ASCII | re.DOTALL)
_SIZE: Final = re.compile(r"(?:>=?\s*)?(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_COUNT: Final = re.compile(r"(?:>?=\s*)?(\d{1,6})", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_BOUND: Final = re.compile(r"(==|!=|>=|<=|>|<|~=)?\s*(\d+(?:\.\d+){0,4}(?:\.\*)?)", re.ASCII)


def lines_of(requires: str | Sequence[str]) -> tuple[str, ...]:
    """What a user wrote, one line or several, where all of them are requirements.

    Raises:
        JobRejected: as `read`.
    """
    lines = (requires,) if isinstance(requires, str) else tuple(requires)
    read(lines)
    return lines


def read(lines: Iterable[str]) -> Requirements:
    """Requirements from their text.

    Raises:
        JobRejected: one sentence: which line is none, and what could be meant.
    """
    clauses = []
    for line in lines:
        alternatives = tuple(_need(part.strip(), line) for part in line.split("|"))
        if len(alternatives) > ALTERNATIVES_MAX:
            raise JobRejected(f"The requirement {line[:40]!r}... has more than {ALTERNATIVES_MAX} alternatives.")
        clauses.append(alternatives)
    if len(clauses) > REQUIREMENTS_MAX:
        raise JobRejected(f"{len(clauses)} requirements are more than {REQUIREMENTS_MAX}.")
    return Requirements(tuple(clauses))


def _need(text: str, line: str) -> Need:
    form = _FORM.fullmatch(text)
    kind, rest = (form[1], form[2].strip()) if form else ("", "")
    if kind in _AMOUNTS:
        return _amount(kind, rest, line)
    if kind == "python":
        bounds = _bounds(rest, line)
        if not bounds:
            raise _bad(line, "say a version, such as python >=3.11")
        return Need(f"python {rest}", kind, bounds=bounds)
    if kind in _NAMED:
        found = _NAME.match(rest)
        if found is None:
            raise _bad(line, f"say which {kind}")
        after = rest[found.end() :].strip()
        if after and kind != "package":
            raise _bad(line, f"a {kind} has a name and nothing more")
        name = normal(found[0]) if kind == "package" else found[0]
        return Need(f"{kind} {found[0]}{' ' * bool(after)}{after}", kind, name, bounds=_bounds(after, line))
    raise _bad(line, "it begins with none of cpus, memory, gpu, tag, python, package, program")


def _amount(kind: str, rest: str, line: str) -> Need:
    if kind == "memory":
        size = _SIZE.fullmatch(rest)
        amount = round(float(size[1]) * 1000.0 ** " kmgt".index((size[2] or " ").lower())) if size else 0
        if not amount:
            raise _bad(line, "say how much, such as memory 8G")
        return Need(f"memory {rest.lstrip('>= ')}", kind, amount=amount)
    count = _COUNT.fullmatch(rest or "1" * (kind == "gpu"))
    if count is None or not int(count[1]):
        raise _bad(line, f"say how many, such as {kind} 2")
    return Need(kind if kind == "gpu" and not rest else f"{kind} {count[1]}", kind, amount=int(count[1]))


def _bounds(text: str, line: str) -> tuple[tuple[str, str], ...]:
    if not text:
        return ()
    bounds = []
    for part in text.split(","):
        bound = _BOUND.fullmatch(part.strip())
        if bound is None or (bound[2].endswith(".*") and bound[1] not in ("==", "!=", None)):
            raise _bad(line, f"{part.strip()!r} is no version, such as >=1.26 or ==1.26.*")
        bounds.append((bound[1] or "", bound[2]))
    return tuple(bounds)


def _bad(line: str, why: str) -> JobRejected:
    return JobRejected(f"The requirement {line[:80]!r} is not understood: {why}.")
