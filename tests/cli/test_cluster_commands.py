"""`status`, `nodes`, `doctor`, `stop` against a scripted daemon: what is printed where, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from p2premap.control.jobs import Jobs, ListJobs
from p2premap.control.nodes import Diagnosis, Finding, Nodes, NodeView, Stop
from p2premap.node.paths import Paths
from p2premap.tasks.job import Phase
from p2premap.wire import Message
from tests.cli.scripted import GONE, JOB, ME, invoke, script, view
from tests.fakedaemon import NODE, Answer, FakeDaemon


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


def test_status_says_what_jobs_wait_for_and_depend_on(paths: Paths) -> None:
    note = "Its inputs (2.0 GB) are only on pi2: without that machine the job waits for it."

    def dependent(message: Message, payload: bytes) -> Iterable[Answer]:
        if isinstance(message, ListJobs):
            return [Jobs(request=message.request, views=(view(Phase.RUNNING, note=note), view()))]
        return script(message, payload)

    with FakeDaemon(paths, dependent):
        assert f"job 89ab  wordcount: {note}" in invoke("status").stdout
        assert json.loads(invoke("status", "--json").stdout)["jobs_waiting_for"] == {JOB.hex(): note}


def test_free_memory_is_exact_here_and_about_so_elsewhere(paths: Paths) -> None:
    there = msgspec.structs.replace(ME, node=GONE.node, name="pi2", me=False)

    def two(message: Message, payload: bytes) -> Iterable[Answer]:
        return [Nodes(request=message.request, views=(ME, there))]

    with FakeDaemon(paths, two):
        rows = invoke("nodes").stdout.splitlines()
    assert "  2.5 GB  " in rows[1]
    assert "  ~2.5 GB  " in rows[2]


def test_nodes_json_is_a_list_of_objects(daemon: FakeDaemon) -> None:
    found = json.loads(invoke("nodes", "--json").stdout)
    assert [(n["id"], n["name"], n["pid"], n["state"]) for n in found] == [
        (NODE.hex(), "pi1", 4242, "alive"),
        (GONE.node.hex(), "pi2", 1, "dead"),
    ]


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


def test_the_doctors_sentences_are_folded_and_its_commands_are_not(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2premap.cli.show.columns", lambda: 40)
    command = "sudo nft 'insert rule inet guard door udp dport 5353 accept'"
    sentence = "To take in other machines: `p2premap invite` here."
    blocked = Finding(ok=False, about="eth0", text="It is blocked.", remedy=f"{command}\n{sentence}")

    def answer(message: Message, payload: bytes) -> list[Answer]:
        return [Diagnosis(request=message.request, findings=(blocked,))]

    with FakeDaemon(paths, answer):
        lines = invoke("doctor").stdout.splitlines()
    assert lines[:4] == [
        "!!  eth0: It is blocked.",
        f"      {command}",
        "      To take in other machines:",
        "      `p2premap invite` here.",
    ]


def test_stop_stops_the_only_node_and_never_just_any(daemon: FakeDaemon, paths: Paths) -> None:
    assert "Node pi1 (pid 4242) stops." in invoke("stop").stderr
    with FakeDaemon(paths, script, node=GONE.node, name="pi2") as other:
        refused = invoke("stop")
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert f"pi1 {NODE.hex()[:8]}, pi2 {GONE.node.hex()[:8]}" in refused.stderr
        assert not other.requests
        assert json.loads(invoke("--node", "pi2", "stop", "--json").stdout)["name"] == "pi2"
        assert [type(request) for request in other.requests] == [Stop]


def test_text_from_the_network_cannot_steer_the_terminal(paths: Paths) -> None:
    def hostile(message: Message, payload: bytes) -> Iterable[Answer]:
        evil = NodeView(node=NODE, name="\x1b[2Jpi\r\n1", state="alive", pid=1, boot=1)
        return [Nodes(request=message.request, views=(evil,))]

    with FakeDaemon(paths, hostile):
        result = invoke("nodes")
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout
    assert "?[2Jpi??1" in result.stdout


def test_a_service_is_installed_when_its_node_answers(
    home: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a script does next, such as `p2premap join`, needs it."""
    installed: list[tuple[str, ...]] = []
    monkeypatch.setattr("p2premap.node.service.install", lambda options: installed.append(options) or "It runs now.")
    monkeypatch.setattr("p2premap.cli.service.UP_S", 0.1)
    result = invoke("service", "install", "--slots", "2")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (69, "", 1)
    assert "its node does not answer yet; `p2premap service status` names its log" in result.stderr
    monkeypatch.setattr("p2premap.cli.service.UP_S", 60.0)
    with FakeDaemon(paths, script):
        result = invoke("service", "install", "--slots", "2")
    assert (result.exit_code, result.stderr) == (0, "It runs now.\n")
    assert installed == [("--slots", "2")] * 2
