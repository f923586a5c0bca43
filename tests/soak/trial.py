"""One trial: a job on nodes of its own, a fault in the middle of it, and what came of both.

A case (`tests.soak.cases`) drives it; what must hold in every case is judged here. Nothing waits for ever: whatever
does not come in time is a violation, and so is whatever the trial itself stumbles over.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from p2premap.client.connection import PATIENCE_S, Connection
from p2premap.client.plan import plan_mapreduce
from p2premap.client.session import Collector, hand_in, see_through
from p2premap.control.jobs import JobUpdate, Watch
from p2premap.errors import NodeUnavailable, P2PRemapError
from p2premap.ids import JobId
from p2premap.tasks.job import JobOptions, JobView, Part, Phase
from tests.soak.nodes import Cluster, Node, wait_until
from tests.soak.work import Mark, Work

LOOK_S = 0.004
VIEW_S = 0.03
ASK_S = 5.0
COPYING = "inputs are still being copied"
"""What a job says as long as only the machine that it was started on has all of its inputs."""


class Hang(Exception):
    """Something that must come did not."""


class FaultMissed(Exception):
    """The fault came when the job was over: the trial proves nothing."""


@dataclass
class Before:
    """What was so just before the fault.

    Args:
        done, unprotected, unprotected_s: as the leader said last: tasks with a result, those of them that a quorum
            may not hold yet, and the age of the oldest of these.
        copies: nodes that could end the job alone.
    """

    leader: str
    done: int
    unprotected: int
    unprotected_s: float
    copies: int = 1


@dataclass
class Trial:
    """A running trial.

    Args:
        limit_s: for all of it.

    Attributes:
        facts: what is written to the results file.
        violations: sentences; empty for a trial that went well.
        victims: the nodes that the fault struck.
    """

    cluster: Cluster
    rng: Random
    work: Work
    limit_s: float
    facts: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    victims: list[Node] = field(default_factory=list)
    job: bytes = b""
    home: Node | None = None
    before: Before | None = None
    fault_at: float = 0.0
    over_at: float = 0.0
    last: JobView | None = None
    views: int = 0

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Its time begins: the nodes are up."""
        self.until = time.monotonic() + self.limit_s

    def any_node(self, but: Sequence[Node] = ()) -> Node:
        """One of the nodes, by the trial's own chance."""
        return self.rng.choice([node for node in self.cluster.nodes.values() if node not in but])

    # --- the job ----------------------------------------------------------------------------------------------------

    def submit(self, home: Node, options: JobOptions | None = None, *, elsewhere: bool = False) -> None:
        """Hand the job in at this node, which leads it from then on.

        Args:
            elsewhere: where this node does not answer (any more), at another.
        """
        self.home = home
        submission = plan_mapreduce(
            str(self.work.file),
            [str(self.work.text)],
            slots=self.work.slots_to_plan_for,
            partitions=self.work.reduces,
            options=options,
        )
        self.facts["tasks"] = submission.tasks + self.work.reduces

        def connect(*, patience_s: float = PATIENCE_S, tick: Callable[[], None] = lambda: None) -> Connection:
            try:
                return home.connect(patience_s=patience_s, tick=tick)
            except P2PRemapError:
                return self.cluster.connect(patience_s=patience_s, tick=tick)

        self.job = hand_in(connect if elsewhere else home.connect, submission)

    @property
    def tasks(self) -> int:
        """How many there are in all."""
        tasks = self.facts["tasks"]
        assert isinstance(tasks, int)
        return tasks

    def await_moment(self, least: float = 0.03, most: float = 0.95, *, copies: int = 0) -> None:
        """Wait for a random moment in the middle of the job; on the way, ask the leader how it is.

        Args:
            copies: and until so many nodes could end the job alone, as its leader says.

        Raises:
            Hang: the job does not come so far.
        """
        wanted = max(1, int(self.tasks * self.rng.uniform(least, most)))
        extra_s = self.rng.uniform(0.0, 0.06)
        self.facts["moment"] = wanted
        assert self.home is not None
        with self.home.connect() as line:
            asked_at = 0.0
            passed_at = 0.0
            while True:
                now = time.monotonic()
                if now - asked_at > VIEW_S:
                    asked_at = now
                    self._look(line)
                if not passed_at and self.work.ended() >= wanted and self._copied(copies):
                    passed_at = now
                if passed_at and now >= passed_at + extra_s:
                    return
                if now > self.until - self.limit_s / 2:
                    raise Hang(f"only {self.work.ended()} of {self.tasks} tasks ended in half of the time")
                time.sleep(LOOK_S)

    def _copied(self, copies: int) -> bool:
        return not copies or (self.before is not None and self.before.copies >= copies)

    def look_at(self, leader: Node) -> None:
        """Ask the leader how the job is."""
        with leader.connect() as line:
            self._look(line)

    def _look(self, line: Connection) -> None:
        view = self.view(line)
        done = sum(stage.done for stage in view.stages)
        copied = 1 if COPYING in view.note else view.copies
        self.before = Before(view.leader.hex(), done, view.unprotected, view.unprotected_s, copied)

    def view(self, line: Connection) -> JobView:
        """The job as a node tells it now."""
        return line.ask(lambda n: Watch(request=n, job=self.job, once=True), JobUpdate, timeout_s=ASK_S).view

    def leader(self) -> Node:
        """The node that led the job when it was asked last."""
        assert self.before is not None
        return self.cluster.by_id(self.before.leader)

    def struck(self, at: float, *victims: Node, gentle: bool = False) -> None:
        """The fault has happened, at this instant, to these nodes.

        Args:
            gentle: the job may go on, and end, until the victim is gone.

        Raises:
            FaultMissed: the job was over by now; or by that instant, of a gentle fault.
        """
        self.fault_at, self.victims = at, list(victims)
        ended = {mark.of for mark in self.work.told() if mark.what == "end" and (mark.at <= at or not gentle)}
        if len(ended) >= self.tasks:
            raise FaultMissed(f"all {self.tasks} tasks had ended")

    def see_through(self, *, but: Sequence[Node] = ()) -> JobView:
        """Follow the job to its end at nodes that live, and check its output.

        Raises:
            Hang: it does not end in time.
        """
        parts = Parts()
        connect = partial(self.cluster.connect, but=but)
        view = see_through(connect, JobId(self.job), Collector(connect, parts), self._seen, self.tick, known=True)
        self.over_at = time.monotonic()
        self.facts["seconds_after_fault"] = round(self.over_at - self.fault_at, 3)
        self.check(view.phase is Phase.DONE, f"the job is {view.phase.value}: {view.error}")
        if view.phase is Phase.DONE:
            wrong = self.work.wrong(parts.parts)
            self.check(not wrong, f"wrong result: {wrong}")
        return view

    def _seen(self, view: JobView) -> None:
        self.last = view
        self.views += 1

    def tick(self) -> None:
        if time.monotonic() > self.until:
            raise Hang(f"the job did not end within {self.limit_s:.0f} s; last seen: {described(self.last)}")

    def wait(self, true: Callable[[], bool], within_s: float, otherwise: str) -> float:
        """Wait for something that must come; seconds that it took.

        Raises:
            Hang: it did not.
        """
        start = time.monotonic()

        def asked() -> bool:
            with contextlib.suppress(P2PRemapError, NodeUnavailable):
                return true()
            return False

        try:
            wait_until(asked, min(start + within_s, self.until), otherwise)
        except TimeoutError as error:
            raise Hang(str(error)) from None
        return time.monotonic() - start

    def check(self, holds: bool, otherwise: str) -> None:
        """Note a violation unless this holds."""
        if not holds:
            self.violations.append(otherwise)

    # --- judgement --------------------------------------------------------------------------------------------------

    def judge(self, *, both_holders: bool = False) -> None:
        """What the marks tell: how long nothing started, and what ran again although it had ended before the fault.

        Args:
            both_holders: so many nodes are lost at once that nobody may hold a result any more: that is told, and no
                violation.
        """
        marks = self.work.told()
        dead = {victim.id for victim in self.victims}
        at = self.fault_at
        term = max((mark.term for mark in marks if mark.at <= at), default=0)
        starts = [m for m in marks if m.what == "start" and m.at > at and not any(node in m.where for node in dead)]
        self._first("next_start_s", starts)
        self._first("next_assigned_s", [mark for mark in starts if mark.term > term])
        self._judge_again(marks, dead, both_holders=both_holders)
        ended = {mark.of for mark in marks if mark.what == "end"}
        self.facts["attempts"] = sum(mark.what == "start" for mark in marks)
        self.check(len(ended) == self.tasks, f"{len(ended)} of {self.tasks} tasks ended by their own account")
        if self.last is not None:
            stages = self.last.stages
            self.facts.update(
                lost_attempts=sum(stage.lost_attempts for stage in stages),
                failed_attempts=sum(stage.failed_attempts for stage in stages),
                takeovers=self.last.takeovers,
                backups=self.last.backups,
                forked=bool(self.last.fork),
                copies=self.last.copies,
            )
            failed = self.facts["failed_attempts"]
            self.check(not failed, f"{failed} attempts failed, as the job counts them: a lost node costs them nothing")

    def first_of_next_term(self, at: float) -> float:
        """Seconds from this instant until a task started that a later leader gave out; -1: none did."""
        marks = self.work.told()
        term = max((mark.term for mark in marks if mark.at <= at), default=0)
        return next((round(m.at - at, 4) for m in marks if m.what == "start" and m.at > at and m.term > term), -1.0)

    def _first(self, name: str, starts: list[Mark]) -> None:
        if starts:
            self.facts[name] = round(starts[0].at - self.fault_at, 4)

    def _judge_again(self, marks: list[Mark], dead: set[str], *, both_holders: bool) -> None:
        """Finished work is not redone: of what had ended, only what the leader did not call protected may run again.

        What a victim does on its own, cut off from the others, is its own affair.
        """
        at, before = self.fault_at, self.before
        ended = {mark.of: mark.at for mark in reversed(marks) if mark.what == "end" and mark.at <= at}
        until = self.over_at or float("inf")
        late = [m for m in marks if m.what == "start" and at < m.at < until and not any(d in m.where for d in dead)]
        again = {mark.of for mark in late if mark.of in ended}
        ages = sorted((round(at - ended[task], 4) for task in again), reverse=True)
        self.facts.update(ended_before=len(ended), again=len(again), again_ages_s=ages[:20])
        if before is None:
            return
        self.facts.update(unprotected=before.unprotected, unprotected_s=round(before.unprotected_s, 4))
        protected = before.done - before.unprotected
        redone = max(0, len(again) - max(0, len(ended) - protected))
        self.facts["redone"] = redone
        self.check(
            not redone or both_holders,
            f"{len(again)} of {len(ended)} ended tasks ran again although {protected} were protected; "
            f"they had ended {ages[:5]} s before",
        )


class Parts:
    """Takes a job's output and keeps it."""

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """One part."""
        self.parts[part.number] = b"".join(pieces)
        return len(self.parts[part.number])


def described(view: JobView | None) -> str:
    """A view in one line."""
    if view is None:
        return "nothing"
    stages = ", ".join(f"{s.name} {s.done}/{s.tasks} ({s.running} running)" for s in view.stages)
    return f"{view.phase.value}, led by {view.leader_name}: {stages}; {view.note}"
