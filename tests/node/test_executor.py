"""The executor with real worker processes: each way an attempt can end, told as what it is."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from p2premap.ids import JobId
from p2premap.tasks.events import EndJob, StopSlot
from p2premap.tasks.job import INLINE_BYTES_MAX, Outcome
from tests.node.slots_house import JOB, bench, exists, found, until

pytestmark = pytest.mark.trio


@pytest.fixture(autouse=True)
def importable_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "worker"))


async def test_an_attempt_is_done(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        end = await b.end("echo hello")
        assert (end.outcome, end.value, end.error) == (Outcome.DONE, b"hello", "")
        assert (end.records_in, end.records_out) == (1, 2)
        assert b.executor.statistics().attempts == {Outcome.DONE: 1}


async def test_the_process_is_reused_within_a_job_and_replaced_for_another(tmp_path: Path) -> None:
    other = JobId(b"k" * 16)
    async with bench(tmp_path) as b:
        pids = [(await b.end("pid")).value, (await b.end("pid")).value, (await b.end("pid", job=other)).value]
        assert pids[0] == pids[1] != pids[2]
        assert (await b.end("pid", job=other, bundle=b"changed")).value not in pids


async def test_an_idle_process_begins_with_what_it_is_given_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        pid = (await b.end("pid")).value
        while b.executor._slots[0]._nap is None:
            await trio.lowlevel.checkpoint()
        begun: list[object] = []
        b.on_report = lambda report: begun.append(b.executor._slots[0]._turn)
        b.executor.perform(b.batch("pid"))
        first = b.executor._slots[0]._turn
        assert first is not None, "no turn of the event loop lies between"
        b.executor.perform(b.batch("pid"))
        await b.over(3)
        assert begun[0] is first
        assert [end.value for report in b.reports for end in report.ends] == [pid] * 3


async def test_a_process_that_ends_while_it_has_nothing_to_do_is_replaced(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        pid = int((await b.end("pid")).value)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not b.executor.statistics().processes)
        assert int((await b.end("pid")).value) != pid
        assert b.executor.statistics().attempts == {Outcome.DONE: 2}


async def test_the_runtime_gets_the_bundle_and_a_directory_of_its_own(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        bundle, directory = (await b.end("bundle_and_directory", bundle=b"some code")).value.decode().rsplit(" ", 1)
        assert bundle == "some code"
        assert found(Path(directory).parent, "code") == [Path(directory)]
        assert Path(directory).is_relative_to(tmp_path)


async def test_an_exception_is_told_with_the_user_frames_only(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        end = await b.end("fail too bad")
        assert end.outcome is Outcome.RAISED
        assert end.error.startswith("ValueError: too bad (exercise.py, line ")
        assert "KeyError: 'missing'" in end.detail, "the cause is told too"
        assert "loop.py" not in end.detail
        assert (await b.end("unprintable")).error.startswith("Unprintable: (its text cannot be shown)")
        assert (await b.end("leave 3")).error == "The code called sys.exit(3)."


async def test_wrong_results_are_sentences(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        wrong, large, fits = await b.ends("wrong", f"large {INLINE_BYTES_MAX + 1}", f"large {INLINE_BYTES_MAX}")
        assert wrong.outcome is large.outcome is Outcome.RAISED
        assert "returned str where a Result is due" in wrong.error
        assert "must be a blob" in large.error
        assert fits.outcome is Outcome.DONE


async def test_code_that_cannot_be_imported_is_the_answer_of_every_attempt(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        ends = await b.ends("nothing", "nothing", bundle=b"raise")
        assert [end.outcome for end in ends] == [Outcome.RAISED] * 2
        assert all("ImportError: no module named nowhere" in end.error for end in ends)
        assert b.executor.statistics().processes_started == 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("exit 3", "exited with code 3"),
        ("exit 0", "exited with code 0"),
        ("segfault", "was killed by SIGSEGV"),
        ("kill", "was killed by SIGKILL"),
    ],
)
async def test_a_crash_names_the_exit_code_or_the_signal(tmp_path: Path, call: str, text: str) -> None:
    async with bench(tmp_path) as b:
        end = await b.end(call)
        assert end.outcome is Outcome.CRASHED
        assert text in end.error
        assert end.peak_bytes > 1 << 20
        assert (await b.end("echo on")).outcome is Outcome.DONE, "the slot goes on"


async def test_a_segmentation_fault_shows_where_it_was(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert "in segfault" in (await b.end("segfault")).detail


async def test_after_a_crash_only_the_attempt_that_ran_is_crashed(tmp_path: Path) -> None:
    """64 attempts, one exits in the middle: each of the others runs exactly once."""
    notes = tmp_path / "notes"
    async with bench(tmp_path / "node") as b:
        calls = [f"note {notes}"] * 64
        calls[31] = "exit 1"
        ends = await b.ends(*calls)
        outcomes = [end.outcome for end in ends]
        assert outcomes[31] is Outcome.CRASHED
        assert outcomes.count(Outcome.DONE) == 63
        assert b.executor.statistics().processes_started == 2
    assert sorted(map(int, notes.read_text().split())) == [n for n in range(64) if n != 31]


async def test_code_that_kills_its_process_when_imported_ends_each_attempt_as_a_crash(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        ends = await b.ends("nothing", "nothing", bundle=b"exit")
        assert [(end.outcome, end.error) for end in ends] == [
            (Outcome.CRASHED, "The worker process exited with code 9.")
        ] * 2


async def test_a_bad_interpreter_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    async with bench(tmp_path) as b:
        end = await b.end("nothing")
        assert end.outcome is Outcome.REFUSED
        assert end.error == "No worker process could be started: No such file or directory."


async def test_an_interpreter_without_p2premap_refuses_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module named p2premap >&2\nexit 1\n")
    python.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(python))
    async with bench(tmp_path) as b:
        ends = await b.ends("nothing", "nothing")
        assert [end.outcome for end in ends] == [Outcome.REFUSED] * 2
        assert "before it could begin" in ends[0].error
        assert "no module named p2premap" in ends[0].detail


async def test_a_crash_does_not_hurt_another_slot(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.executor.perform(b.batch(f"tidy {tmp_path}/tidy", slot=1))
        await exists(tmp_path / "tidy.began")
        assert (await b.end("segfault")).outcome is Outcome.CRASHED
        (running,) = b.executor.running()
        assert (running.slot, running.task, running.job) == (1, 0, JOB)
        assert running.pid > 0
        assert running.seconds > 0


async def test_an_ended_job_leaves_no_process_and_no_files(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        pid = int((await b.end("pid")).value)
        b.executor.perform(EndJob(job=JOB))
        await until(lambda: not b.executor.statistics().processes and not found(tmp_path, "work/*/*"))
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_an_empty_batch_is_over_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert await b.ends() == []


async def test_a_disk_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        batch = b.batch("nothing")
        (tmp_path / "work").rmdir()
        (tmp_path / "work").write_text("in the way")
        b.executor.perform(batch)
        await b.over()
        (end,) = b.reports[0].ends
        assert end.outcome is Outcome.REFUSED
        assert end.error == "No worker process could be started: Not a directory."


async def test_what_an_earlier_run_left_is_removed_at_start(tmp_path: Path) -> None:
    left = tmp_path / "work" / "old" / "0.0"
    left.mkdir(parents=True)
    (left / "file").write_text("x")
    async with bench(tmp_path):
        assert not left.exists()


async def test_an_attempt_that_cuts_the_shared_memory_hurts_itself_only(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        shrink, after = await b.ends("shrink", "echo on")
        assert (shrink.outcome, shrink.error) == (Outcome.CRASHED, "The worker process exited with code 3.")
        assert after.outcome is Outcome.DONE


@pytest.mark.parametrize("status", [0x7F, 0x137F, 0xFFFF, 2**40, 2**64 - 2])
async def test_an_attempt_that_lies_about_its_end_is_answered(tmp_path: Path, status: int) -> None:
    async with bench(tmp_path) as b:
        end = await b.end(f"scribble {status}")
        assert end.outcome is Outcome.CRASHED
        assert (await b.end("echo on")).outcome is Outcome.DONE


async def test_a_source_that_breaks_the_stager_costs_its_batch_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw is an answer, not the end of the node."""
    async with bench(tmp_path) as b:
        with monkeypatch.context() as broken:
            broken.setattr(b.stager, "locate", fail)
            ends = await b.ends("echo a", "echo b")
        assert {(end.outcome, end.error) for end in ends} == {(Outcome.REFUSED, "This node failed: ZeroDivisionError.")}
        assert (await b.end("echo on")).outcome is Outcome.DONE


