"""What a worker says to the leaders of its jobs: how attempts ended, that it is busy, that there is a place now."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from p2premap.config import TasksConfig
from p2premap.tasks import messages
from p2premap.tasks.events import ToLeader
from p2premap.tasks.job import AttemptEnd, AttemptSpec, Outcome, StageId
from p2premap.tasks.shares import LedJob, Shares
from p2premap.wire import Message

REPORT_BYTES_MAX = 1 << 20
"""What one `AttemptsEnded` carries at most, so that it stays far under the cap of a frame."""


class Teller:
    """Speaks to leaders; to nobody for a job that has none.

    Args:
        shares: the slots and jobs.
        config: intervals and limits.
        emit: takes what is to be sent.
    """

    def __init__(self, shares: Shares, config: TasksConfig, emit: Callable[[ToLeader], None]) -> None:
        self._shares = shares
        self._jobs = shares.jobs
        self._config = config
        self._emit = emit

    # --- how attempts ended ---

    def report_due(self, now: float) -> None:
        """Tell what has waited for company for long enough."""
        for led in self._jobs.values():
            if led.report_at <= now:
                self.flush(now, led)

    def flush(self, now: float, led: LedJob) -> None:
        """Tell the leader what has ended."""
        led.report_at = math.inf
        ends, led.ends = led.ends, {}
        for stage, group in ends.items():
            for piece in _pieces(group):
                self._tell(now, led, stage, piece)

    def tell_again(self, led: LedJob) -> None:
        """Tell what the leader has not confirmed."""
        for report in led.unheard:
            self._say(led, report)

    def answer_census(self, now: float, led: LedJob) -> None:
        """Say which attempts this node answers for: those in its slots, and those whose ends are about to be told."""
        stages = self._shares.stages(led)
        self._say(
            led,
            messages.Holding(
                job=led.job,
                ballot=led.ballot,
                number=led.answers,
                running=tuple((stage, tuple(sorted(self._shares.known(led, stage)))) for stage in stages),
                free=self._shares.free_for(now, led),
            ),
        )

    def disown(
        self, now: float, led: LedJob, stage: StageId, unknown: Sequence[tuple[int, int]], outcome: Outcome
    ) -> None:
        """Answer for attempts of which nothing is known here; says so also if there is none."""
        error = "this node does not know the attempt"
        ends = [AttemptEnd(task=task, attempt=attempt, outcome=outcome, error=error) for task, attempt in unknown]
        for piece in _pieces(ends):
            self._tell(now, led, stage, piece)

    def _tell(self, now: float, led: LedJob, stage: StageId, ends: Sequence[AttemptEnd]) -> None:
        """Report, and keep the report until it has been heard."""
        led.stage = stage
        serial = 0
        if ends:
            led.unheard.serial += 1
            serial = led.unheard.serial
        report = messages.AttemptsEnded(
            job=led.job,
            ballot=led.ballot,
            stage=stage,
            ends=tuple(ends),
            free=self._shares.free_for(now, led),
            serial=serial,
            answers=led.answers,
            held=sum(len(held.left) for held in self._shares.held(led, silent=True)),
        )
        if ends:
            led.unheard.keep(report)
        self._say(led, report)

    # --- places ---

    def invite(self, now: float) -> None:
        """Call those who were refused and for whom there is a place now."""
        for led, free in self._shares.invited(now):
            self._busy(led, led.stage, (), free=free, reason="", retry_s=0.0)

    def tell_reserved(self) -> None:
        """Tell those who reserve how many slots are kept for them, where that has changed."""
        for wanted in self._shares.reservations.values():
            led, idle = self._jobs[wanted.job], self._shares.idle_kept(wanted.job)
            if idle != wanted.told:
                wanted.told = idle
                self._say(led, messages.Reserved(job=led.job, ballot=led.ballot, slots=idle))

    def refuse(
        self,
        led: LedJob,
        stage: StageId,
        attempts: Sequence[AttemptSpec],
        reason: str,
        *,
        retry_s: float | None = None,
    ) -> None:
        """There is no place for these; ask again after `retry_s`, by default the configuration's."""
        again_s = self._config.busy_retry_s if retry_s is None else retry_s
        self._busy(led, stage, attempts, free=0, reason=reason, retry_s=again_s)

    def _busy(
        self, led: LedJob, stage: StageId, attempts: Sequence[AttemptSpec], *, free: int, reason: str, retry_s: float
    ) -> None:
        pairs = tuple((a.task, a.attempt) for a in attempts)
        self._say(
            led,
            messages.Busy(
                job=led.job, ballot=led.ballot, stage=stage, attempts=pairs, free=free, reason=reason, retry_s=retry_s
            ),
        )

    def _say(self, led: LedJob, message: Message) -> None:
        if not led.orphaned:
            self._emit(ToLeader(node=led.leader, message=message))

    # --- what is unheard ---

    def unheard_bytes(self) -> int:
        """What all jobs' unheard reports cost."""
        return sum(led.unheard.size for led in self._jobs.values())

    def bound_unheard(self) -> None:
        """See `p2premap.tasks.unheard`."""
        spare = self.unheard_bytes() - 2 * self._config.unheard_bytes_max
        if spare > 0:
            max(self._jobs.values(), key=lambda led: led.unheard.size).unheard.let_go_values(spare)


def _pieces(ends: list[AttemptEnd]) -> list[list[AttemptEnd]]:
    """Groups that fit into one message each; one empty group if there are no ends."""
    pieces: list[list[AttemptEnd]] = [[]]
    size = 0
    for end in ends:
        cost = (
            64 + len(end.value) + 48 * len(end.blobs) + 4 * (len(end.detail) + len(end.error)) + 34 * len(end.missing)
        )
        if pieces[-1] and size + cost > REPORT_BYTES_MAX:
            pieces.append([])
            size = 0
        pieces[-1].append(end)
        size += cost
    return pieces
