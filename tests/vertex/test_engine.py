"""The engine: frames between processes, agreements, and what happens when one of them cannot go on."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from p2premap.tasks.job import INLINE_BYTES_MAX
from p2premap.vertex.barrier import Carried, End, Globals, VertexError
from p2premap.vertex.plan import EpochReport, Settings, StepRow
from p2premap.vertex.program import Hooks, Program
from p2premap.worker.gang import Buffer, PeerLost
from p2premap.worker.vertex import engine, runtime
from p2premap.worker.vertex.engine import Epoch, drive, split_state, state_head
from p2premap.worker.vertex.local import LocalGang, run_seats
from p2premap.worker.vertex.partition import Did, Turned

SEATS = [[2, 0], [3], [1]]


class Recorder:
    """A partition that notes what it is called with. Mail says from where, to where, and of which superstep."""

    agrees = True

    def __init__(self, number: int, *, changes_in: int = -1, fails: str = "") -> None:
        self.number = number
        self.calls: list[Any] = []
        self._changes_in = changes_in
        self._fails = fails
        self._superstep = -1

    def _note(self, name: str, *what: object) -> None:
        self.calls.append((name, *what))
        if self._fails == name:
            raise ValueError(f"{name} went wrong")

    def begin(self) -> None:
        pass

    def counts(self) -> tuple[int, int]:
        return self.number, 1

    def renew(self, *, changed: bool) -> None:
        self._note("renew", changed)

    def requests(self, partition: int) -> Sequence[Buffer]:
        return [b"%d?" % self.number, b"%d" % partition]

    def answers(self, source: int, request: memoryview) -> Sequence[Buffer]:
        self._note("answers", source, bytes(request))
        return () if source == 3 else [b"%d!" % source]

    def agreed(self, source: int, answer: memoryview) -> None:
        self._note("agreed", source, bytes(answer))

    def compute(self, superstep: int, globals: Globals) -> Did:
        assert globals.superstep == superstep
        self._superstep = superstep
        self._note("compute", globals.vertices)
        return Did(1, 1, {}, changes=int(superstep == self._changes_in))

    def mail(self, partition: int) -> Sequence[Buffer]:
        if (self.number + partition) % 2:
            return ()
        return [b"%d>" % self.number, memoryview(b"%d in " % partition), bytearray(b"%d" % self._superstep)]

    def deliver(self, source: int, mail: memoryview) -> None:
        self._note("deliver", source, bytes(mail))

    def turn(self) -> Turned:
        self._note("turn")
        return Turned(0, changed=self._superstep == self._changes_in, dropped=1)

    def snapshot(self, sink: Any) -> None:
        pass

    def restore(self, data: memoryview) -> None:
        pass

    def rows(self) -> Iterator[tuple[object, object]]:
        return iter(())


def epoch_of(seat: int, partitions: dict[int, Recorder], *, fresh: bool = False, supersteps: int = 2) -> Epoch:
    return Epoch(
        seat=seat,
        seats=SEATS,
        settings=Settings(form="arrays", partitions=4, supersteps=supersteps),
        program=Hooks(Program()),
        partitions={number: partitions[number] for number in SEATS[seat]},
        fresh=fresh,
        superstep=0,
        carried=Carried(),
        change_s=0.0,
        clock=lambda: 0.0,
    )


def run(partitions: dict[int, Recorder], *, fresh: Sequence[int] = (), supersteps: int = 2) -> list[End]:
    def work(gang: LocalGang) -> End:
        epoch = epoch_of(gang.seat, partitions, fresh=gang.seat in fresh, supersteps=supersteps)
        return drive(epoch.run(), gang)

    return run_seats(SEATS, work)


def lockstep(partitions: dict[int, Recorder]) -> list[BaseException | End]:
    """All processes in one thread: how each of them ended."""
    epochs = [epoch_of(seat, partitions).run() for seat in range(len(SEATS))]
    frames = {seat: next(epoch) for seat, epoch in enumerate(epochs)}
    ended: dict[int, BaseException | End] = {}
    while frames:
        came = {to: [memoryview(b"".join(frames[by][to])) for by in frames] for to in frames}
        for seat in list(frames):
            try:
                frames[seat] = epochs[seat].send(came[seat])
            except StopIteration as stop:
                ended[seat] = stop.value
            except (PeerLost, ValueError, VertexError) as error:
                ended[seat] = error
        frames = {seat: frame for seat, frame in frames.items() if seat not in ended}
    return [ended[seat] for seat in range(len(SEATS))]


def test_mail_comes_once_in_order_of_source_before_the_turn() -> None:
    partitions = {number: Recorder(number) for number in range(4)}
    ends = run(partitions)
    for number, partition in partitions.items():
        sources = [source for source in range(4) if (source + number) % 2 == 0]
        assert partition.calls == [
            call
            for superstep in range(2)
            for call in (
                ("compute", 6),
                *(("deliver", source, b"%d>%d in %d" % (source, number, superstep)) for source in sources),
                ("turn",),
            )
        ]
    assert all(end[:3] == ends[0][:3] for end in ends)
    assert ends[0].carried.dropped == 8


def test_where_one_is_new_all_agree_anew_before_they_compute() -> None:
    partitions = {number: Recorder(number) for number in range(4)}
    run(partitions, fresh=[1], supersteps=1)
    for number, partition in partitions.items():
        before = [call for call in partition.calls if call[0] in ("renew", "answers", "agreed", "compute")]
        assert before == [
            ("renew", False),
            *(("answers", source, b"%d?%d" % (source, number)) for source in range(4)),
            *(("agreed", source, b"%d!" % number) for source in range(4) if number != 3),
            ("compute", 6),
        ]


def test_a_graph_that_has_changed_is_agreed_upon_anew() -> None:
    partitions = {number: Recorder(number, changes_in=0 if number == 1 else -1) for number in range(4)}
    run(partitions)
    for partition in partitions.values():
        words = [call[0] for call in partition.calls if call[0] in ("renew", "compute", "turn")]
        assert words == ["compute", "turn", "renew", "compute", "turn"]
        assert ("renew", True) in partition.calls


@pytest.mark.parametrize("fails", ["renew", "answers", "agreed", "compute", "deliver", "turn"])
@pytest.mark.parametrize("supersteps", [1, 3])
def test_what_one_raises_ends_it_for_all_and_is_told_by_that_one(fails: str, supersteps: int) -> None:
    partitions = {number: Recorder(number, fails=fails if number == 0 else "") for number in range(4)}
    with pytest.raises(ValueError, match=f"{fails} went wrong"):
        run(partitions, fresh=[0], supersteps=supersteps)


def test_the_others_are_told_why() -> None:
    first, *others = lockstep({number: Recorder(number, fails="compute" if number == 0 else "") for number in range(4)})
    assert isinstance(first, ValueError)
    for other in others:
        assert isinstance(other, PeerLost)
        assert (other.seat, "ValueError: compute went wrong" in str(other)) == (0, True)


def test_a_frame_of_another_kind_is_noticed() -> None:
    epoch = epoch_of(0, {number: Recorder(number) for number in range(4)}).run()
    next(epoch)
    stray = [memoryview(b"".join(engine._frame(engine.ASK, pickle.dumps(None), ())))] * 3
    epoch.send(stray)  # it tells the others
    with pytest.raises(VertexError, match="Process 1 of the job is out of step: a frame of kind 2, not 1"):
        epoch.send(stray)


def test_a_report_fits_into_a_result() -> None:
    values = tuple((f"aggregate {n}", float(n)) for n in range(40))
    rows = tuple(
        StepRow(superstep=n, active=1, computed=1, sent=1, dropped=0, seconds=0.1, values=values) for n in range(200)
    )
    packed = runtime._packed(EpochReport(superstep=200, rows=rows))
    kept = msgspec.msgpack.decode(packed, type=EpochReport).rows
    assert len(packed) <= INLINE_BYTES_MAX
    assert 10 < len(kept) < 200
    assert kept == rows[-len(kept) :]
    assert (
        len(msgspec.msgpack.decode(runtime._packed(EpochReport(superstep=1, rows=rows[:9])), type=EpochReport).rows)
        == 9
    )


def test_what_an_epoch_carries_on_stands_before_the_state() -> None:
    carried = Carried(Globals(3, 4, 5, 6, 7, {"a": (1, "b")}), b"digest", 1.5, 9)
    assert split_state(memoryview(state_head(carried) + b"state")) == (carried, memoryview(b"state"))
    assert split_state(memoryview(state_head(Carried()))) == (Carried(), memoryview(b""))