async def test_a_process_that_breaks_its_slot_costs_its_batch_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as b:
        with monkeypatch.context() as broken:
            broken.setattr("p2premap.node.turn.encode_orders", fail)
            ends = await b.ends("echo a", "echo b")
        assert {end.outcome for end in ends} == {Outcome.REFUSED}
        assert (await b.end("echo on")).outcome is Outcome.DONE


async def test_a_process_that_cannot_be_watched_is_waited_for_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as b:
        monkeypatch.setattr(os, "pidfd_open", full, raising=False)
        crash, after = await b.ends("exit 3", "echo on")
        assert (crash.outcome, after.outcome) == (Outcome.CRASHED, Outcome.DONE)


def fail(*args: object) -> None:
    raise ZeroDivisionError


def full(pid: int) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_a_batch_for_which_nothing_can_be_loaded_now_is_refused_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs batches is loaded with the first of them: a node without a free descriptor must outlive that."""
    async with bench(tmp_path) as b:
        with monkeypatch.context() as few:
            few.setitem(sys.modules, "p2premap.node.slots", None)
            refused = await b.end("pid")
            b.executor.perform(StopSlot(slot=0, batch=b.last, grace_s=0.0, reason="too late"))
        assert refused.outcome is Outcome.REFUSED
        assert refused.error.startswith("What runs tasks cannot be loaded on this node now: ")
        assert (await b.end("pid")).outcome is Outcome.DONE
