"""What attempts print, the files they leave, and the processes they start themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2premap.node.logs import list_logs, read_log
from p2premap.tasks.job import Outcome
from tests.node.slots_house import JOB, STAGE, bench, found

pytestmark = pytest.mark.trio


@pytest.fixture(autouse=True)
def importable_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "worker"))


async def test_scratch_files_are_gone_before_the_next_attempt(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        ends = await b.ends("scratch", "scratch", "scratch")
        assert [end.value for end in ends] == [b"0", b"0", b"0"]


async def test_result_blobs_are_in_the_store_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        end = await b.end("blob abc")
        assert b.blobs.get(end.blobs[0].digest) == b"abc" * 10
        assert end.blobs[0].size == 30
        assert (await b.end("half_blob")).outcome is Outcome.CRASHED
        assert found(tmp_path, "blobs/tmp/*") == []


async def test_output_is_kept_for_each_attempt(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.ends("speak up", "nothing", "speak again")
        logs = list_logs(b.executor.logs, JOB)
        assert [(log.stage, log.task, log.attempt) for log in logs] == [(0, 0, 0), (0, 2, 0)]
        lines = read_log(logs[0]).decode().splitlines()
        assert lines[:2] == ["task 0 says up", "on stderr"]
        assert lines[2].endswith("INFO exercise: logged")
        assert lines[3:] == ["from a subprocess"]
        assert list_logs(b.executor.logs, JOB, task=2) == [logs[1]]


async def test_the_tail_of_the_output_comes_with_a_failure(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        end = await b.end("exit 4")
        assert end.detail == "leaving\n"
        (log,) = list_logs(b.executor.logs, JOB)
        assert read_log(log) == b"leaving\n"


async def test_a_long_log_is_cut_in_the_middle(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.end("chatter 200000")
        (log,) = list_logs(b.executor.logs, JOB, stage=STAGE.number)
        data = read_log(log)
        assert len(data) < (1 << 20) + 100
        assert data.startswith(b"line 0\n")
        assert data.endswith(b"line 199999\n")
        assert b"[p2premap cut " in data


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_user_code_may_use_multiprocessing(tmp_path: Path, method: str) -> None:
    async with bench(tmp_path) as b:
        end = await b.end(f"pool {method}")
        assert (end.outcome, end.value) == (Outcome.DONE, b"45"), end.detail


async def test_a_fork_that_comes_back_is_not_a_second_worker(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with bench(tmp_path / "node") as b:
        await b.end("nothing")
        ends = await b.ends("nothing", "forked_back", f"note {notes}")
        assert [end.value for end in ends] == [b"", b"once", b"noted"]
    assert notes.read_text() == "2\n", "the attempt after it ran once"
