"""Which environments of jobs a node has, is making, or could not make: what its worker core asks before it takes work.

While one is being made, its jobs are refused, with that reason: whoever leads them gives their tasks to nodes that
have it, no slot stands idle, and nothing here waits for an installer. They are invited when it is there. One that
could not be made is tried again after `AGAIN_S`, when somebody still wants it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from p2premap.ids import Digest, JobId
from p2premap.tasks.events import EnvironmentTold, MakeEnvironment
from p2premap.tasks.job import Source
from p2premap.tasks.shares import LedJob
from p2premap.tasks.telling import Teller

MAKING: Final = "making its environment"
AGAIN_S: Final = 30.0
INVITED_S: Final = 1.0
"""A job whose environment is there waits so long for a place before its leader asks by itself."""
KNOWN_MAX: Final = 1_000


class _Known(msgspec.Struct):
    ready: bool = False
    error: str = ""
    again_at: float = math.inf


class Readiness:
    """See above.

    Args:
        jobs: that this node works for.
        teller: speaks to their leaders.
        emit: takes what the shell is to do.
    """

    def __init__(self, jobs: Mapping[JobId, LedJob], teller: Teller, emit: Callable[[MakeEnvironment], None]) -> None:
        self._jobs = jobs
        self._teller = teller
        self._emit = emit
        self._known: OrderedDict[Digest, _Known] = OrderedDict()

    def hindrance(self, now: float, led: LedJob, lock: Source | None) -> str:
        """Why work that needs this environment cannot be taken now; "" where it can. Has it made if need be."""
        if lock is None:
            return ""
        known = self._known.get(lock.digest)
        if known is None or known.again_at <= now:
            known = self._known[lock.digest] = _Known()
            self._known.move_to_end(lock.digest)
            self._emit(MakeEnvironment(lock=lock))
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        if known.ready:
            return ""
        led.awaits = lock.digest
        return known.error or MAKING

    def hear(self, now: float, event: EnvironmentTold) -> None:
        """Whoever was refused for want of it is told what has become of it: by an invitation, or what is wrong."""
        if not (event.ready or event.error):
            self._known.pop(event.digest, None)
            return
        again_at = math.inf if event.ready else now + AGAIN_S
        self._known[event.digest] = _Known(ready=event.ready, error=event.error, again_at=again_at)
        for led in [led for led in self._jobs.values() if led.awaits == event.digest]:
            if event.ready:
                led.awaits = None
                led.refuse(now, now + INVITED_S)
            else:
                self._teller.refuse(led, led.stage, (), event.error, retry_s=AGAIN_S)
