"""What all commands have in common: usage, help, exit codes, colours, pipes, completion."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from p2premap.cli.app import COMMANDS, cli
from tests.cli.scripted import invoke
from tests.cluster import COMMAND, environment, start
from tests.fakedaemon import FakeDaemon

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
    (["drain", "--node", "a"], "It goes before the command: `p2premap --node NAME ...`"),
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
    (["run", "job.py", "x", "--callback", "ci.local/done"], "give an http or https URL"),
    (["run", "job.py", "x", "--callback-secret-file", __file__], "there is no --callback to sign"),
    (["run", "job.py", "x", "--callback", "http://ci/", "--callback-secret-file", "/no/such"], "No such file"),
    (["run", "job.py", "x", "--callback", "http://ci/", "--callback-secret-file", "/dev/null"], "its first line"),
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
            assert "--json" in result.stdout or name in ("graph", "service")
    for group, name in (("service", "install"), ("service", "uninstall"), ("service", "status"), ("graph", "bfs")):
        assert "--json" in invoke(group, name, "--help").stdout


def test_the_bare_command_shows_the_help(home: Path) -> None:
    result = invoke()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == invoke("--help").stdout


def test_help_lists_each_command_once(home: Path) -> None:
    lines = invoke("--help").stdout.splitlines()
    for names in COMMANDS.values():
        for name in names:
            assert sum(line.startswith(f"  {name} ") for line in lines) == 1


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
    assert process.wait(60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("args", [("nodes", "--json"), ("jobs",), ("--help",)], ids=" ".join)
def test_output_that_nobody_has_room_for_is_a_sentence(daemon: FakeDaemon, home: Path, args: tuple[str, ...]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, *args], env=environment(home), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "p2premap: The output cannot be written: No space left on device.\n"


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
