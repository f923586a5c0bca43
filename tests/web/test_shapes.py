"""What the API says besides `--json`: how a vertex job gets on, who led a job, from what its view tells."""

from __future__ import annotations

import msgspec

from p2premap.client.shapes import EndShape, JobShape
from p2premap.tasks.job import Phase
from p2premap.vertex.plan import StepRow
from p2premap.vertex.told import Told
from p2premap.web.jobs import VERTEX, _graph
from tests.web.test_hub import view


def test_a_vertex_job_shows_its_supersteps() -> None:
    row = StepRow(superstep=3, active=5, computed=6, sent=7, dropped=1, seconds=0.5, values=(("error", 0.25),))
    told = Told(vertices=10, edges=20, supersteps=4, checkpoints=1, rows=(row,), dropped=1, why="converged")
    graph = _graph(msgspec.structs.replace(view(told=msgspec.msgpack.encode(told)), kind=VERTEX))
    assert graph is not None
    assert (graph.vertices, graph.supersteps, graph.why) == (10, 4, "converged")
    assert msgspec.to_builtins(graph.rows[0]) == {
        "superstep": 3, "active": 5, "computed": 6, "sent": 7, "dropped": 1, "seconds": 0.5, "values": {"error": 0.25},
    }  # fmt: skip
    assert _graph(view()) is None
    assert _graph(msgspec.structs.replace(view(), kind=VERTEX)) is None


def test_progress_is_of_the_tasks_that_are_planned() -> None:
    assert JobShape.of(view(stages=0)).progress == 0.0
    assert JobShape.of(view(stages=2)).progress == 0.25


def test_a_callback_tells_the_job_and_its_output() -> None:
    told = msgspec.to_builtins(EndShape.of_end(view(Phase.DONE)))
    assert set(told) == {*msgspec.to_builtins(JobShape.of(view())), "results"}
