"""Which nodes a job may run on: what it requires, what nodes have, who lacks what. Pure.

What is required for each attempt also bounds how many attempts of the job run on a node side by side: on 8 CPUs two
that need four. Other jobs are not counted. Versions are compared by their numbers; of a pre-release those of its
release count. How requirements are written is in `p2premap.tasks.requirements`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Final, NamedTuple

from p2premap.event import Event


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

_UNKNOWN: Final = "not known yet"


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
    """What a node lacks; empty where the job may run on it.

    What is not known yet is told only where nothing else keeps the job away.
    """
    found: list[Lack] = []
    unsure: list[Lack] = []
    for clause in requirements.clauses:
        has = [_has(need, facts) for need in clause]
        if all(has):
            lack = Lack(" | ".join(need.text for need in clause), ", ".join(dict.fromkeys(has)))
            (unsure if _UNKNOWN in has else found).append(lack)
    return tuple(found or unsure)


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
                return _UNKNOWN
            version = facts.packages.get(need.name)
            if version is None:
                return f"no {need.name}"
            return "" if _within(version, need.bounds) else f"{need.name} {version}"
        case _:
            if facts.programs is None:
                return _UNKNOWN
            return "" if need.name in facts.programs else f"no {need.name}"


def _within(version: str, bounds: Sequence[tuple[str, str]]) -> bool:
    release = _release(version)
    return not bounds or (bool(release) and all(_meets(release, *bound) for bound in bounds))


def _release(version: str) -> str:
    """The numbers that a version begins with: "1.5.0" of "1.5.0rc1"."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if digits:
            numbers.append(digits)
        if digits != part:
            break
    return ".".join(numbers)


def normal(name: str) -> str:
    """A distribution's name as it is compared (PEP 503)."""
    return "-".join(part for part in name.lower().replace("_", "-").replace(".", "-").split("-") if part)


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
