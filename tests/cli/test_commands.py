"""Every command against a scripted daemon: what is printed where, and the exit code."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2premap.cli.app import COMMANDS, cli
from p2premap.control.answers import Chunk, Done, Refused, Trouble
from p2premap.control.data import ReadLog, ReadPart
from p2premap.control.jobs import Cancel, Jobs, JobUpdate, ListJobs, Watch
from p2premap.control.membership import Invited, Join, LeaveCluster, MakeInvite
from p2premap.control.nodes import (
    Diagnose,
    Diagnosis,
    Finding,
    Foreign,
    GetStatus,
    ListNodes,
    Nodes,
    NodeView,
    Status,
    Stop,
)
from p2premap.ids import Digest, NodeId, RequestId
from p2premap.node import secret
from p2premap.node.paths import Paths
from p2premap.tasks.job import JobView, Part, Phase, Source, StageView
from p2premap.wire import Message
from tests.cluster import start
from tests.fakedaemon import NODE, Answer, FakeDaemon

JOB = bytes.fromhex("89abcdef") * 4
ME = NodeView(
    node=NODE,
    name="pi1",
    state="alive",
    pid=4242,
    boot=1,
    addresses=("192.168.1.20:7321",),
    version="0.1.0",
    python="3.11.7",
    cpus=4,
    slots=4,
    busy=1,
    load=0.25,
    memory_bytes=8_000_000_000,
    memory_free_bytes=2_500_000_000,
    me=True,
)
GONE = NodeView(node=NodeId(b"another node, 16"), name="pi2", state="dead", pid=1, boot=2)


def view(phase: Phase = Phase.DONE, **changes: object) -> JobView:
    part = Part(number=0, source=Source(digest=Digest(bytes(32)), start=0, end=6, holders=(NODE,)))
    fields: dict[str, object] = {
        "job": JOB,
        "name": "wordcount",
        "kind": "mapreduce",
        "phase": phase,
        "leader": NODE,
        "leader_name": "pi1",
        "leader_pid": 4242,
        "age_s": 2.5,
        "stages": (StageView(number=0, name="map", tasks=4, done=4 if phase is Phase.DONE else 1, running=2),),
        "parts": (part,) if phase is Phase.DONE else (),
        "nodes": (("pi1", 3), ("pi2", 1)),
        "part_count": 1 if phase is Phase.DONE else 0,
    }
    return JobView(**{**fields, **changes})  # type: ignore[arg-type]


def script(message: Message, payload: bytes) -> Iterable[Answer]:
    request = message.request
    match message:
        case ListNodes():
            return [Nodes(request=request, views=(ME, GONE))]
        case GetStatus():
            foreign = Foreign(address="192.168.1.99:7321", cluster="beef", hint="ask its owner for a token")
            return [
                Status(
                    request=request,
                    me=ME,
                    cluster="c0ffee",
                    scope="network",
                    open_name="",
                    members=1,
                    dead=1,
                    jobs_running=1,
                    state_dir="/home/me/.local/state/p2premap",
                    foreign=(foreign,),
                    warnings=("The disk is nearly full.",),
                    counters={"pings": 7},
                )
            ]
        case ListJobs():
            return [Jobs(request=request, views=(view(Phase.RUNNING), view()), silent=("pi3",))]
        case Watch():
            return [JobUpdate(request=request, view=view(Phase.RUNNING)), JobUpdate(request=request, view=view())]
        case ReadPart():
            return [(Chunk(request=request), b"a\t1\n"), (Chunk(request=request, last=True), b"b\t2\n")]
        case ReadLog():
            return [(Chunk(request=request, last=True), b"hello from a task\n")]
        case Cancel() | Stop():
            return [Done(request=request)]
        case LeaveCluster():
            return [Done(request=request), None]
        case Join(token=token):
            return admit(request, token)
        case MakeInvite(uses=uses, valid_s=valid_s):
            return [Invited(request=request, token="p2p1-abc", uses=uses, valid_s=valid_s)]
        case Diagnose():
            good = Finding(ok=True, about="eth0", text="multicast works")
            bad = Finding(ok=False, about="firewall", text="port 7321 is closed", remedy="sudo ufw allow 7321")
            return [Diagnosis(request=request, findings=(good, bad))]
        case _:
            raise AssertionError(message)


def admit(request: RequestId, token: str) -> Iterable[Answer]:
    if token == "good":
        return [Done(request=request, text="Joined cluster beef with 3 nodes."), None]
    return [Refused(request=request, trouble=Trouble.REFUSED, text="The token has expired; ask for a new one.")]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="p2premap")


@pytest.fixture
def daemon(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterable[FakeDaemon]:
    monkeypatch.setattr("p2premap.cli.membership.BACK_S", 0.1)  # this one never begins again in another cluster
    with FakeDaemon(paths, script) as fake:
        yield fake


def test_status_is_a_few_lines_and_shows_warnings_and_neighbours(daemon: FakeDaemon) -> None:
    result = invoke("status")
    assert result.exit_code == 0
    assert "pi1 (00010203), pid 4242" in result.stdout
    assert "c0ffee: 1 node, 1 dead, 1 job running" in result.stdout
    assert "1 of 4 busy, load 25%, 2.5 GB memory free" in result.stdout
    assert "cluster beef at 192.168.1.99:7321: ask its owner for a token" in result.stdout
    assert "The disk is nearly full." in result.stdout


def test_nodes_is_a_table_with_this_node_marked(daemon: FakeDaemon) -> None:
    result = invoke("nodes")
    assert result.exit_code == 0
    head, first, second = result.stdout.splitlines()
    assert head.split() == ["NAME", "ID", "PID", "STATE", "SLOTS", "LOAD", "FREE", "PYTHON", "ADDRESS"]
    assert first.split() == [
        "pi1",
        "*",
        "00010203",
        "4242",
        "alive",
        "1/4",
        "25%",
        "2.5",
        "GB",
        "3.11.7",
        "192.168.1.20:7321",
    ]
    assert second.split() == ["pi2", GONE.node.hex()[:8], "1", "dead"]


def test_nodes_json_is_a_list_of_objects(daemon: FakeDaemon) -> None:
    found = json.loads(invoke("nodes", "--json").stdout)
    assert [(n["id"], n["name"], n["pid"], n["state"]) for n in found] == [
        (NODE.hex(), "pi1", 4242, "alive"),
        (GONE.node.hex(), "pi2", 1, "dead"),
    ]


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


def test_watch_ends_with_the_job(daemon: FakeDaemon) -> None:
    result = invoke("watch", "89abcdef")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "map: 4 of 4 tasks" in result.stderr
    assert "Job 89abcdef is done after 2.50 s: 1 part." in result.stderr


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


def test_invite_prints_the_token_alone_on_standard_output(daemon: FakeDaemon) -> None:
    result = invoke("invite", "--uses", "20", "--for", "1h")
    assert (result.exit_code, result.stdout) == (0, "p2p1-abc\n")
    assert "For 20 machines, 1 h." in result.stderr
    assert json.loads(invoke("invite", "--json").stdout) == {"token": "p2p1-abc", "uses": 1, "valid_s": 600.0}


def test_join_says_what_the_daemon_says(daemon: FakeDaemon) -> None:
    assert "Joined cluster beef" in invoke("join", "good").stderr
    result = invoke("join", "old")
    assert result.exit_code == 1
    assert result.stderr == "p2premap: The token has expired; ask for a new one.\n"


def test_leave(daemon: FakeDaemon) -> None:
    assert json.loads(invoke("leave", "--json").stdout)["left"] is True


@pytest.mark.parametrize("args", [("leave",), ("join", "good")], ids=" ".join)
def test_the_node_answers_again_when_the_command_ends(paths: Paths, args: tuple[str, ...]) -> None:
    """It begins again in its other cluster: the next command of a script must find it."""
    with contextlib.ExitStack() as later:

        def begin_again() -> None:
            first.close()
            time.sleep(0.3)
            second = later.enter_context(FakeDaemon(paths, script))
            second.welcome = first.welcome.replace(b"c0ffee", b"beef00")

        def answer(message: Message, payload: bytes) -> Iterable[Answer]:
            yield from filter(None, script(message, payload))
            again.start()
            yield None

        again = threading.Thread(target=begin_again)
        first = FakeDaemon(paths, answer)
        assert invoke(*args).exit_code == 0
        assert invoke("nodes").exit_code == 0
        again.join()


def test_doctor_names_the_remedy_and_exits_with_1_where_something_is_wrong(daemon: FakeDaemon) -> None:
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "ok  eth0: multicast works" in result.stdout
    assert "sudo ufw allow 7321" in result.stdout
    assert json.loads(invoke("doctor", "--json").stdout)[1]["remedy"] == "sudo ufw allow 7321"


def test_doctor_without_a_node_says_so_and_looks_at_the_machine(home: Path) -> None:
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert any("p2premap node" in finding["remedy"] for finding in found if not finding["ok"])
    assert len(found) > 1


def test_joining_without_a_node_does_not_leave_a_cluster_by_accident(paths: Paths) -> None:
    known = secret.load_or_make(paths.config)
    paths.nodes(known.tag)
    result = invoke("join", "p2pmtoken")
    assert result.exit_code == 69
    assert "add --leave" in result.stderr
    assert secret.load(paths.config) == known


def test_a_mistyped_token_is_told_before_anything_is_sent(home: Path) -> None:
    result = invoke("join", "p2pmtoken")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_stop_stops_the_only_node_and_never_just_any(daemon: FakeDaemon, paths: Paths) -> None:
    assert "Node pi1 (pid 4242) stops." in invoke("stop").stderr
    with FakeDaemon(paths, script, node=GONE.node, name="pi2") as other:
        refused = invoke("stop")
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert "pi1, pi2" in refused.stderr
        assert not other.requests
        assert json.loads(invoke("--node", "pi2", "stop", "--json").stdout)["name"] == "pi2"
        assert [type(request) for request in other.requests] == [Stop]


NEEDS_A_NODE = [
    ["status"],
    ["nodes"],
    ["jobs"],
    ["watch", "89abcdef"],
    ["logs", "89abcdef"],
    ["cancel", "89abcdef"],
    ["why", "89abcdef"],
    ["restart", "89abcdef"],
    ["cleanup"],
    ["drain"],
    ["invite"],
    ["leave"],
    ["stop"],
]


@pytest.mark.parametrize("args", NEEDS_A_NODE, ids=lambda args: args[0])
def test_without_a_node_each_command_says_so_and_exits_with_69(home: Path, args: list[str]) -> None:
    result = invoke(*args)
    assert result.exit_code == 69
    assert result.stdout == ""
    assert result.stderr == ("p2premap: No p2premap node answers on this machine; start one with `p2premap node`.\n")


WRONG = [
    (["frob"], "No such command 'frob'."),
    (["nodes", "--frob"], "No such option '--frob'."),
    (["watch"], "Missing argument 'JOB'."),
    (["watch", "xyz"], "'xyz' is no job id"),
    (["watch", "8"], "'8' is no job id"),
    (["logs", "89abcdef", "map"], "'map' names no task"),
    (["invite", "--for", "soon"], "'soon' is not a duration"),
    (["invite", "--uses", "0"], "0 is not in the range"),
    (["invite", "--for", "9999d"], "--for must be between"),
    (["node", "--port", "99999"], "99999 is not in the range"),
    (["node", "--join", "pi3:99999"], "--join"),
    (["node", "--name", "two words"], "without spaces"),
    (["node", "--slots", "0"], "0 is not in the range"),
    (["node", "--max-workers", "0"], "0 is not in the range"),
    (["node", "--max-load", "1.5"], "1.5 is not in the range"),
    (["node", "--min-free-memory", "some"], "'some' is not a size"),
    (["why", "89abcdef", "map"], "'map' names no task"),
    (["why", "n" * 300], "is neither a node's name nor an id"),
    (["restart", "xyz"], "'xyz' is no job id"),
    (["cleanup", "--days", "-1"], "-1.0 is not in the range"),
    (["drain", "--wait", "soon"], "'soon' is not a duration"),
    (["node", "--tag", ""], "without spaces"),
    (["node", "--open", ""], "--open needs a name"),
    (["run", "job.py", "x", "--detach", "-o", "out"], "--detach does not wait"),
    (["run", "job.py", "x", "--memory-limit", "much"], "'much' is not a size"),
]


@pytest.mark.parametrize(
    ("args", "sentence"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_wrong_usage_is_one_sentence_and_exit_2(home: Path, args: list[str], sentence: str) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("p2premap: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_every_command_has_json_and_help(home: Path) -> None:
    for names in COMMANDS.values():
        for name in names:
            result = invoke(name, "--help")
            assert result.exit_code == 0
            assert "--json" in result.stdout or name == "service"
    for name in ("install", "uninstall", "status"):
        assert "--json" in invoke("service", name, "--help").stdout


def test_the_bare_command_shows_the_help(home: Path) -> None:
    result = invoke()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == invoke("--help").stdout


def test_help_lists_each_command_once(home: Path) -> None:
    lines = invoke("--help").stdout.splitlines()
    for names in COMMANDS.values():
        for name in names:
            assert sum(line.startswith(f"  {name} ") for line in lines) == 1


def test_text_from_the_network_cannot_steer_the_terminal(paths: Paths) -> None:
    def hostile(message: Message, payload: bytes) -> Iterable[Answer]:
        evil = NodeView(node=NODE, name="\x1b[2Jpi\r\n1", state="alive", pid=1, boot=1)
        return [Nodes(request=message.request, views=(evil,))]

    with FakeDaemon(paths, hostile):
        result = invoke("nodes")
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout
    assert "?[2Jpi??1" in result.stdout


def test_a_fault_of_ours_is_a_sentence_and_a_traceback_only_on_request(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("p2premap.cli.cluster.node_shape", broken)
    result = invoke("nodes", "--json")
    assert result.exit_code == 70
    assert result.stderr.count("\n") == 1
    assert "fault of p2premap, not yours: ZeroDivisionError: oh" in result.stderr
    monkeypatch.setenv("P2PREMAP_DEBUG", "1")
    assert "Traceback" in invoke("nodes", "--json").stderr


@pytest.mark.parametrize(
    ("ended", "code", "sentence"),
    [
        (view(Phase.CANCELLED, error="by me"), 1, "p2premap: Job 89abcdef was cancelled: by me\n"),
        (
            view(Phase.FAILED, error="map task 3 of book.txt: ValueError", detail="Traceback ...\nValueError: x\n"),
            1,
            "Traceback ...\nValueError: x\np2premap: Job 89abcdef failed: map task 3 of book.txt: ValueError\n",
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


def test_colours_only_where_wanted(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = CliRunner().invoke(cli, ["nodes"], prog_name="p2premap", color=True)
    assert "\x1b[" in coloured.stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in CliRunner().invoke(cli, ["nodes"], prog_name="p2premap", color=True).stdout
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in CliRunner().invoke(cli, ["nodes"], prog_name="p2premap", color=True).stdout


@pytest.mark.parametrize("args", [("nodes", "--json"), ("jobs",), ("--help",), ("--version",)], ids=" ".join)
def test_a_reader_that_has_gone_ends_the_command_quietly(daemon: FakeDaemon, home: Path, args: tuple[str, ...]) -> None:
    process = start(home, *args)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.wait(20) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_shells_can_complete_commands(home: Path) -> None:
    variables = {"COMP_WORDS": "p2premap no", "COMP_CWORD": "1", "_P2PREMAP_COMPLETE": "bash_complete"}
    result = CliRunner(env=variables).invoke(cli, [], prog_name="p2premap")
    assert result.stdout.split() == ["plain,node", "plain,nodes"]


def test_commands_of_other_packages_are_found_by_entry_point(home: Path) -> None:
    result = invoke("sim", "--help")
    assert result.exit_code == 0
    assert "Simulate a cluster" in result.stdout


def test_errors_have_no_colours_where_none_are_wanted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence is printed when click's context is gone, and its colour switch with it."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain = "p2premap: No p2premap node"
    assert not CliRunner().invoke(cli, ["status"], color=True).stderr.startswith(plain)
    monkeypatch.setenv("NO_COLOR", "1")
    assert CliRunner().invoke(cli, ["status"], color=True).stderr.startswith(plain)
