"""Calls whose arguments other calls are to make: when each may be handed in.

A call goes as soon as each future among its arguments has its result, or is that of a call which is under way on the
same line. In the latter case the pack names that call (`p2premap.tasks.calls_refs.CALL`), and the job's leader keeps it
back until the result is there: no link of a chain waits for this program. So many at most are kept there; the others
wait here, as those do whose futures are of calls that are not sent yet.

What comes back void could not be given what it named, as the other call raised, was cancelled or is to be made again.
It is looked at here like one that is new: by then the future says which of these it was.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Final

from p2premap.client.callstate import CallState, Held, set_exception
from p2premap.client.future import Future
from p2premap.client.interrupts import PutOff
from p2premap.client.packs import Call
from p2premap.client.references import Shared
from p2premap.errors import JobError
from p2premap.tasks.calls import INLINE_BYTES_MAX
from p2premap.tasks.calls_refs import CALL, Ref

if TYPE_CHECKING:
    from p2premap.client.callline import CallLine

EARLY_MAX: Final = 256
"""So many calls that wait for others are handed in; a chain is longer than that only in theory."""
INLINED_BYTES_MAX: Final = 256 << 10
"""So much of small results goes within a pack; what is more goes as blobs."""


class _Turns(threading.local):
    busy = False

    def __init__(self) -> None:
        self.waiting: deque[tuple[Dependents, Call]] = deque()


_turns: Final = _Turns()


class Dependents:
    """Those of one line.

    Args:
        line: that they are handed in on.
        state: of the line.
        ref: what a pack says of a result that is known, or of a value that was put.
    """

    def __init__(self, line: CallLine, state: CallState, ref: Callable[[object], Ref]) -> None:
        self._line, self._state, self._ref = line, state, ref
        self._crowd: deque[Call] = deque()
        """Those that could go if fewer were kept at the leader."""

    def add(self, call: Call) -> None:
        """A call that refers to `call.things`; it is handed in now or later.

        Raises:
            JobError: the job is over.
        """
        try:
            with PutOff():
                ready = self._add(call)
        except KeyboardInterrupt:
            self._let_go(call)
            raise
        if ready:
            self._look(call)

    def _add(self, call: Call) -> bool:
        """Have it wait; whether it can go."""
        awaited = {id(thing): thing for thing in call.things if isinstance(thing, Future) and not self._is_known(thing)}
        held = Held(awaited)
        with self._state.lock:
            if self._state.error is not None:
                raise self._state.error
            self._state.held[call] = held
            for number, future in awaited.items():
                if self._is_sent(future):
                    held.lacking.discard(number)
                elif future._line is self._line and future._call is not None:
                    call.follow(future._call)
            ready = not held.lacking
        for number, future in awaited.items():
            future.when_known(partial(self._known, call, number), self._line)
        return ready

    def again(self, call: Call) -> None:
        """What it named could not be given to it."""
        try:
            self.add(call)
        except JobError as error:
            with self._state.idle:
                self._state.held.pop(call, None)
                self._state.idle.notify_all()
            set_exception(call.future, error)

    def sent(self, call: Call) -> list[Call]:
        """The call is under way. The caller holds the lock, and hands in what is returned at once."""
        ready = []
        followers, call.followers = call.followers, None
        for follower in followers or ():
            held = self._state.held.get(follower)
            if held is None or held.going:
                continue
            held.lacking.discard(id(call.future))
            if not held.lacking and self._is_plain(follower) and self._take_place(follower):
                follower.refs = [self._named(thing) for thing in follower.things if isinstance(thing, Future)]
                del self._state.held[follower]
                ready.append(follower)
            elif not held.lacking:
                self._crowd.append(follower)
        return ready

    def go_on(self) -> None:
        """Some have ended: others may go."""
        while self._crowd:
            with self._state.lock:
                if not self._crowd:
                    return
                call = self._crowd.popleft()
                held = self._state.held.get(call)
                if held is None or held.going:
                    continue
                if self._state.packer.early >= EARLY_MAX and held.unknown:
                    self._crowd.appendleft(call)
                    return
            self._look(call)

    def _is_known(self, future: Future[object]) -> bool:
        return future.done() or (future._at is not None and future._line is self._line)

    def _is_sent(self, future: Future[object]) -> bool:
        """Whether its call is under way on this line. The caller holds the lock."""
        pack = future._call.pack if future._line is self._line and future._call is not None else None
        return pack is not None and not (pack.over or pack.cancelled)

    def _is_plain(self, call: Call) -> bool:
        """Whether it refers to nothing but calls that are under way, and so needs nothing to be looked up or put."""
        return len(call.data) <= INLINE_BYTES_MAX and all(
            isinstance(thing, Future) and self._is_sent(thing) and not self._is_known(thing) for thing in call.things
        )

    def _take_place(self, call: Call) -> bool:
        """Whether one more may wait at the leader, and is wanted. The caller holds the lock."""
        if self._state.packer.early >= EARLY_MAX or call.future.cancelled():
            return False
        call.early = True
        self._state.packer.early += 1
        return True

    def _named(self, future: Future[object]) -> Ref:
        assert future._call is not None
        assert future._call.pack is not None
        return Ref(CALL, position=future._call.position, pack=future._call.pack.number)

    def _known(self, call: Call, number: int) -> None:
        with self._state.lock:
            held = self._state.held.get(call)
            if held is None or held.going:
                return
            held.lacking.discard(number)
            held.unknown.discard(number)
            ready = not held.lacking and (not held.unknown or self._state.packer.early < EARLY_MAX)
        if ready:
            self._look(call)

    def _look(self, call: Call) -> None:
        """All that it refers to was known or under way a moment ago."""
        _turns.waiting.append((self, call))
        if _turns.busy:
            return  # another one failed, and so does this: a long chain must not be a deep stack
        _turns.busy = True
        interrupt: BaseException | None = None
        try:
            while _turns.waiting:
                dependents, first = _turns.waiting.popleft()
                try:
                    with PutOff():
                        chosen = dependents._choose(first)
                    if chosen is not None:
                        dependents._hand_in(first, *chosen)
                except BaseException as error:  # such as Ctrl-C; those behind this one are other calls
                    dependents._let_go(first)
                    interrupt = error
        finally:
            _turns.busy = False
        if interrupt is not None:
            raise interrupt

    def _choose(self, call: Call) -> tuple[Held, dict[int, Ref]] | None:
        """What it has to name of calls that are under way; None: it goes later, or has gone."""
        with self._state.lock:
            held = self._state.held.get(call)
            if held is None or held.going:
                return None
            early = [thing for thing in call.things if isinstance(thing, Future) and not self._is_known(thing)]
            for future in early:
                if not self._is_sent(future):  # it has come back meanwhile
                    held.lacking.add(id(future))
                    if future._line is self._line and future._call is not None:
                        call.follow(future._call)
            if held.lacking:
                return None
            if early and not self._take_place(call):
                if not call.future.cancelled():
                    self._crowd.append(call)
                    return None
                early = []
            named = {id(future): self._named(future) for future in early}
            held.going, held.named = True, tuple(ref.pack for ref in named.values())
            return held, named

    def _hand_in(self, call: Call, held: Held, named: dict[int, Ref]) -> None:
        error: BaseException | None = None
        wanted = not call.future.cancelled()
        try:
            if wanted:
                call.refs = self._refs(call, named)
                if not named:
                    call.things = [thing for thing in call.things if isinstance(thing, Shared)]
                self._line.submit(call)
        except (Exception, CancelledError) as trouble:
            error = trouble
        with PutOff(), self._state.idle:
            if error is not None or not wanted:
                self._state.packer.leave(call)
            if self._state.held.get(call) is held:  # else it has come back meanwhile
                del self._state.held[call]
            self._state.idle.notify_all()
        if error is not None:
            set_exception(call.future, error)
            call.answered()

    def _let_go(self, call: Call) -> None:
        """Its hand-in was interrupted: whether or not it has gone, it ends here."""
        with PutOff(), self._state.idle:
            self._state.packer.leave(call)
            self._state.held.pop(call, None)
            self._state.idle.notify_all()
        call.future.cancel()

    def _refs(self, call: Call, named: dict[int, Ref]) -> list[Ref]:
        refs = []
        room = INLINED_BYTES_MAX
        for thing in call.things:
            ref = named.get(id(thing)) or self._ref(thing)
            if isinstance(thing, Future) and (room := room - len(ref.data)) < 0:
                ref = self._line.share(thing.result(0), own=True).ref()
            refs.append(ref)
        return refs
