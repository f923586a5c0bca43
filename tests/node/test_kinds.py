"""Kinds of jobs: found by entry point, imported when they are needed, and kept apart from whoever leads a job."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2premap import plugins
from p2premap.errors import JobError, JobRejected
from p2premap.ids import JobId, NodeId
from p2premap.node.kinds import Kinds, Unfit
from p2premap.tasks.calls import Calls
from p2premap.tasks.director import Lasting, Tells, Unfolds
from p2premap.tasks.inputs import ReadsInputs
from p2premap.tasks.mapreduce import MapReduce

JOB, HOME = JobId(b"j" * 16), NodeId(b"h" * 16)
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package with one module for jobs: its name, the entry points, and its source."""

    installed = list[str]()

    def install(name: str, entry_points: str, source: str = "") -> None:
        installed.append(name)
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
        (tmp_path / f"{name}.py").write_text(source)

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for name in installed:  # and nothing else: a module of ours that is imported anew has other classes than before
        sys.modules.pop(name, None)


def test_the_built_in_kinds_are_found_like_all_others() -> None:
    kinds = Kinds()
    assert {"calls", "mapreduce"} <= set(kinds)
    assert kinds["calls"] is Calls
    assert kinds["mapreduce"] is MapReduce
    with pytest.raises(KeyError):
        kinds["nonesuch"]


def test_entry_points_are_read_as_the_specification_says(install: Install) -> None:
    install(
        "oddments",
        "# a comment\n[console_scripts]\nmapreduce = not.this:one\n\n[p2premap.modules]\n"
        "; another\nspaced  =  pack.module : Class.Inner  [extra]\nplain=pack:Other\n[other]\nx = y\n",
    )
    found = plugins.find("p2premap.modules")
    assert found["plain"] == plugins.Plugin("plain", "pack:Other")
    assert found["spaced"].target == "pack.module : Class.Inner"
    assert found["mapreduce"].target == "p2premap.tasks.mapreduce:MapReduce"
    assert "x" not in found


def test_a_kind_is_imported_when_it_is_asked_for_and_not_before(install: Install) -> None:
    install("lazykind", "[p2premap.modules]\nlazykind = lazykind:Director\n", "class Director: pass\n")
    kinds = Kinds()
    assert "lazykind" in list(kinds)
    assert "lazykind" not in sys.modules
    assert kinds["lazykind"]
    assert "lazykind" in sys.modules


@pytest.mark.parametrize("source", ["import nowhere_at_all\n", "", "raise RuntimeError('no')\n"])
def test_a_kind_that_cannot_be_imported_is_as_good_as_none(
    install: Install, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    install("brokenkind", "[p2premap.modules]\nbrokenkind = brokenkind:Director\n", source)
    assert Kinds().get("brokenkind") is None
    assert "brokenkind" in caplog.text


FOREIGN = """
from p2premap.errors import JobRejected
from p2premap.tasks.director import StagePlan

class Director:
    runtime, planner, streams = "foreign:Runtime", "", False

    def __init__(self, *, job, home, plan):
        if plan == b"refused":
            raise JobRejected("Such a plan is refused.")
        if plan == b"bug":
            raise ZeroDivisionError("a bug")

    def first(self): return StagePlan(name="one", function="one", tasks=1)
    def next(self, number, results): return {}["missing"]
    def task(self, stage, task): raise RuntimeError("no task")
    def parts(self, task, result): return None
    def extend(self, payload): raise ValueError(payload)
"""


def test_what_a_foreign_director_raises_is_the_jobs_trouble(install: Install) -> None:
    install("foreign", "[p2premap.modules]\nforeign = foreign:Director\n", FOREIGN)
    make = Kinds()["foreign"]
    with pytest.raises(JobRejected, match="Such a plan is refused"):
        make(job=JOB, home=HOME, plan=b"refused")
    with pytest.raises(JobError, match=r"The module for jobs of kind 'foreign' failed: ZeroDivisionError: a bug\."):
        make(job=JOB, home=HOME, plan=b"bug")
    director = make(job=JOB, home=HOME, plan=b"")
    assert director.first().tasks == 1
    assert not isinstance(director, ReadsInputs)
    assert not isinstance(director, Unfolds | Lasting)
    for call in (
        lambda: director.next(0, ()),
        lambda: director.task(None, 0),  # type: ignore[arg-type]
        lambda: director.parts(0, None),  # type: ignore[arg-type]
        lambda: director.extend(b""),
    ):
        with pytest.raises(JobError, match="The module for jobs of kind 'foreign' failed"):
            call()


def test_a_foreign_director_that_does_more_does_so_still(install: Install) -> None:
    more = (
        "class Both(Director):\n"
        "    home, input_bytes = b'h' * 16, 7\n"
        "    def input_files(self): return ['/a']\n"
        "    def inputs(self): return []\n"
        "    def spread(self, holders): self.holders = holders\n"
        "    def unfold(self, task, result): return b'more'\n"
        "    def meet(self, node, name): return name.encode()\n"
        "    def close(self, without): return bytes(without)\n"
        "    def tell(self): return b'told'\n"
    )
    install("bothkind", "[p2premap.modules]\nbothkind = bothkind:Both\n", FOREIGN + more)
    director = Kinds()["bothkind"](job=JOB, home=HOME, plan=b"")
    assert isinstance(director, ReadsInputs)
    assert (director.input_bytes, list(director.input_files())) == (7, ["/a"])
    assert isinstance(director, Unfolds)
    assert director.unfold(0, None) == b"more"  # type: ignore[arg-type]
    assert isinstance(director, Lasting)
    assert (director.meet(HOME, "ada"), director.close((1, 2))) == (b"ada", b"\x01\x02")
    assert isinstance(director, Tells)
    assert director.tell() == b"told"


def test_a_node_runs_what_is_installed_and_its_owner_does_not_refuse(install: Install) -> None:
    install("herekind", "", "raise RuntimeError('imported')\n")
    unfit = Unfit(("thumbnails",))
    assert unfit("p2premap.worker.mapreduce:MapReduceRuntime", "map") == ""
    assert unfit("herekind.worker:Runtime", "any") == "", "looked for, and not imported"
    assert "nowhere_at_all" in unfit("nowhere_at_all.worker:Runtime", "any")
    assert "thumbnails" in unfit("p2premap.worker.action:ActionRuntime", "thumbnails/unit")
    assert unfit("p2premap.worker.action:ActionRuntime", "others/unit") == ""
