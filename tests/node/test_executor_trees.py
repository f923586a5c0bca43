"""Whole process trees end: grandchildren that left their session, and everything when the daemon is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from p2premap.node.processes import descendants
from p2premap.tasks.events import EndJob, StopSlot
from p2premap.tasks.job import Limits, Outcome
from tests.node.slots_house import JOB, LIMITED, UNLIMITED, alive, bench, exists, found, gone, supervisors, until

pytestmark = pytest.mark.trio

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def importable_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "worker"))


async def test_stop_reaches_a_grandchild_that_left_its_session(tmp_path: Path) -> None:
    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch(f"family {tmp_path}/pid"))
        await exists(tmp_path / "pid.ready")
        grandchild = read_pid(tmp_path / "pid")
        assert os.getsid(grandchild) == os.getpgid(grandchild) != os.getsid(0)
        b.executor.perform(StopSlot(slot=0, batch=1, grace_s=0.0, reason="It was cancelled."))
        await b.over()
        with pytest.raises(ProcessLookupError):
            os.kill(grandchild, 0)
        assert b.reports[0].ends[0].outcome is Outcome.STOPPED


@pytest.mark.parametrize("limits", [UNLIMITED, LIMITED], ids=["stopped", "over its time limit"])
async def test_nothing_of_the_tree_lives_when_the_end_is_told(tmp_path: Path, limits: Limits) -> None:
    """The worker itself tells at once that the soft signal has come; the grandchild is only being killed then."""
    async with bench(tmp_path / "node") as b:
        left_alive: list[bool] = []
        b.on_report = lambda report: left_alive.append(alive(read_pid(tmp_path / "pid")))
        b.executor.perform(b.batch(f"family {tmp_path}/pid", limits=limits))
        await b.run_out(tmp_path / "pid.ready")
        if not limits.time_s:
            b.executor.perform(StopSlot(slot=0, batch=1, grace_s=30.0, reason="It was cancelled."))
        await b.over()
        assert left_alive == [False]
        assert b.reports[0].ends[0].outcome is (Outcome.TIME_LIMIT if limits.time_s else Outcome.STOPPED)


async def test_a_limit_reaches_a_grandchild_that_left_its_session(tmp_path: Path) -> None:
    async with bench(tmp_path / "node") as b:
        end = await b.end(f"family_hog {tmp_path}/pid", limits=Limits(memory_bytes=150 << 20))
        assert end.outcome is Outcome.MEMORY_LIMIT
        with pytest.raises(ProcessLookupError):
            os.kill(read_pid(tmp_path / "pid"), 0)


async def test_nothing_is_left_when_the_executor_ends(tmp_path: Path) -> None:
    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch(f"family {tmp_path}/pid"))
        b.executor.perform(b.batch("nothing", slot=1))
        await exists(tmp_path / "pid.ready")
        await b.over()
        mine = supervisors()
        assert len(mine) == 2
    for pid in (*mine, read_pid(tmp_path / "pid")):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert found(tmp_path / "node", "work/*") == []


async def test_nothing_is_left_of_an_ended_job(tmp_path: Path) -> None:
    """A process that an attempt left behind may outlive the attempt, but not the job."""
    async with bench(tmp_path / "node") as b:
        await b.end(f"leave_child {tmp_path}/pid")
        left = read_pid(tmp_path / "pid")
        os.kill(left, 0)
        b.executor.perform(EndJob(job=JOB))
        await gone(left)


@pytest.mark.parametrize("call", ["family", "deaf_family"])
async def test_everything_ends_when_the_daemon_is_killed(tmp_path: Path, call: str) -> None:
    """kill -9 of the daemon: worker, supervisor and grandchildren go, even if the worker holds the GIL for ever."""
    with start_small_daemon(tmp_path, call) as daemon:
        try:
            with trio.fail_after(100):
                await exists(tmp_path / "pid.ready")
                grandchild = read_pid(tmp_path / "pid")
                # the supervisor is the subreaper; whoever was between may be ending still
                await until(lambda: grandchild in descendants(daemon.pid))
                tree = descendants(daemon.pid)
                assert len(tree) >= 3
                daemon.kill()
                for pid in tree:
                    await gone(pid)
        finally:
            daemon.kill()


async def test_a_killed_supervisor_takes_the_worker_with_it(tmp_path: Path) -> None:
    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch(f"stubborn {tmp_path}/ready", "echo b"))
        await exists(tmp_path / "ready")
        (supervisor,) = supervisors()
        (worker,) = descendants(supervisor)
        os.kill(supervisor, signal.SIGKILL)
        await b.over()
        await gone(worker)
        ends = [end for report in b.reports for end in report.ends]
        assert [end.outcome for end in ends] == [Outcome.CRASHED, Outcome.DONE]
        assert "lost its supervisor" in ends[0].error


async def test_a_worker_terminated_by_somebody_else_is_a_crash(tmp_path: Path) -> None:
    async with bench(tmp_path / "node") as b:
        b.executor.perform(b.batch(f"tidy {tmp_path}/tidy"))
        await exists(tmp_path / "tidy.began")
        (running,) = b.executor.running()
        os.kill(running.pid, signal.SIGTERM)
        await b.over()
        (end,) = b.reports[0].ends
        assert end.outcome is Outcome.CRASHED
        assert "SIGTERM" in end.error


async def test_a_worker_that_dies_while_idle_is_replaced(tmp_path: Path) -> None:
    async with bench(tmp_path / "node") as b:
        pid = int((await b.end("pid")).value)
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        end = await b.end("pid")
        assert end.outcome is Outcome.DONE
        assert int(end.value) != pid


async def test_a_worker_inherits_no_descriptor_of_the_daemon(tmp_path: Path) -> None:
    """Above all no listener: a dead daemon would seem to answer."""
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.set_inheritable(True)  # even what somebody made inheritable
    try:
        async with bench(tmp_path / "node") as b:
            await b.end("nothing", slot=1)
            lines = (await b.end("descriptors")).value.decode().splitlines()
    finally:
        listener.close()
    names = [line.partition(":")[2] for line in lines]
    sockets = [name for name in names if name.startswith("socket:")]
    assert len(sockets) == 1, f"its own socketpair only: {lines}"
    others = [name for name in names if name not in sockets]
    assert all("/dev/null" in n or "/work/" in n or "memfd:p2premap" in n or "/proc/" in n for n in others), lines


def read_pid(path: Path) -> int:
    return int(path.read_text())


def start_small_daemon(state: Path, call: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.node.test_executor_trees", str(state), call], cwd=ROOT)


async def small_daemon(state: Path, call: str) -> None:
    """What the test above kills: a process with an executor and one attempt that never ends."""
    async with bench(state / "node") as b:
        b.executor.perform(b.batch(f"{call} {state}/pid"))
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(small_daemon, Path(sys.argv[1]), sys.argv[2])
