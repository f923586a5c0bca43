"""The director of a kind that another package brings: what it raises is the job's trouble, and not its leader's.

A fault of p2premap's own has the leader step down for another one; that of a foreign director would only take it from
one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from p2premap.errors import JobError, JobFailed
from p2premap.ids import JobId, NodeId
from p2premap.tasks.director import Director, Extension, Lasting, Pinned, StagePlan, TaskInput, Tells, Unfolds
from p2premap.tasks.inputs import ReadsInputs
from p2premap.tasks.job import Part, Source, StageId

if TYPE_CHECKING:
    from p2premap.node.jobs import MakeDirector

T = TypeVar("T")


def make_director(kind: str, make: MakeDirector, /, *, job: JobId, home: NodeId, plan: bytes) -> Director:
    """A foreign kind's director.

    Raises:
        JobError: it cannot be made.
    """
    with _asked(kind):
        made = make(job=job, home=home, plan=plan)
    more = ((ReadsInputs, _Reads), (Unfolds, _Unfolds), (Lasting, _Lasting), (Tells, _Tells))
    bases = tuple(wrapper for protocol, wrapper in more if isinstance(made, protocol))
    wrapper: type[_Foreign] = type("_Wrapped", (*bases, _Foreign), {})
    return wrapper(kind, made)


@contextmanager
def _asked(kind: str) -> Iterator[None]:
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        # code of another package
        raise JobFailed(f"The module for jobs of kind {kind!r} failed: {type(error).__name__}: {error}.") from error


class _Foreign:
    """Hands everything on; see `p2premap.tasks.director.Director`. Each method raises JobError for what it raises."""

    def __init__(self, kind: str, made: Director) -> None:
        self._kind, self._made = kind, made
        with _asked(kind):
            self.runtime, self.planner, self.streams = str(made.runtime), str(made.planner), bool(made.streams)

    def _ask(self, ask: Callable[[], T]) -> T:
        with _asked(self._kind):
            return ask()

    def first(self) -> StagePlan:
        return self._ask(self._made.first)

    def next(self, number: int, results: Sequence[Pinned]) -> StagePlan | None:
        return self._ask(lambda: self._made.next(number, results))

    def task(self, stage: StageId, task: int) -> TaskInput:
        return self._ask(lambda: self._made.task(stage, task))

    def parts(self, task: int, result: Pinned) -> Sequence[Part]:
        return self._ask(lambda: tuple(self._made.parts(task, result)))

    def extend(self, payload: bytes) -> Extension:
        return self._ask(lambda: self._made.extend(payload))


class _Unfolds(_Foreign):
    """See `p2premap.tasks.director.Unfolds`."""

    def unfold(self, task: int, result: Pinned) -> bytes | None:
        made = self._made
        assert isinstance(made, Unfolds)
        return self._ask(lambda: made.unfold(task, result))


class _Reads(_Foreign):
    """See `p2premap.tasks.inputs.ReadsInputs`."""

    def __init__(self, kind: str, made: Director) -> None:
        super().__init__(kind, made)
        assert isinstance(made, ReadsInputs)
        self._reader: ReadsInputs = made
        self.home, self.input_bytes = made.home, made.input_bytes

    def input_files(self) -> Iterable[str]:
        return self._ask(lambda: tuple(self._reader.input_files()))

    def inputs(self) -> Iterable[Source]:
        return self._ask(lambda: tuple(self._reader.inputs()))

    def spread(self, holders: Sequence[NodeId]) -> None:
        self._ask(lambda: self._reader.spread(holders))


class _Lasting(_Foreign):
    """See `p2premap.tasks.director.Lasting`."""

    def meet(self, node: NodeId, name: str) -> bytes | None:
        made = self._made
        assert isinstance(made, Lasting)
        return self._ask(lambda: made.meet(node, name))

    def close(self, without: tuple[int, ...]) -> bytes:
        made = self._made
        assert isinstance(made, Lasting)
        return self._ask(lambda: made.close(without))


class _Tells(_Foreign):
    """See `p2premap.tasks.director.Tells`."""

    def tell(self) -> bytes:
        made = self._made
        assert isinstance(made, Tells)
        return self._ask(made.tell)
