"""Where logs lie, how they are found again, and how long they may be."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.ids import JobId
from p2premap.node import logs
from p2premap.tasks.job import StageId

JOB = JobId(b"j" * 16)


def store(root: Path, text: bytes, stage: StageId, task: int, attempt: int, *, bytes_max: int = 1 << 20) -> Path:
    output = root / "output"
    output.write_bytes(text)
    path = Path(logs.log_path(logs.job_directory(str(root / "logs"), JOB), stage, task, attempt))
    logs.store_output(str(output), str(path), bytes_max)
    assert not output.exists()
    return path


def test_logs_are_found_by_stage_and_task_in_order(tmp_path: Path) -> None:
    lineage = StageId(1, b"\xab" * 8)
    keys = [(StageId(0, b""), 10, 0), (StageId(0, b""), 9, 1), (lineage, 9, 0), (StageId(0, b""), 9, 0)]
    for stage, task, attempt in keys:
        store(tmp_path, b"hello", stage, task, attempt)
    found = logs.list_logs(str(tmp_path / "logs"), JOB)
    assert [(f.stage, f.lineage, f.task, f.attempt, f.size) for f in found] == [
        (0, "", 9, 0, 5),
        (0, "", 9, 1, 5),
        (0, "", 10, 0, 5),
        (1, "ab" * 8, 9, 0, 5),
    ]
    assert logs.list_logs(str(tmp_path / "logs"), JOB, stage=0, task=9) == found[:2]
    assert logs.list_logs(str(tmp_path / "logs"), JOB, stage=1) == found[3:]
    assert logs.read_log(found[0]) == b"hello"


def test_a_job_without_logs_and_strange_files(tmp_path: Path) -> None:
    assert logs.list_logs(str(tmp_path), JOB) == []
    path = store(tmp_path, b"hello", StageId(0, b""), 1, 0)
    (path.parent / "notes.txt").write_text("?")
    (path.parent.parent / "other").mkdir()
    (found,) = logs.list_logs(str(tmp_path / "logs"), JOB)
    path.unlink()
    assert logs.read_log(found) == b""
    logs.remove_logs(str(tmp_path / "logs"), JOB)
    assert not path.parent.parent.exists()


@given(text=st.binary(max_size=300), bytes_max=st.integers(min_value=2, max_value=200))
def test_a_long_log_keeps_its_two_ends(tmp_path_factory, text: bytes, bytes_max: int) -> None:
    path = store(tmp_path_factory.mktemp("l"), text, StageId(0, b""), 0, 0, bytes_max=bytes_max)
    kept = path.read_bytes()
    if len(text) <= bytes_max:
        assert kept == text
    else:
        half = bytes_max // 2
        marker = b"\n[p2premap cut %d bytes here]\n" % (len(text) - 2 * half)
        assert kept == text[:half] + marker + text[len(text) - half :]


@pytest.mark.parametrize("size", [0, 99, 100, 101, 1_000])
def test_what_an_attempt_has_printed_so_far_is_what_its_log_will_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", 100)
    path = tmp_path / "output"
    path.write_bytes(bytes(n % 251 for n in range(size)))
    so_far = logs.read_output(str(path))
    logs.store_output(str(path), str(tmp_path / "log"), 100)
    assert so_far == (tmp_path / "log").read_bytes()


def test_output_is_cut_while_somebody_appends(tmp_path: Path) -> None:
    path = tmp_path / "output"
    with open(path, "ab", buffering=0) as writer:
        writer.write(b"x" * 1_000)
        logs.cut_tail(str(path), 100)
        writer.write(b"more")
    assert path.read_bytes() == b"x" * 100 + b"\n[p2premap cut about 900 bytes here]\nmore"


def test_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "output"
    assert logs.read_tail(str(path)) == ""
    path.write_bytes(b"\xff" + b"0123456789")
    assert logs.read_tail(str(path), 4) == "6789"
    assert logs.read_tail(str(path)) == "\ufffd0123456789"


def test_the_sweep_removes_jobs_that_said_nothing_for_long(tmp_path: Path) -> None:
    path = store(tmp_path, b"old", StageId(0, b""), 0, 0)
    logs.sweep_logs(str(tmp_path / "logs"), older_s=100)
    assert path.exists()
    past = time.time() - 200
    os.utime(path.parent, (past, past))
    logs.sweep_logs(str(tmp_path / "logs"), older_s=100)
    assert not path.parent.parent.exists()
