"""`jobs`, `watch`, `logs`, `cancel` against a scripted daemon: what is printed where, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from p2premap.control.answers import Done, Refused, Trouble
from p2premap.control.data import PutBlob, ReadLog, ReadPart
from p2premap.control.jobs import Jobs, JobUpdate, Submit, Submitted, Watch
from p2premap.ids import NOBODY, JobId
from p2premap.node.paths import Paths
from p2premap.tasks.job import JobView, Phase
from p2premap.wire import Message
from tests.cli.scripted import JOB, invoke, script, view
from tests.fakedaemon import NODE, Answer, FakeDaemon


def test_jobs_json_names_the_leader_with_id_and_pid(daemon: FakeDaemon) -> None:
    found = json.loads(invoke("jobs", "--json").stdout)
    assert found[0]["leader"] == {"id": NODE.hex(), "name": "pi1", "pid": 4242}
    assert [job["phase"] for job in found] == ["running", "done"]


def test_nodes_of_one_name_are_counted_each_by_itself(paths: Paths) -> None:
    def twins(message: Message, payload: bytes) -> Iterable[Answer]:
        return [Jobs(request=message.request, views=(view(nodes=(("vm", 3), ("vm", 4))),))]

    with FakeDaemon(paths, twins):
        (found,) = json.loads(invoke("jobs", "--json").stdout)
    assert found["nodes"] == [{"name": "vm", "tasks": 3}, {"name": "vm", "tasks": 4}]


def test_jobs_tells_who_did_not_answer(daemon: FakeDaemon) -> None:
    result = invoke("jobs")
    assert result.stdout.splitlines()[1].split() == [
        "89abcdef",
        "wordcount",
        "running",
        "1/4",
        "in",
        "map",
        "2.50",
        "s",
        "1",
        "pi1",
    ]
    assert "No answer in time from pi3" in result.stderr


def test_jobs_says_where_nobody_leads_and_why(paths: Paths) -> None:
    note = "2 of 3 replicas are needed; no answer from bob, carl."
    orphan = view(Phase.WAITING, leader=NOBODY, leader_name="", leader_pid=0, stages=(), age_s=0.0, note=note)
    silent = view(Phase.WAITING, job=bytes.fromhex("01234567") * 4, stages=(), age_s=0.0)

    def waiting(message: Message, payload: bytes) -> Iterable[Answer]:
        return [Jobs(request=message.request, views=(orphan, silent))]

    with FakeDaemon(paths, waiting):
        result = invoke("jobs")
        found = json.loads(invoke("jobs", "--json").stdout)
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["89abcdef", "wordcount", "no", "leader", "1"],
        ["01234567", "wordcount", "no", "answer", "1", "pi1"],
    ]
    assert result.stderr == f"89abcdef: {note}\n"
    assert found[0]["leader"] == {"id": "", "name": "", "pid": 0}


def test_what_is_to_be_said_of_a_job_that_is_done_is_said_wherever_it_is_shown(paths: Paths) -> None:
    short = view(note="Parts of its output that have one holder only: 1, at bob; no other node took a copy.")

    def ended(message: Message, payload: bytes) -> Iterable[Answer]:
        if isinstance(message, Watch):
            return [JobUpdate(request=message.request, view=short)]
        return [Jobs(request=message.request, views=(short,))]

    with FakeDaemon(paths, ended):
        listed, watched = invoke("jobs"), invoke("watch", "89abcdef")
    assert listed.stderr == f"89abcdef: {short.note}\n"
    assert short.note in watched.stderr.splitlines()


def test_run_says_how_the_job_is_to_be_kept(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("def map(key, line):\n    yield line, 1\n")

    def take(message: Message, payload: bytes) -> Iterable[Answer]:
        match message:
            case PutBlob():
                return [Done(request=message.request)]
            case Submit():
                return [Submitted(request=message.request, job=JobId(JOB), copies=5)]
        return script(message, payload)

    with FakeDaemon(paths, take) as daemon:
        args = ("--detach", "--copies", "5", "--strict", "--stage")
        assert invoke("run", str(tmp_path / "job.py"), __file__, *args).stdout == f"{JOB.hex()}\n"
    (options,) = (request.spec.options for request in daemon.requests if isinstance(request, Submit))
    assert (options.copies, options.strict, options.stage_inputs) == (5, True, True)


def test_watch_ends_with_the_job(daemon: FakeDaemon) -> None:
    result = invoke("watch", "89abcdef")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "map: 4 of 4 tasks" in result.stderr
    assert "Job 89abcdef is done after 2.50 s: 1 part." in result.stderr


def test_what_a_job_took_is_told_long_after_it_too(paths: Paths) -> None:
    ended = view(Phase.DONE, age_s=7200.0, lasted_s=2.5)

    def answer(message: Message, payload: bytes) -> list[Answer]:
        return [JobUpdate(request=message.request, view=ended)]

    with FakeDaemon(paths, answer):
        assert "is done after 2.50 s" in invoke("watch", "89abcdef").stderr


def test_watch_json_is_one_line_a_change(daemon: FakeDaemon) -> None:
    lines = [json.loads(line) for line in invoke("watch", "89ab", "--json").stdout.splitlines()]
    assert [line["phase"] for line in lines] == ["running", "done"]


def test_watch_can_bring_the_output(daemon: FakeDaemon, tmp_path: Path) -> None:
    result = invoke("watch", "89abcdef", "-o", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["part-00000"]
    assert (tmp_path / "out" / "part-00000").read_bytes() == b"a\t1\nb\t2\n"


def test_output_that_cannot_be_written_is_told_before_anything_runs(daemon: FakeDaemon) -> None:
    """Root may write everywhere, says access(2); a directory can be made only where one can be."""
    result = invoke("watch", "89abcdef", "-o", "/proc/sys/out")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "/proc/sys is not writable" in result.stderr
    assert not daemon.requests


def test_output_that_fails_later_can_be_fetched_again(paths: Paths, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def spoil(message: Message, payload: bytes) -> Iterable[Answer]:
        if isinstance(message, ReadPart):
            (out / "part-00000").mkdir(parents=True, exist_ok=True)
        return script(message, payload)

    with FakeDaemon(paths, spoil):
        result = invoke("watch", "89abcdef", "-o", str(out))
    assert result.exit_code == 1
    assert "Cannot write" in result.stderr
    assert "`p2premap watch 89abcdef -o DIR`" in result.stderr.splitlines()[-1]


def test_logs_go_to_standard_output_as_they_are(daemon: FakeDaemon) -> None:
    result = invoke("logs", "89abcdef", "0.3")
    assert (result.exit_code, result.stdout) == (0, "hello from a task\n")
    assert [(m.stage, m.task) for m in daemon.requests if isinstance(m, ReadLog)] == [(0, 3)]
    assert json.loads(invoke("logs", "89abcdef", "--json").stdout)["text"] == "hello from a task\n"


def test_cancel(daemon: FakeDaemon) -> None:
    result = invoke("cancel", "89abcdef")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "is cancelled" in result.stderr


def test_a_job_that_is_over_is_not_cancelled(paths: Paths) -> None:
    def over(message: Message, payload: bytes) -> Iterable[Answer]:
        if isinstance(message, Watch):
            return [JobUpdate(request=message.request, view=view())]
        return [Done(request=message.request, text="The job was over already: done.")]

    with FakeDaemon(paths, over):
        found = json.loads(invoke("cancel", "89abcdef", "--json").stdout)
        assert found == {"job": "89abcdef", "cancelled": False, "text": "The job was over already: done."}


@pytest.mark.parametrize(
    ("ended", "code", "sentence"),
    [
        (view(Phase.CANCELLED, error="by me"), 1, "p2premap: Job 89abcdef was cancelled: by me\n"),
        (
            view(
                Phase.FAILED,
                error="Task 3 of stage map raised an exception on pi1: ValueError: x (job.py, line 2, in map)",
                detail="Traceback ...\nValueError: x\nmap was given 7.\n",
            ),
            1,
            "Traceback ...\nValueError: x\nmap was given 7.\n"
            "p2premap: Job 89abcdef failed: Task 3 of stage map raised an exception on pi1 (job.py, line 2, in map)\n",
        ),
    ],
)
def test_a_job_that_did_not_succeed(paths: Paths, ended: JobView, code: int, sentence: str) -> None:
    def failing(message: Message, payload: bytes) -> Iterable[Answer]:
        return [JobUpdate(request=message.request, view=ended)]

    with FakeDaemon(paths, failing):
        result = invoke("watch", "89abcdef")
    assert result.exit_code == code
    assert result.stderr.endswith(sentence)


def test_watching_can_time_out(paths: Paths) -> None:
    def slow(message: Message, payload: bytes) -> Iterable[Answer]:
        return [JobUpdate(request=message.request, view=view(Phase.RUNNING))]

    with FakeDaemon(paths, slow):
        result = invoke("watch", "89abcdef", "--timeout", "0.2")
    assert result.exit_code == 124
    assert "goes on, unwatched" in result.stderr


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(Trouble.USAGE, 2), (Trouble.NOT_FOUND, 2), (Trouble.UNREACHABLE, 69), (Trouble.REFUSED, 1)],
)
def test_a_refusal_decides_the_exit_code(paths: Paths, trouble: Trouble, code: int) -> None:
    def refuse(message: Message, payload: bytes) -> Iterable[Answer]:
        return [Refused(request=message.request, trouble=trouble, text="No.")]

    with FakeDaemon(paths, refuse):
        result = invoke("cancel", "89abcdef")
    assert (result.exit_code, result.stderr) == (code, "p2premap: No.\n")
