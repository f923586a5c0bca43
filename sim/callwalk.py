"""A walk over a job of calls: a program hands in calls that wait for others, while leaders die and are deposed.

The program does what `p2premap.client` does: it numbers packs, names calls that are under way instead of waiting for
them, takes back what comes void, and opens its line anew after each takeover: it hears how many packs are known, hands
in the rest, and says what it has results of. What it is told of may be lost on the way to it, with the leader.

What a call yields names the call, the attempt, and all that it was given; so no two attempts yield the same. What must
hold: each result is made of exactly those that the program has of the calls that it named; and a pack comes back void
only where something that it named has failed, or was withdrawn.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from blake3 import blake3

from p2premap.sim.jobmodel import Model, Violated
from p2premap.sim.jobsettings import Faults
from p2premap.sim.jobwalk import JOB, Node, Running, Walk
from p2premap.sim.workloads import Shape
from p2premap.tasks import calls, calls_results, events
from p2premap.tasks.calls import Calls
from p2premap.tasks.calls_refs import CALL, INLINE, Ref
from p2premap.tasks.director import Director
from p2premap.tasks.job import AttemptEnd, AttemptSpec, Outcome, StageId

ACTS: Final = 0.3
"""Of the steps: something at the program."""
UNDONE: Final = 0.05
"""Of the calls: given back by the worker."""


class Call:
    """One call of the program.

    Args:
        name: what it yields begins with.
        needs: the calls whose results are its arguments.
    """

    def __init__(self, name: str, needs: list[Call]) -> None:
        self.name, self.needs = name, needs
        self.pack = -1
        self.named: tuple[int, ...] = ()
        self.value: bytes | None = None


class Program:
    """What hands in the calls.

    Args:
        walk: that it is part of.
        count: how many calls there are.
    """

    def __init__(self, walk: CallWalk, count: int) -> None:
        self._walk, self._random = walk, walk.random
        self.calls: list[Call] = []
        for number in range(count):
            needs = self._random.sample(self.calls, min(len(self.calls), self._random.choice((0, 1, 1, 1, 2, 3))))
            self.calls.append(Call(f"c{number}", needs))
        self.waiting = list(self.calls)
        self.under_way: dict[int, Call] = {}
        self.bodies: list[bytes] = []
        self.box: deque[events.TasksEnded] = deque()
        self.open, self.asked, self.known = True, 0, -1
        self.taken_back = 0
        self.closed = self._closing = False
        self.unanswered: set[int] = set()
        self.void: list[tuple[str, tuple[int, ...]]] = []
        self.withdrawn: set[int] = set()

    def lose_line(self) -> None:
        """The leader is another one; what it said and had not arrived is lost."""
        self.box.clear()
        self.open, self.known = False, -1
        self.asked += 1
        self.closed = False

    def hear(self, effect: events.TasksEnded | events.Extended) -> None:
        """Something that the leader says; ends arrive later."""
        if isinstance(effect, events.TasksEnded):
            self.box.append(effect)
        elif effect.request == self.asked and not self.open:
            self.known = effect.first
        elif effect.error and not self._closing:
            raise Violated(f"the program is refused: {effect.error}")

    def act(self) -> bool:
        """Do one thing. False: there is nothing to do."""
        if not self.open:
            return self._reopen()
        if self.box and self._random.random() < 0.5:
            self._take(self.box.popleft())
            return True
        if self.waiting:
            self._hand_in()
            return True
        if not (self.under_way or self.box or self.closed):
            self.closed = self._closing = True
            self.check_end()
            self._extend(calls.pack_extension(first_function=1, first=len(self.bodies), closed=True))
            return True
        return False

    def _extend(self, payload: bytes, request: int = 0) -> None:
        self._walk.lead(events.Extend(payload=payload, request=request))

    def _reopen(self) -> bool:
        if self.known < 0:
            self._extend(calls.pack_extension(), self.asked)
            return self.known >= 0
        self._walk.lead(events.Retell(first=min(self.under_way, default=len(self.bodies))))
        known, total = self.known, len(self.bodies)
        void = calls.pack_body(calls.VOID, 0, b"")
        packs = [self.bodies[n] if n in self.under_way else void for n in range(known, total)]
        function = [calls.pack_function(b"f")]
        self._extend(calls.pack_extension(functions=function, first=known, packs=packs))
        here = sorted({n for call in self.under_way.values() for n in call.named} - self.under_way.keys())
        self.withdrawn.update(here)
        self._extend(calls.pack_extension(first_function=1, first=total, cancelled=here, again=True))
        self.open = True
        return True

    def _hand_in(self) -> None:
        call = self._random.choice(self.waiting)
        if any(need.value is None and need.pack not in self.under_way for need in call.needs):
            return
        refs = [
            Ref(CALL, pack=need.pack) if need.value is None else Ref(INLINE, data=need.value) for need in call.needs
        ]
        body = calls.pack_body(0, 0, calls.pack_calls([call.name.encode()]), refs)
        self.waiting.remove(call)
        call.pack, call.named = len(self.bodies), tuple(ref.pack for ref in refs if ref.kind == CALL)
        self.under_way[call.pack] = call
        self.bodies.append(body)
        functions = [calls.pack_function(b"f")]
        self._extend(calls.pack_extension(functions=functions, first=call.pack, packs=[body]))

    def _take(self, told: events.TasksEnded) -> None:
        for end in told.ends:
            call = self.under_way.pop(end.task, None)
            if call is None:
                continue
            if end.outcome is not Outcome.DONE:
                raise Violated(f"{call.name} ends {end.outcome.name}: {end.error}")
            done = calls_results.unpack_done(end.value)
            if done.calls:
                (piece,), _ = calls_results.unpack_answers(done.data, 1)
                call.value = bytes(piece)
                continue
            self.taken_back += 1
            self.unanswered.add(end.task)
            self.waiting.append(call)
            if done.flags & calls.VOID:
                self.void.append((call.name, call.named))

    def check_end(self) -> None:
        """Every call has its result. What became of a pack may be told after what became of those that named it."""
        for name, named in self.void:
            if not self.unanswered.union(self.withdrawn).intersection(named):
                raise Violated(f"{name} came back void, and nothing that it named has failed")
        for call in self.calls:
            assert call.value is not None, "the program closes the job when all is there"
            if call.value.split(b"@")[0] != yielded(call.name.encode(), [need.value or b"" for need in call.needs]):
                raise Violated(f"{call.name} was made of something else than the program has: {call.value!r}")


def yielded(name: bytes, given: list[bytes]) -> bytes:
    """What a call yields, but for the attempt."""
    return name + b"=" + blake3(b",".join(given)).hexdigest()[:8].encode()


class CallModel(Model):
    """See `Model`; but what a successor does not know, or what was made of that, may be made again."""

    def _check_needed(self, stage: StageId, task: int) -> None:
        pass


class CallWalk(Walk):
    """One program's job.

    Args:
        count: of its calls; the others as of `Walk`.
    """

    def __init__(self, seed: int, count: int = 25, *, nodes: int = 3, faults: Faults | None = None) -> None:
        super().__init__(seed, Shape(1, inline=True), nodes=nodes, faults=faults)
        self.program = Program(self, count)

    def lead(self, event: events.CoordinatorEvent) -> None:
        """The leader hears something."""
        self._lead(event)

    def _model(self) -> Model:
        return CallModel(self)

    def _director(self) -> Director:
        return Calls(job=JOB, home=self.nodes[0].id, plan=b"")

    def _one(self, faults: Faults) -> bool:
        if self.random.random() < ACTS and not self.coordinator.over and self.program.act():
            return not self.coordinator.over
        return super()._one(faults)

    def _tell(self, effect: events.TasksEnded | events.Extended) -> None:
        self.program.hear(effect)

    def _take_over(self, successor: Node) -> None:
        self.program.lose_line()
        super()._take_over(successor)

    def _run(self, node: Node, head: Running, spec: AttemptSpec, *, unreadable: bool) -> AttemptEnd:
        work = calls.unpack_params(spec.params)
        if work.flags & calls.VOID or self.random.random() < UNDONE:
            value = calls_results.pack_done(work.flags & calls.VOID, 0, 0.0, 0.0)
        else:
            assert work.data is not None
            name = bytes(calls.unpack_calls(work.data)[0])
            made = yielded(name, [bytes(ref.data) for ref in work.refs]) + b"@%d" % spec.attempt
            value = calls_results.pack_done(0, 1, 0.001, 0.0, calls_results.pack_answers([made], []))
        return AttemptEnd(task=spec.task, attempt=spec.attempt, outcome=Outcome.DONE, value=value, seconds=0.001)
