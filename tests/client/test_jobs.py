"""A job as a client handles it, when daemons come and go."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

import blake3
import msgspec
import pytest

from p2premap.client import connection as connection_module
from p2premap.client import jobs as module
from p2premap.client import session
from p2premap.client.connection import Connection, NodeSilent, RequestRefused, connect_to, local
from p2premap.client.jobs import follow, put_blob, submit
from p2premap.client.session import Collector, hand_in, see_through, strength
from p2premap.client.submission import Submission
from p2premap.control.answers import Chunk, Done, Refused, Trouble
from p2premap.control.data import PutBlob, ReadPart
from p2premap.control.jobs import JobUpdate, Submit, Submitted, Watch
from p2premap.control.nodes import ListNodes, Nodes, NodeView
from p2premap.errors import JobLost, JobRejected, NodeUnavailable
from p2premap.ids import NOBODY, Digest, JobId, NodeId
from p2premap.node.paths import Paths
from p2premap.tasks.job import BlobRef, JobSpec, JobView, Part, Phase, Source, StageView
from p2premap.web.problems import problem_of
from p2premap.wire import PAYLOAD_BYTES_MAX, Message
from tests.fakedaemon import NODE, Answer, FakeDaemon

OTHER = NodeId(b"other node id 16")
JOB = JobId(b"j" * 16)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(session, "AGAIN_S", 0.01)


def part(number: int) -> Part:
    return Part(number=number, source=Source(digest=Digest(bytes(32)), start=0, end=4, holders=(NODE,)))


def view(phase: Phase, leader: NodeId = NODE, parts: int = 0) -> JobView:
    return JobView(
        job=JOB,
        name="j",
        kind="mapreduce",
        phase=phase,
        leader=leader,
        leader_name="pi",
        leader_pid=1,
        age_s=1.0,
        parts=tuple(part(n) for n in range(parts)),
    )


def spec() -> JobSpec:
    ref = BlobRef(digest=Digest(bytes(32)), size=0)
    return JobSpec(submission_key=b"k" * 16, kind="mapreduce", name="j", code=ref, plan=ref)


class Output:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        self.parts[part.number] = b"".join(pieces)
        return len(self.parts[part.number])


def test_a_blob_travels_in_pieces_the_last_one_marked(paths: Paths) -> None:
    data = bytes(PAYLOAD_BYTES_MAX) + b"tail"

    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        return [Done(request=message.request)]

    with FakeDaemon(paths, script) as daemon, local(paths=paths) as connection:
        assert put_blob(connection, data) == BlobRef(digest=Digest(blake3.blake3(data).digest()), size=len(data))
        assert put_blob(connection, b"").size == 0
        puts = [m for m in daemon.requests if isinstance(m, PutBlob)]
        assert [m.last for m in puts] == [False, True, True]
        assert b"".join(daemon.payloads) == data


def test_a_job_that_makes_no_sense_is_rejected(paths: Paths) -> None:
    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        return [Refused(request=message.request, trouble=Trouble.USAGE, text="The plan contradicts itself.")]

    with FakeDaemon(paths, script), local(paths=paths) as connection, pytest.raises(JobRejected, match="contradicts"):
        submit(connection, spec(), ())


def test_a_full_disk_is_a_refusal_and_no_rejection(paths: Paths) -> None:
    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        return [Refused(request=message.request, trouble=Trouble.REFUSED, text="The disk is full.")]

    with FakeDaemon(paths, script), local(paths=paths) as connection, pytest.raises(RequestRefused, match="full"):
        submit(connection, spec(), ())


def test_a_job_is_handed_in_elsewhere_under_the_same_key_when_a_node_dies(paths: Paths) -> None:
    def dies(message: Message, payload: bytes) -> Iterable[Answer]:
        if isinstance(message, Submit):
            first.close()
            return [None]
        return [Done(request=message.request)]

    def takes(message: Message, payload: bytes) -> Iterable[Answer]:
        match message:
            case Submit():
                return [Submitted(request=message.request, job=JOB, copies=1)]
            case _:
                return [Done(request=message.request)]

    submission = Submission(spec=spec(), blobs=((Digest(bytes(32)), b"code"),), files=("/a",), bytes_in=1, tasks=1)
    first = FakeDaemon(paths, dies)
    with FakeDaemon(paths, takes, node=OTHER) as second:
        assert hand_in(partial(local, paths=paths), submission) == JOB
    submits = [m for daemon in (first, second) for m in daemon.requests if isinstance(m, Submit)]
    assert [m.spec.submission_key for m in submits] == [b"k" * 16] * 2
    assert submits[1].files == ("/a",)


def test_watching_goes_on_at_another_node(paths: Paths) -> None:
    def dies(message: Message, payload: bytes) -> Iterable[Answer]:
        yield JobUpdate(request=message.request, view=view(Phase.RUNNING))
        first.close()
        yield None

    def ends(message: Message, payload: bytes) -> Iterable[Answer]:
        return [JobUpdate(request=message.request, view=view(Phase.DONE, leader=OTHER))]

    first = FakeDaemon(paths, dies)
    with FakeDaemon(paths, ends, node=OTHER):
        seen = [v for v in follow(partial(local, paths=paths), JOB) if v is not None]
    assert [v.phase for v in seen] == [Phase.RUNNING, Phase.DONE]
    assert seen[1].leader == OTHER


def test_between_two_leaders_a_job_keeps_its_numbers_and_has_no_leader(paths: Paths) -> None:
    stage = StageView(number=0, name="map", tasks=4, done=1)

    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        led = msgspec.structs.replace(view(Phase.RUNNING), stages=(stage,))
        for now in (led, view(Phase.WAITING, leader=NOBODY), view(Phase.DONE, leader=OTHER)):
            yield JobUpdate(request=message.request, view=now)

    with FakeDaemon(paths, script):
        _, electing, _ = [v for v in follow(partial(local, paths=paths), JOB) if v is not None]
    assert (electing.leader, electing.stages) == (NOBODY, (stage,))


def test_news_of_parts_add_up_to_whole_views(paths: Paths) -> None:
    changed = msgspec.structs.replace(part(0), records=7)

    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        def update(phase: Phase, *parts: Part, gone: tuple[int, ...] = (), more: bool = False) -> JobUpdate:
            news = msgspec.structs.replace(view(phase), parts=parts)
            return JobUpdate(request=message.request, view=news, gone=gone, more=more)

        yield update(Phase.RUNNING, part(2), more=True)
        yield update(Phase.RUNNING, part(0))
        yield update(Phase.RUNNING)
        yield update(Phase.DONE, changed, part(1), gone=(2,))

    with FakeDaemon(paths, script):
        seen = [v.parts for v in follow(partial(local, paths=paths), JOB) if v is not None]
    assert seen == [(part(0), part(2)), (part(0), part(2)), (changed, part(1))]


def test_a_watcher_gets_a_turn_while_nothing_changes(paths: Paths) -> None:
    def quiet(message: Message, payload: bytes) -> Iterable[Answer]:
        return [JobUpdate(request=message.request, view=view(Phase.RUNNING))]

    with FakeDaemon(paths, quiet):
        turns = follow(partial(local, paths=paths), JOB)
        assert next(turns) is not None
        assert next(turns) is None
        turns.close()


def test_an_unknown_job_is_told_at_once(paths: Paths) -> None:
    def unknown(message: Message, payload: bytes) -> Iterable[Answer]:
        return [Refused(request=message.request, trouble=Trouble.NOT_FOUND, text="No such job.")]

    with FakeDaemon(paths, unknown), pytest.raises(RequestRefused, match="No such job"):
        next(follow(partial(local, paths=paths), JOB))


def test_a_job_that_was_known_and_is_known_no_more_is_lost_after_a_while(paths: Paths) -> None:
    def forgets(message: Message, payload: bytes) -> Iterable[Answer]:
        watches = sum(isinstance(m, Watch) for m in daemon.requests)
        if watches == 1:
            return [JobUpdate(request=message.request, view=view(Phase.RUNNING)), None]
        return [Refused(request=message.request, trouble=Trouble.NOT_FOUND, text="No such job.")]

    now = iter(range(0, 1000, 4))
    with FakeDaemon(paths, forgets) as daemon, pytest.raises(JobLost, match="kept its ledger are gone"):
        for _ in follow(partial(local, paths=paths), JOB, clock=lambda: next(now)):
            pass
    assert sum(isinstance(m, Watch) for m in daemon.requests) > 2


def test_parts_are_fetched_once_as_they_come(paths: Paths) -> None:
    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        match message:
            case Watch():
                views = (view(Phase.RUNNING, parts=1), view(Phase.RUNNING, parts=1), view(Phase.DONE, parts=3))
                return [JobUpdate(request=message.request, view=v) for v in views]
            case ReadPart(part=number):
                return [(Chunk(request=message.request, last=True), b"p%d" % number)]
        raise AssertionError(message)

    output, told = Output(), []
    connect = partial(local, paths=paths)
    with FakeDaemon(paths, script) as daemon:
        collector = Collector(connect, output, lambda parts, size: told.append((parts, size)))
        last = see_through(connect, JOB, collector, lambda v: None, lambda: None)
    assert last.phase is Phase.DONE
    assert output.parts == {0: b"p0", 1: b"p1", 2: b"p2"}
    assert told == [(1, 2), (2, 4), (3, 6)]
    assert sum(isinstance(m, ReadPart) for m in daemon.requests) == 3


def test_a_part_that_breaks_off_is_fetched_again(paths: Paths) -> None:
    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        if sum(isinstance(m, ReadPart) for m in daemon.requests) == 1:
            return [(Chunk(request=message.request), b"ha"), None]
        return [(Chunk(request=message.request, last=True), b"whole")]

    output = Output()
    with FakeDaemon(paths, script) as daemon:
        Collector(partial(local, paths=paths), output).take(view(Phase.DONE, parts=1))
    assert output.parts == {0: b"whole"}


def test_a_daemon_that_stops_in_the_middle_of_a_part_is_given_up(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "ANSWER_S", 1.0)

    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        if sum(isinstance(m, ReadPart) for m in daemon.requests) == 1:
            return [(Chunk(request=message.request), b"ha")]
        return [(Chunk(request=message.request, last=True), b"whole")]

    output = Output()
    with FakeDaemon(paths, script) as daemon:
        Collector(partial(local, paths=paths), output).take(view(Phase.DONE, parts=1))
    assert output.parts == {0: b"whole"}


def test_a_time_out_is_looked_at_while_a_part_is_waited_for(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "ANSWER_S", 60.0)
    monkeypatch.setattr(connection_module, "TICK_S", 0.01)
    ticks: list[int] = []

    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        if isinstance(message, Watch):
            return [JobUpdate(request=message.request, view=view(Phase.RUNNING, parts=1))]
        return [(Chunk(request=message.request), b"ha")]

    def tick() -> None:
        ticks.append(1)
        if len(ticks) > 5:
            raise TimeoutError

    connect = partial(local, paths=paths)
    with FakeDaemon(paths, script) as daemon, pytest.raises(TimeoutError):
        see_through(connect, JOB, Collector(connect, Output()), lambda v: None, tick)
    assert sum(isinstance(m, ReadPart) for m in daemon.requests) == 1


def test_a_part_that_nobody_can_read_is_an_error_once_the_job_is_over(paths: Paths) -> None:
    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        return [None]

    with FakeDaemon(paths, script):
        collector = Collector(partial(local, paths=paths), Output())
        collector.take(view(Phase.RUNNING, parts=1))
        with pytest.raises(JobLost, match="Part 0 of the output"):
            collector.take(view(Phase.DONE, parts=1))


@pytest.mark.parametrize("trouble", [Trouble.NOT_FOUND, Trouble.UNREACHABLE])
def test_a_part_whose_holder_died_is_fetched_when_it_has_been_made_again(paths: Paths, trouble: Trouble) -> None:
    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        match message:
            case Watch():
                yield JobUpdate(request=message.request, view=view(Phase.RUNNING, parts=1))
                yield JobUpdate(request=message.request, view=view(Phase.RUNNING), gone=(0,))
                yield JobUpdate(request=message.request, view=view(Phase.DONE, parts=1))
            case ReadPart() if sum(isinstance(m, ReadPart) for m in daemon.requests) <= 2:
                yield Refused(request=message.request, trouble=trouble, text="The job has no part 0 yet.")
            case _:
                yield Chunk(request=message.request, last=True), b"again"

    output, connect = Output(), partial(local, paths=paths)
    with FakeDaemon(paths, script) as daemon:
        see_through(connect, JOB, Collector(connect, output), lambda v: None, lambda: None)
    assert output.parts == {0: b"again"}


def test_a_part_that_was_made_again_with_other_bytes_replaces_the_first(paths: Paths) -> None:
    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        reads = sum(isinstance(m, ReadPart) for m in daemon.requests)
        return [(Chunk(request=message.request, last=True), b"first" if reads == 1 else b"second")]

    source = Source(digest=Digest(b"d" * 32), start=0, end=6, holders=(NODE,))
    changed = msgspec.structs.replace(view(Phase.DONE), parts=(Part(number=0, source=source),))
    output = Output()
    with FakeDaemon(paths, script) as daemon:
        collector = Collector(partial(local, paths=paths), output)
        for seen in (view(Phase.RUNNING, parts=1), changed, changed):
            collector.take(seen)
    assert output.parts == {0: b"second"}
    assert collector.size_bytes == len(b"second")


def test_strength_counts_the_living_and_notices_other_machines(paths: Paths) -> None:
    here = NodeView(node=NODE, name="a", state="alive", pid=1, boot=1, slots=2)
    there = NodeView(node=OTHER, name="b", state="alive", pid=1, boot=1, slots=4)
    dead = NodeView(node=NodeId(bytes(16)), name="c", state="dead", pid=1, boot=1, slots=8)
    views = [(here, dead)]

    def script(message: Message, payload: bytes) -> Iterable[Answer]:
        assert isinstance(message, ListNodes)
        return [Nodes(request=message.request, views=views[-1])]

    with FakeDaemon(paths, script), local(paths=paths) as connection:
        assert strength(connection, paths) == session.Strength(slots=2, one_machine=True)
        views.append((here, there))
        assert strength(connection, paths) == session.Strength(slots=6, one_machine=False)


def test_a_node_that_dies_for_good_ends_the_watching(paths: Paths) -> None:
    def dies(message: Message, payload: bytes) -> Iterable[Answer]:
        yield JobUpdate(request=message.request, view=view(Phase.RUNNING))
        daemon.close()
        yield None

    now = iter(range(0, 1000, 4))
    daemon = FakeDaemon(paths, dies)
    with pytest.raises(NodeUnavailable, match="No p2premap node answers"):
        for _ in follow(partial(local, paths=paths), JOB, clock=lambda: next(now)):
            pass


def test_a_job_of_which_nothing_changed_for_long_is_followed_when_its_only_node_comes_back(paths: Paths) -> None:
    def quiet(message: Message, payload: bytes) -> Iterable[Answer]:
        return [JobUpdate(request=message.request, view=view(Phase.RUNNING))]

    now, daemon = [0.0], FakeDaemon(paths, quiet)
    turns = follow(partial(local, paths=paths), JOB, look_s=0.01, clock=lambda: now[0])
    assert next(turns) is not None
    now[0] += 10 * module.LOST_S
    assert next(turns) is None
    daemon.close()
    while now[0] < 10.5 * module.LOST_S:
        assert next(turns) is None
        now[0] += 1
    daemon.path.unlink()
    with FakeDaemon(paths, quiet):
        while next(turns) is None:
            pass
        turns.close()


def test_a_job_that_nobody_knows_any_more_is_lost_however_slowly_that_is_told(paths: Paths) -> None:
    def forgets(message: Message, payload: bytes) -> Iterable[Answer]:
        if len(daemon.requests) == 1:
            return [JobUpdate(request=message.request, view=view(Phase.RUNNING)), None]
        asked.set()
        told.wait(60)
        return [Refused(request=message.request, trouble=Trouble.NOT_FOUND, text="No such job.")]

    now, asked, told = [0.0], threading.Event(), threading.Event()

    def tick(_: object) -> None:
        if asked.is_set() and not told.is_set():
            now[0] += module.LOST_S / 5
            if now[0] > module.LOST_S:
                told.set()
        assert len(daemon.requests) < 20

    with FakeDaemon(paths, forgets) as daemon:
        turns = follow(partial(local, paths=paths), JOB, look_s=0.01, clock=lambda: now[0])
        with pytest.raises(JobLost):
            deque(map(tick, turns), 0)


def test_a_job_is_not_handed_in_again_and_again_at_a_node_that_was_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    def silent(path: Path) -> Connection:
        looks.append(path)
        raise connection_module._Silent("it is stopped")

    monkeypatch.setattr(connection_module, "_connect_once", silent)
    with pytest.raises(NodeSilent, match="may be stopped") as raised:
        hand_in(
            partial(connect_to, "here", patience_s=0.0),
            Submission(spec=spec(), blobs=(), files=(), bytes_in=0, tasks=0),
        )
    assert len(looks) == 1
    assert problem_of(raised.value).status == HTTPStatus.SERVICE_UNAVAILABLE


def test_where_no_node_answers_one_part_is_tried_and_not_each() -> None:
    tried = []

    def connect(**_: object) -> Connection:
        tried.append(1)
        raise NodeSilent("It says nothing.")

    with pytest.raises(JobLost):
        Collector(connect, Output()).take(view(Phase.DONE, parts=100))
    assert tried == [1]
