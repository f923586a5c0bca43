"""Which nodes a job may run on: what it requires, what nodes have, who lacks what. Pure.

A requirement is one line of text, so that it reads the same in a job file, on the command line and in a program; what
several of them say must all be there, and of the alternatives in one of them, divided by ``|``, any one::

    cpus 4                          so many CPUs for each attempt
    memory 8G                       so much memory for each attempt (powers of 1,000)
    gpu        gpu 2                so many GPUs for each attempt
    tag ssd                         a tag that the node's owner gave it (`p2premap node --tag`)
    python >=3.11,<3.13             the Python of its workers; `python 3.11` is any 3.11
    package numpy >=1.26            an installed distribution, of any version where none is said
    program ffmpeg | program avconv a program that the node finds on its PATH

What is for each attempt also bounds how many attempts of the job run on a node side by side: on 8 CPUs two that need
four. Other jobs are not counted. Versions are compared by their numbers; of a pre-release those of its release count.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from p2premap.errors import JobRejected
from p2premap.event import Event

REQUIREMENTS_MAX: Final = 64
ALTERNATIVES_MAX: Final = 16

_AMOUNTS: Final = ("cpus", "memory", "gpu")
_NAMED: Final = ("tag", "package", "program")
_FORM: Final = re.compile(r"([a-z]+)(?![a-z0-9_.-])\s*(?:=(?!=))?\s*(.*)", re.DOTALL)
_SIZE: Final = re.compile(r"(?:>=?\s*)?(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_COUNT: Final = re.compile(r"(?:>?=\s*)?(\d{1,6})")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_BOUND: Final = re.compile(r"(==|!=|>=|<=|>|<|~=)?\s*(\d+(?:\.\d+){0,4}(?:\.\*)?)")
_RELEASE: Final = re.compile(r"\d+(?:\.\d+)*")


class Facts(Event, frozen=True, kw_only=True):
    """What a node has.

    Args:
        packages: installed distributions by their normal name (PEP 503), with their versions; None: not known yet.
        programs: what it finds on its PATH; None: not known yet.
    """

    cpus: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    tags: tuple[str, ...] = ()
    python: str = ""
    packages: Mapping[str, str] | None = None
    programs: Container[str] | None = None


class Need(NamedTuple):
    """One alternative.

    Args:
        text: as it is shown.
        kind: "cpus", "memory", "gpu", "tag", "python", "package" or "program".
        name: of a tag, package or program.
        amount: of cpus, bytes or gpus.
        bounds: of a version: (operator, version).
    """

    text: str
    kind: str
    name: str = ""
    amount: int = 0
    bounds: tuple[tuple[str, str], ...] = ()


class Lack(NamedTuple):
    """A requirement that a node does not meet, and what it has instead."""

    requires: str
    has: str


class Requirements(NamedTuple):
    """All that a job requires: of each entry, one of its needs."""

    clauses: tuple[tuple[Need, ...], ...] = ()


NOTHING: Final = Requirements()


# --- reading --------------------------------------------------------------------------------------------------------


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


def normal(name: str) -> str:
    """A distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


# --- matching -------------------------------------------------------------------------------------------------------


def places(requirements: Requirements, facts: Facts, slots: int) -> int:
    """How many attempts may run side by side on a node; 0: it lacks something.

    Args:
        slots: worker processes that it offers.
    """
    for clause in requirements.clauses:
        slots = min(slots, max((_room(need, facts, slots) for need in clause if not _has(need, facts)), default=0))
    return slots


def lacks(requirements: Requirements, facts: Facts) -> tuple[Lack, ...]:
    """What a node lacks; empty where the job may run on it."""
    found = []
    for clause in requirements.clauses:
        has = [_has(need, facts) for need in clause]
        if all(has):
            found.append(Lack(" | ".join(need.text for need in clause), ", ".join(dict.fromkeys(has))))
    return tuple(found)


def _room(need: Need, facts: Facts, slots: int) -> int:
    match need.kind:
        case "cpus":
            return facts.cpus // need.amount
        case "memory":
            return facts.memory_bytes // need.amount
        case "gpu":
            return facts.gpus // need.amount
        case _:
            return slots


def _has(need: Need, facts: Facts) -> str:
    """What a node has instead of what is needed; "" where it has that."""
    match need.kind:
        case "cpus":
            return f"{facts.cpus} CPUs" if facts.cpus < need.amount else ""
        case "memory":
            return f"{facts.memory_bytes / 1e9:.1f} GB" if facts.memory_bytes < need.amount else ""
        case "gpu":
            return f"{facts.gpus or 'no'} GPU{'s' * (facts.gpus != 1)}" if facts.gpus < need.amount else ""
        case "tag":
            tags = f"tags {', '.join(facts.tags)}" if facts.tags else "no tags"
            return tags if need.name not in facts.tags else ""
        case "python":
            return "" if _within(facts.python, need.bounds) else f"Python {facts.python or 'unknown'}"
        case "package":
            if facts.packages is None:
                return "not known yet"
            version = facts.packages.get(need.name)
            if version is None:
                return f"no {need.name}"
            return "" if _within(version, need.bounds) else f"{need.name} {version}"
        case _:
            if facts.programs is None:
                return "not known yet"
            return "" if need.name in facts.programs else f"no {need.name}"


def _within(version: str, bounds: Sequence[tuple[str, str]]) -> bool:
    found = _RELEASE.match(version)
    return not bounds or (found is not None and all(_meets(found[0], *bound) for bound in bounds))


def _meets(version: str, operator: str, bound: str) -> bool:
    """Whether a release is within one bound (PEP 440's operators; none: this version or a longer one of it)."""
    wanted = _numbers(bound.removesuffix(".*"))
    starts = _padded(_numbers(version), len(wanted))[: len(wanted)] == wanted
    size = max(len(wanted), len(_numbers(version)))
    mine, theirs = _padded(_numbers(version), size), _padded(wanted, size)
    match operator:
        case "":
            return starts
        case "==":
            return starts if bound.endswith(".*") else mine == theirs
        case "!=":
            return not (starts if bound.endswith(".*") else mine == theirs)
        case ">=":
            return mine >= theirs
        case "<=":
            return mine <= theirs
        case ">":
            return mine > theirs
        case "<":
            return mine < theirs
        case _:
            return mine >= theirs and mine[: max(1, len(wanted) - 1)] == theirs[: max(1, len(wanted) - 1)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _padded(numbers: tuple[int, ...], size: int) -> tuple[int, ...]:
    return numbers + (0,) * (size - len(numbers))


# --- telling --------------------------------------------------------------------------------------------------------


def sentence(rows: Sequence[tuple[str, Lack]], shown_max: int = 3) -> str:
    """Who lacks what, as a part of a sentence.

    Args:
        rows: (node, what it lacks).
    """
    parts = [f"{name} lacks {lack.requires} (it has {lack.has})" for name, lack in rows[:shown_max]]
    more = len(rows) - shown_max
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def table(rows: Sequence[tuple[str, str, str]]) -> str:
    """Who lacks what, a line each.

    Args:
        rows: node, what it lacks, what it has.
    """
    lines = [("NODE", "LACKS", "HAS"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(f"{node.ljust(widths[0])}  {lack.ljust(widths[1])}  {has}".rstrip() for node, lack, has in lines)
