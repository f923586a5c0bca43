"""Each way in which user code goes wrong is reported as what it is, again and again, and the node stays small.

The default run does each twice, the deep run (`pytest -m deep`) twenty times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import pytest
import trio

from p2premap.tasks.events import EndJob
from p2premap.tasks.job import AttemptEnd, Limits, Outcome
from tests.node.slots_house import JOB, LIMITED, Bench, alive, bench, gone

pytestmark = pytest.mark.trio

GROWTH_BYTES_MAX: Final = 48 << 20
"""By how much the process that holds the executor may grow, whatever its workers do."""
GIB: Final = 1 << 30


class Case(NamedTuple):
    """What user code does, and what is reported of it."""

    call: str
    outcome: Outcome
    error: str = ""
    detail: str = ""
    limits: Limits = Limits()


CASES: Final = {
    "segfaults": Case("segfault", Outcome.CRASHED, "was killed by SIGSEGV", "in segfault"),
    "exits": Case("exit 7", Outcome.CRASHED, "exited with code 7", "leaving"),
    "loops": Case("loop {path}", Outcome.TIME_LIMIT, "longer than its limit of 3600 s", "in loop", LIMITED),
    "eats memory": Case(
        "hog", Outcome.MEMORY_LIMIT, "over its limit of 100 MiB", limits=Limits(memory_bytes=100 << 20)
    ),
    "closes stdout": Case("close_output", Outcome.DONE),
    "forks children": Case("fork 8 {path}", Outcome.DONE),
    "returns 1 GB": Case(f"large {GIB}", Outcome.RAISED, f"a result value of {GIB} bytes is over", "it must be a blob"),
    "raises 256 MB": Case(f"fail_at_length {GIB // 4}", Outcome.RAISED, "ValueError: xxxxxxxx", "cut ...]"),
}


@pytest.fixture(autouse=True)
def importable_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2premap.node.watch.TIME_LIMIT_GRACE_S", 60.0)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "worker"))


@pytest.mark.parametrize("name", CASES)
async def test_what_user_code_does_is_told_apart(name: str, tmp_path: Path) -> None:
    await again_and_again(CASES[name], 2, tmp_path)


@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
async def test_what_user_code_does_is_told_apart_twenty_times(name: str, tmp_path: Path) -> None:
    await again_and_again(CASES[name], 20, tmp_path)


async def again_and_again(case: Case, times: int, path: Path) -> None:
    """The case, with a well-behaved attempt before and after it, in one batch each time."""
    async with bench(path / "node") as b:
        before = await one_round(case, b, path / "children")  # whatever is loaded once is loaded
        begin_peak()
        start = peak_bytes()
        for _ in range(times):
            end = await one_round(case, b, path / "children")
            assert end.outcome is before.outcome is case.outcome
            assert case.error in end.error
            assert case.detail in end.detail
            assert len(end.error) + len(end.detail) < 40_000
        assert peak_bytes() - start < GROWTH_BYTES_MAX


async def one_round(case: Case, b: Bench, children: Path) -> AttemptEnd:
    """Three attempts: the one in the middle is the case's."""
    async with trio.open_nursery() as nursery:
        if case.limits is LIMITED:
            nursery.start_soon(b.run_out, children)
        first, end, last = await b.ends("echo a", case.call.format(path=children), "speak up", limits=case.limits)
    assert first.outcome is last.outcome is Outcome.DONE
    if left := taken_from(children):
        assert any(map(alive, left)), "they may outlive the attempt, but not the job"
        b.executor.perform(EndJob(job=JOB))
        for pid in left:
            await gone(pid)
    return end


def taken_from(path: Path) -> list[int]:
    """The process ids in this file, if there is one; then it is removed."""
    if not path.exists():
        return []
    left = [int(pid) for pid in path.read_text().split()]
    path.unlink()
    return left


def begin_peak() -> None:
    """From now on `peak_bytes` is of what comes (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory that this process has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
