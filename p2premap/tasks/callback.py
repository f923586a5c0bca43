"""Telling somebody outside that a job is over: by whoever leads it, again and again until that one answers.

A job with a callback stays led between its end, which everybody hears at once, and its conclusion, after which nobody
leads it any more. So what tells of the end survives a leader like everything else: the successor reads the end from the
cell ``final`` and begins to tell it; and that the job is concluded is what says that it was told. The key of the end is
derived from what was decided, so it is the same whoever tells it.

Between an answer and the conclusion lies a round trip to a quorum. A leader that dies then has its successor tell it
once more, under the same key.
"""

from __future__ import annotations

import enum
import math
from typing import Final

from blake3 import blake3

from p2premap.ids import JobId
from p2premap.tasks.events import CallBack
from p2premap.tasks.job import JobOptions, JobView
from p2premap.tasks.ledger import Final as End

FIRST_S: Final = 1.0
MOST_S: Final = 300.0
GIVEN_UP_S: Final = 86_400.0
SILENT_S: Final = 60.0
"""The shell answers every `CallBack`, and much sooner."""


class Told(enum.Enum):
    """What came of it."""

    NOT_YET = "not yet"
    HEARD = "heard"
    REMOVE = "remove"
    """Heard, and whoever did needs nothing of the job any more."""
    GIVEN_UP = "given up"


class Callback:
    """One end of one job, told by one leader.

    Args:
        job: that is over.
        options: of the job; they have a callback.
        end: as decided.
        view: the last one.
        now: when this leader begins.
    """

    def __init__(self, job: JobId, options: JobOptions, end: End, view: JobView, now: float) -> None:
        self._ask = CallBack(
            job=job,
            url=options.callback,
            secret=options.callback_secret,
            key=f"{job.hex()}-{blake3(end.encode()).hexdigest(8)}",
            view=view,
        )
        self._again_s = FIRST_S
        self._at = now
        self._until = now + GIVEN_UP_S
        self.last = ""
        """How it went last, for people."""

    def deadline(self) -> float:
        """When to call `due`."""
        return self._at

    def due(self, now: float) -> CallBack | None:
        """Tell it now, if it is time; answered by `heard`."""
        if now < self._at:
            return None
        self._at = now + SILENT_S
        return self._ask

    def heard(self, now: float, status: int, error: str) -> Told:
        """What was answered.

        Args:
            status: of HTTP; 0: nothing.
            error: then, why.
        """
        self.last = error or f"it answered {status}"
        if 200 <= status < 300:
            self._at = math.inf
            return Told.REMOVE if status == 201 else Told.HEARD
        if now >= self._until:
            self._at = math.inf
            return Told.GIVEN_UP
        self._at = now + self._again_s
        self._again_s = min(2 * self._again_s, MOST_S)
        return Told.NOT_YET
