"""`p2premap sim` as a user types it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from p2premap.errors import ConfigError
from p2premap.sim.cli import sim_command
from p2premap.sim.story import Wishes


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(sim_command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout


def test_a_story_tells_what_was_done_and_when_all_knew() -> None:
    code, text = run("--nodes", "20", "--seed", "7", "--kill", "2", "--leave", "1", "--seconds", "5")
    assert code == 0
    assert text.count("lost power: first known after") == 2
    assert "20 nodes started" in text
    assert "false alarms      0" in text
    assert "again             p2premap sim --nodes 20 --seed 7 --kill 2 --leave 1 --seconds 5" in text


def test_json_is_one_object_with_the_trace_hash_of_the_seed() -> None:
    arguments = ("--nodes", "5", "--seed", "3", "--loss", "10", "--faults", "20", "--json")
    (code, first), (_, second), (_, other) = run(*arguments), run(*arguments), run(*arguments, "--seed", "4")
    story = json.loads(first)
    assert code == 0
    assert story["wishes"]["loss"] == 10
    assert sum(story["faults"].values()) >= 5
    assert story["trace"] == json.loads(second)["trace"] != json.loads(other)["trace"]


def test_all_options_together_and_a_cluster_of_one() -> None:
    code, text = run("--nodes", "6", "--crash", "1", "--stall", "10", "--cut", "10", "--seconds", "1")
    assert code == 0, text
    assert "whole again" in text
    assert run("--nodes", "1")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--nodes", "0"), "1 to 10000"),
        (("--nodes", "10001"), "1 to 10000"),
        (("--nodes", "3", "--kill", "3"), "at least one must stay"),
        (("--loss", "95"), "percentage"),
        (("--kill", "-1"), "must not be negative"),
        (("--nodes", "1", "--cut", "5"), "at least 2"),
        (("--seconds", "-2"), "0 to 86400 seconds"),
        (("--cut", "nan"), "0 to 86400 seconds"),
        (("--stall", "inf"), "0 to 86400 seconds"),
        (("--loss", "nan"), "percentage"),
    ],
)
def test_bad_options_are_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(*arguments)


def test_the_replay_command_is_the_command() -> None:
    wishes = Wishes(nodes=9, seed=4, loss=12.5, form=True)
    assert wishes.command() == "p2premap sim --nodes 9 --seed 4 --loss 12.5 --form"
