"""While the only node of the machine stands still, whoever waits for it can stop waiting within a look at it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

import p2premap
from p2premap.client import callline, connecting, handle, jobs, reach, session
from p2premap.client.connection import PATIENCE_S, WELCOME_S, Connection, NodeSilent, connect_to, local
from p2premap.client.handle import Job
from p2premap.client.jobs import follow
from p2premap.client.session import Collector, see_through, whole_view
from p2premap.errors import JobLost
from p2premap.node.paths import Paths
from p2premap.tasks.job import Phase
from tests.client.callhouse import CallHouse
from tests.client.test_jobs import JOB, Output, view
from tests.still import Clock, standing_still

LATE_S = 1.5 * WELCOME_S
"""A look at a node that says nothing takes `WELCOME_S`."""


class Enough(Exception):
    """Somebody waits no longer."""


@pytest.mark.parametrize(
    "connect",
    [
        local,
        partial(local, "pi1"),
        reach.anywhere,
        partial(reach.anywhere, insist=False),
        partial(reach.anywhere, "pi1", insist=False),
        partial(connect_to, "here"),
    ],
)
def test_whoever_asks_is_heard_between_two_looks(paths: Paths, connect: Callable[..., Connection]) -> None:
    with standing_still(paths) as clock, pytest.raises(Enough):
        connect(tick=partial(clock.is_over, 3.0, Enough))
    assert 3.0 <= clock.now <= 3.0 + LATE_S


@pytest.mark.parametrize("connect", [local, partial(reach.anywhere, insist=False), partial(connect_to, "here")])
def test_whoever_waits_himself_looks_once(paths: Paths, connect: Callable[..., Connection]) -> None:
    with standing_still(paths) as clock, pytest.raises(NodeSilent, match="may be stopped"):
        connect(patience_s=0.0)
    assert clock.looks == 1


def test_others_are_patient_once(paths: Paths) -> None:
    with standing_still(paths) as clock, pytest.raises(NodeSilent):
        reach.anywhere(insist=False)
    assert PATIENCE_S <= clock.now <= PATIENCE_S + 2 * LATE_S


def test_a_program_that_begins_is_more_patient_once(paths: Paths) -> None:
    with standing_still(paths) as clock, pytest.raises(NodeSilent):
        p2premap.connect(told=lambda text: pytest.fail(text))
    assert connecting.BEGIN_S <= clock.now <= connecting.BEGIN_S + 2 * LATE_S


@pytest.mark.parametrize("timeout", [0.0, 1.0, 4.0])
def test_who_waits_for_a_job_for_so_long_waits_no_longer(paths: Paths, timeout: float) -> None:
    with standing_still(paths, handle, jobs, session) as clock:
        assert not Job(partial(reach.anywhere, insist=False), JOB).wait(timeout)
    assert clock.now <= max(timeout, handle.GLANCE_S) + LATE_S


def test_a_representation_does_not_wait_for_long(paths: Paths) -> None:
    with standing_still(paths, handle, jobs, session) as clock:
        assert repr(Job(partial(local, paths=paths), JOB)) == f"<Job {JOB.hex()[:8]}>"
    assert clock.now <= handle.GLANCE_S + LATE_S


def test_who_waits_for_a_job_for_longer_hears_of_the_node(paths: Paths) -> None:
    with standing_still(paths, handle, jobs, session) as clock, pytest.raises(NodeSilent):
        Job(partial(local, paths=paths), JOB).wait(60)
    assert PATIENCE_S <= clock.now <= PATIENCE_S + LATE_S


def test_who_follows_a_job_has_a_turn_between_two_looks(paths: Paths) -> None:
    turns: list[float] = []
    with standing_still(paths, jobs) as clock, pytest.raises(NodeSilent):
        turns.extend(clock.now for _ in follow(partial(local, paths=paths), JOB, clock=lambda: clock.now))
    assert max(after - before for before, after in zip([0.0, *turns], turns, strict=False)) <= LATE_S
    assert PATIENCE_S - LATE_S <= turns[-1] <= PATIENCE_S + LATE_S


def test_who_sees_a_job_through_can_stop(paths: Paths) -> None:
    connect = partial(local, paths=paths)
    with standing_still(paths, jobs, session) as clock, pytest.raises(Enough):
        see_through(
            connect,
            JOB,
            Collector(connect, Output()),
            lambda view: None,
            partial(clock.is_over, 2.0, Enough),
            known=True,
        )
    assert clock.now <= 2.0 + LATE_S


def test_who_asks_for_all_parts_can_stop(paths: Paths) -> None:
    with standing_still(paths, jobs, session) as clock, pytest.raises(Enough):
        whole_view(partial(local, paths=paths), JOB, partial(clock.is_over, 2.0, Enough))
    assert clock.now <= 2.0 + LATE_S


def test_who_fetches_a_part_can_stop(paths: Paths) -> None:
    def take(phase: Phase, until: float) -> Clock:
        collector = Collector(partial(local, paths=paths), Output())
        with standing_still(paths, session) as clock, pytest.raises((Enough, JobLost)) as raised:
            collector.take(view(phase, parts=3), partial(clock.is_over, until, Enough))
        assert raised.type is (Enough if until < PATIENCE_S else JobLost)
        return clock

    assert take(Phase.RUNNING, 2.0).now <= 2.0 + LATE_S
    assert PATIENCE_S <= take(Phase.DONE, 60.0).now <= PATIENCE_S + LATE_S


def test_a_programs_line_does_the_waiting_itself(
    house: CallHouse, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = house.daemon(paths)
    cluster = p2premap.connect()
    house.deaf = True
    future = cluster.submit(abs, -1)
    monkeypatch.setattr(callline, "LOST_S", 0.3)
    with standing_still(paths, callline) as clock:
        daemon.close()
        with pytest.raises(JobLost, match="may be stopped"):
            future.result(60)
        cluster.shutdown()
    assert clock.looks <= 4, "the socket of the dead one is looked at, too"
