"""What a user may say of a vertex job beside its inputs, and whether it makes sense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from p2premap.errors import JobRejected
from p2premap.tasks.mapreduce_plan import WRITERS
from p2premap.vertex.loading import ADJACENCY, EDGES, INTEGERS, STRINGS
from p2premap.vertex.plan import DROP, SUPERSTEPS_MAX, UNKNOWN

AUTO: Final = "auto"
HASH: Final = "hash"
RANGE: Final = "range"
_TRUE: Final = {"": True, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a graph is read, partitioned, computed and written; by the names that ``--option`` takes, with _ for -.

    Args:
        format: "edges" or "adjacency".
        undirected: edges have no direction.
        weights: a number stands behind the two ids of an edge.
        ids: "int", "str", or "auto": as the first lines look.
        columns: of source, target and weight: numbers from 1, or names; (): the first ones.
        delimiter: between fields; "auto": as the first lines look.
        unknown: what mail to an id that does not exist does: "drop", "create" or "error".
        max_bad: so many lines that cannot be read are left out.
        supersteps: the job ends well after so many; 0: only by itself.
        supersteps_max: it fails where it has not ended after so many.
        checkpoint_every: supersteps from one checkpoint to the next; 0: by the clock.
        partition_by: "hash" or "range" of ids.
        writer: one of `p2premap.tasks.mapreduce_plan.WRITERS`.
        seed: of random numbers; "": another one each time.
    """

    format: str = EDGES
    undirected: bool = False
    weights: bool = False
    ids: str = AUTO
    columns: tuple[str, ...] = ()
    delimiter: str = AUTO
    unknown: str = DROP
    max_bad: int = 0
    supersteps: int = 0
    supersteps_max: int = SUPERSTEPS_MAX
    checkpoint_every: int = 0
    partition_by: str = HASH
    writer: str = "text"
    seed: str = ""


def check(wish: Wish) -> None:
    """Whether these go together.

    Raises:
        JobRejected: one sentence.
    """
    for name, value, known in (
        ("format", wish.format, (EDGES, ADJACENCY)),
        ("ids", wish.ids, (AUTO, INTEGERS, STRINGS)),
        ("unknown", wish.unknown, UNKNOWN),
        ("partition-by", wish.partition_by, (HASH, RANGE)),
        ("writer", wish.writer, WRITERS),
    ):
        if value not in known:
            raise JobRejected(f"{name} is {value!r}; say one of {', '.join(known)}.")
    if wish.format == ADJACENCY and (wish.weights or wish.columns):
        raise JobRejected("Adjacency lines have no weights and no columns: give a list of edges.")
    if wish.columns and len(wish.columns) != (3 if wish.weights else 2):
        what = "source, target and weight" if wish.weights else "source and target"
        raise JobRejected(f"columns names {len(wish.columns)} of them: name those of {what}, such as 1,2 or from,to.")
    if wish.supersteps_max < 1 or min(wish.supersteps, wish.checkpoint_every, wish.max_bad) < 0:
        raise JobRejected("supersteps, checkpoint-every and max-bad are numbers from 0 on, supersteps-max from 1 on.")


def wish_of(given: Mapping[str, str]) -> tuple[Wish, dict[str, str]]:
    """What ``--option`` said of a vertex job, and what is the program's own.

    Raises:
        JobRejected: a value makes no sense.
    """
    own = {name.replace("-", "_"): value for name, value in given.items()}
    known: dict[str, object] = {}
    for name in Wish.__slots__:
        if name in own:
            known[name] = _value(name, own.pop(name))
    return Wish(**known), own  # type: ignore[arg-type]


def _value(name: str, text: str) -> object:
    usual = getattr(Wish(), name)
    if isinstance(usual, bool):
        return _read(name, text, lambda t: _TRUE[t.lower()], "say yes or no")
    if isinstance(usual, int):
        return _read(name, text, int, "say a number")
    if isinstance(usual, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _read(name: str, text: str, read: Callable[[str], T], instead: str) -> T:
    try:
        return read(text)
    except (KeyError, ValueError):
        raise JobRejected(f"The option {name.replace('_', '-')} is {text!r}: {instead}.") from None
