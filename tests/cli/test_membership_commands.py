"""`invite`, `join`, `leave` against a scripted daemon: what is printed where, and the exit code."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from p2premap.cli import membership
from p2premap.control.membership import Join
from p2premap.node import secret
from p2premap.node.paths import Paths
from p2premap.wire import Message
from tests.cli.scripted import invoke, script
from tests.fakedaemon import Answer, FakeDaemon


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
def test_the_node_answers_again_when_the_command_ends(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    """It begins again in its other cluster: the next command of a script must find it."""
    monkeypatch.setattr(membership, "BACK_S", 60.0)
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


def test_joining_without_a_node_does_not_leave_a_cluster_by_accident(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "STARTING_S", 0.1)
    known = secret.load_or_make(paths.config)
    paths.nodes(known.tag)
    result = invoke("join", "p2pmtoken")
    assert result.exit_code == 69
    assert "add --leave" in result.stderr
    assert secret.load(paths.config) == known


def test_a_node_that_is_just_starting_is_waited_for_and_joins(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `p2premap node &` in a script: its secret and state are there, and its socket is not."""
    monkeypatch.setattr(membership, "STARTING_S", 60.0)
    paths.nodes(secret.load_or_make(paths.config).tag)
    with contextlib.ExitStack() as later:
        started = threading.Timer(0.3, lambda: later.enter_context(FakeDaemon(paths, script)))
        started.start()
        result = invoke("join", "same")
        started.join()
    assert (result.exit_code, result.stderr) == (0, "This machine is already a member of that cluster.\n")


def test_a_node_that_has_started_meanwhile_hears_of_it(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as later:

        def join_alone(*_: object) -> str:
            heard.append(later.enter_context(FakeDaemon(paths, script)))
            return "This machine is a member now."

        heard: list[FakeDaemon] = []
        monkeypatch.setattr("p2premap.node.belonging.join_alone", join_alone)
        result = invoke("join", "same")
    assert (result.exit_code, result.stderr) == (0, "This machine is a member now.\n")
    assert [type(message) for message in heard[0].requests] == [Join]


def test_a_mistyped_token_is_told_before_anything_is_sent(home: Path) -> None:
    result = invoke("join", "p2pmtoken")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
