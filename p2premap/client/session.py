"""Handing a job in and bringing its output here, with whatever node happens to live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import msgspec

from p2premap.client.connection import Connection, RequestRefused
from p2premap.client.jobs import LOOK_S, Connect, follow, put_blob, read_part, submit
from p2premap.client.submission import Submission
from p2premap.control.answers import Trouble
from p2premap.control.nodes import ListNodes, Nodes, NodeView
from p2premap.errors import JobLost, NodeUnavailable, PeerUnreachable
from p2premap.ids import NOBODY, JobId, short
from p2premap.node import sockets
from p2premap.node.paths import Paths
from p2premap.tasks.job import JobView, Part

TRIES = 5
AGAIN_S = 0.3
KNOWN_S = 10.0
"""A job that nobody leads just now is soon led again, and then its parts are known."""


class Output(Protocol):
    """Where the parts go."""

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """Take one whole part, or nothing of it; return its size in bytes."""


@dataclass(frozen=True, slots=True)
class Strength:
    """What the cluster can do now.

    Args:
        slots: of all living nodes.
        one_machine: they are all on this one.
        pythons: that their workers run, such as "3.11".
    """

    slots: int
    one_machine: bool
    pythons: frozenset[str] = frozenset()


def strength(connection: Connection, paths: Paths | None = None) -> Strength:
    """Ask how many slots there are, and whether data would have to travel."""
    views: tuple[NodeView, ...] = connection.ask(lambda n: ListNodes(request=n), Nodes).views
    alive = [view for view in views if view.state == "alive"]
    directory = (paths or Paths.of_user()).runtime / connection.welcome.cluster
    here = {sockets.node_of(path) for path in sockets.listed(directory)}
    pythons = frozenset(".".join(view.python.split(".")[:2]) for view in alive if view.slots and view.python)
    return Strength(max(sum(view.slots for view in alive), 1), all(view.node in here for view in alive), pythons)


def renamed(submission: Submission, name: str) -> Submission:
    """The same job under another name."""
    return replace(submission, spec=msgspec.structs.replace(submission.spec, name=name[:255]))


def hand_in(connect: Connect, submission: Submission, *, again: bool = False) -> JobId:
    """Put a job's blobs and submit it, at another node where the first goes away: the key makes it one job.

    Args:
        again: it may have been handed in before.

    Raises:
        JobRejected: the job never existed.
        RequestRefused: the node cannot take it now.
        PeerUnreachable, NodeUnavailable: after a few tries.
    """
    for left in reversed(range(TRIES)):
        try:
            with connect() as connection:
                for _, blob in submission.blobs:
                    put_blob(connection, blob)
                return submit(connection, submission.spec, submission.files, again=again or left < TRIES - 1)
        except PeerUnreachable:
            if not left:
                raise
        time.sleep(AGAIN_S)
    raise AssertionError


class _Fetched(NamedTuple):
    digest: bytes
    size_bytes: int


@dataclass
class Collector:
    """Fetches each output part once, as soon as it is committed.

    Args:
        output: None where nobody wants them here.
        told: called after each part with how many parts and bytes are here.
        whole_parts: no part is broken off: who stops and soon comes back would begin a large one again and again.
    """

    connect: Connect
    output: Output | None
    told: Callable[[int, int], None] = lambda parts, size_bytes: None
    whole_parts: bool = False
    size_bytes: int = 0
    _here: dict[int, _Fetched] = field(default_factory=dict)

    def take(self, view: JobView, tick: Callable[[], None] = lambda: None) -> None:
        """Fetch what is new in this view, or has changed: a part that was lost may be made again with other bytes.

        While the job goes on, a part that cannot be had now is left for a later view: it may be being made again.

        Args:
            tick: called twice a second or so meanwhile, or between `whole_parts`; may raise to stop.

        Raises:
            JobLost: the job is over, and a part of it can be read from nobody.
            RequestRefused: the node that was asked cannot hand a part on, such as for a full disk.
        """
        if self.output is None:
            return
        with suppress(NodeUnavailable):  # then nobody hands out the parts after that, either
            for part in view.parts:
                if not self._has(part):
                    self._fetch(view, part, tick)
        missing = [part for part in view.parts if not self._has(part)]
        if missing and view.phase.over:
            raise JobLost(f"Part {missing[0].number} of the output can be read from no node.", job=view.job.hex())

    @property
    def parts(self) -> int:
        """How many parts are here."""
        return len(self._here)

    def _has(self, part: Part) -> bool:
        fetched = self._here.get(part.number)
        return fetched is not None and fetched.digest == part.source.digest

    def _fetch(self, view: JobView, part: Part, tick: Callable[[], None]) -> None:
        assert self.output is not None
        within: Callable[[], None] = (lambda: None) if self.whole_parts else tick
        for left in reversed(range(TRIES)):
            tick()
            try:
                with self.connect(tick=tick) as connection:
                    leader = None if view.leader == NOBODY else view.leader
                    pieces = read_part(connection, JobId(view.job), part.number, leader=leader, tick=within)
                    size_bytes = self.output.write(part, pieces)
            except PeerUnreachable:
                if not left:
                    return
            except RequestRefused as error:
                gone = error.trouble in (Trouble.NOT_FOUND, Trouble.UNREACHABLE)
                if gone and not (left and view.phase.over):
                    return
                if not left:
                    raise
            else:
                before = self._here.get(part.number)
                self._here[part.number] = _Fetched(part.source.digest, size_bytes)
                self.size_bytes += size_bytes - (before.size_bytes if before is not None else 0)
                self.told(len(self._here), self.size_bytes)
                return
            time.sleep(AGAIN_S)


def see_through(
    connect: Connect,
    job: bytes,
    collector: Collector,
    seen: Callable[[JobView], None],
    tick: Callable[[], None],
    *,
    known: bool = False,
    look_s: float = LOOK_S,
) -> JobView:
    """Follow a job to its end, fetching parts on the way; return its last view.

    Args:
        seen: called with every view.
        tick: called every `look_s` seconds or so; may raise to stop watching.
        known: see `follow`.
    """
    last: JobView | None = None
    for view in follow(connect, job, known=known, look_s=look_s):
        if view is not None:
            last = view
            seen(view)
            collector.take(view) if view.phase.over else collector.take(view, tick)
        if last is None or not last.phase.over:
            tick()
    assert last is not None
    return last


def whole_view(connect: Connect, job: bytes, tick: Callable[[], None] = lambda: None) -> JobView:
    """The job with all the parts that it has now.

    Args:
        tick: as of `see_through`.

    Raises:
        RequestRefused: no such job.
        JobLost: nobody can tell them now.
    """
    until = time.monotonic() + KNOWN_S
    for view in follow(connect, job):
        if view is not None and len(view.parts) == view.part_count:
            return view
        tick()
        if time.monotonic() > until:
            break
    raise JobLost(f"No node that answers can tell what parts the job {short(job)} has; try again.", job=job.hex())
