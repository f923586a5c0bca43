"""What nodes tell of jobs that they do not lead."""

from __future__ import annotations

import pytest

from p2premap.ids import NOBODY
from p2premap.node.outlines import age_s, aged
from p2premap.tasks.job import JobView, Phase

SUBMITTED = 1_000_000.0
DAY_S = 86_400.0


def view(phase: Phase, *, age_s: float, lasted_s: float = 0.0, submitted: float = SUBMITTED) -> JobView:
    return JobView(
        job=b"j" * 16,
        name="count",
        kind="mapreduce",
        phase=phase,
        leader=NOBODY,
        leader_name="",
        leader_pid=0,
        age_s=age_s,
        lasted_s=lasted_s,
        submitted=submitted,
    )


def test_a_job_of_yesterday_is_a_day_old_after_a_restart() -> None:
    on_disk = view(Phase.DONE, age_s=3.0, lasted_s=3.0)
    assert aged(on_disk, SUBMITTED + DAY_S).age_s == DAY_S
    assert aged(on_disk, SUBMITTED - 5.0).age_s == 3.0, "the clock was set back"
    assert aged(view(Phase.DONE, age_s=3.0, submitted=0.0), SUBMITTED + DAY_S).age_s == 3.0, "nobody knows"


@pytest.mark.parametrize("seen", [view(Phase.DONE, age_s=9.0, lasted_s=3.0), view(Phase.RUNNING, age_s=9.0)])
def test_what_this_node_saw_has_the_age_that_it_measured(seen: JobView) -> None:
    """Clocks of people differ, from machine to machine."""
    assert aged(seen, SUBMITTED + 3_600.0) == seen


def test_a_job_that_stood_still_with_all_nodes_is_as_old_as_the_calendar_says() -> None:
    """What it has yielded so long ago must not count as older than the job."""
    assert age_s(view(Phase.RUNNING, age_s=60.0), SUBMITTED + 9 * DAY_S) == 9 * DAY_S
