"""Following logs: all that is printed is told once and in order, whatever of it is cut between two looks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2premap.node import logs
from p2premap.web.lognews import LogNews

HEAD = b"==> a <==\n"
BYTES_MAX = 2_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", BYTES_MAX)


class Attempt:
    """Prints numbered lines, and is followed."""

    def __init__(self, directory: Path, head: bytes = HEAD, name: str = "line") -> None:
        self.head, self.name = head, name
        self.lines = 0
        self.output = directory / f"{name}.output"
        self.output.touch()

    def prints(self, lines: int) -> None:
        first, self.lines = self.lines + 1, self.lines + lines
        with open(self.output, "ab") as file:
            file.write(self.told(first, self.lines))

    def look(self, news: LogNews) -> bytes:
        return news.of(self.head + logs.read_output(str(self.output)))

    def ends(self, news: LogNews) -> bytes:
        """As its node hands its log out."""
        kept = self.output.with_suffix(".log")
        logs.store_output(str(self.output), str(kept), BYTES_MAX)
        return news.of(self.head + kept.read_bytes() + b"\n")

    def told(self, first: int, last: int) -> bytes:
        return b"".join(b"%s %d\n" % (self.name.encode(), number) for number in range(first, last + 1))


def test_only_what_is_new_is_told() -> None:
    news = LogNews()
    assert news.of(b"==> a <==\none\n") == b"==> a <==\none\n"
    assert news.of(b"==> b <==\n") == b"==> b <==\n"
    assert news.of(b"==> a <==\none\n") == b""
    assert news.of(b"==> a <==\none\ntw") == b"==> a <==\ntw"
    assert news.of(b"==> a <==\none\ntwo\n") == b"o\n"
    assert news.of(b"==> b <==\n") == b""
    assert news.of(b"") == b""


@given(steps=st.lists(st.integers(min_value=0, max_value=90), min_size=1, max_size=60))
def test_who_looks_often_enough_is_told_every_line_of_an_attempt_that_prints_far_more_than_is_kept(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int]
) -> None:
    attempt, news, told = Attempt(tmp_path_factory.mktemp("l")), LogNews(), b""
    for lines in steps:
        attempt.prints(lines)
        told += attempt.look(news)
    told += attempt.ends(news)
    assert told == HEAD + attempt.told(1, attempt.lines) + b"\n"
    assert news.of(HEAD + attempt.output.with_suffix(".log").read_bytes() + b"\n") == b""


def test_what_was_cut_before_anybody_looked_is_said_and_the_rest_told(tmp_path: Path) -> None:
    attempt, news = Attempt(tmp_path), LogNews()
    attempt.prints(10)
    assert attempt.look(news) == HEAD + attempt.told(1, 10)
    attempt.prints(990)
    rest = attempt.look(news)
    all_of_it = attempt.told(1, 1000)
    half = BYTES_MAX // 2
    mark = b"\n[p2premap cut %d bytes here]\n" % (len(all_of_it) - 2 * half)
    assert rest == all_of_it[len(attempt.told(1, 10)) : half] + mark + all_of_it[-half:]
    attempt.prints(1000)
    mark = b"\n[p2premap cut %d bytes here]\n" % (len(attempt.told(1001, 2000)) - half)
    assert attempt.look(news) == mark + attempt.told(1, 2000)[-half:]
    attempt.prints(1)
    assert attempt.look(news) == b"line 2001\n"
    assert LogNews().of(HEAD + logs.read_output(str(attempt.output))) == HEAD + logs.read_output(str(attempt.output))


def test_output_that_is_thrown_away_while_the_attempt_prints_is_not_told_again(tmp_path: Path) -> None:
    attempt, news = Attempt(tmp_path), LogNews()
    attempt.prints(50)
    attempt.look(news)
    attempt.prints(850)
    attempt.look(news)
    logs.cut_tail(str(attempt.output), BYTES_MAX)
    attempt.prints(5)
    fresh = attempt.look(news)
    assert fresh.startswith(HEAD + b"\n[p2premap cut about ")
    assert fresh.endswith(b" bytes here]\n" + attempt.told(901, 905))
    assert len(fresh) < 200
    attempt.prints(1)
    assert attempt.look(news) == b"line 906\n"
    attempt.prints(1500)
    attempt.look(news)
    assert attempt.ends(news) == b"\n"


def test_output_that_grows_back_to_its_length_before_the_next_look_is_told(tmp_path: Path) -> None:
    attempt, news = Attempt(tmp_path), LogNews()
    attempt.prints(400)
    attempt.look(news)
    logs.cut_tail(str(attempt.output), BYTES_MAX)
    attempt.prints(200)
    fresh = attempt.look(news)
    assert fresh.startswith(HEAD + b"\n[p2premap cut ")
    assert fresh.endswith(attempt.told(500, 600))


def test_a_log_of_the_same_name_is_another_log(tmp_path: Path) -> None:
    old, new, news = Attempt(tmp_path, name="old"), Attempt(tmp_path, name="new"), LogNews()
    old.prints(400)
    new.prints(5)
    assert old.look(news).startswith(HEAD + b"old 1\n")
    assert new.look(news) == HEAD + new.told(1, 5)
    for last in range(6, 400):
        new.prints(1)
        assert old.look(news) == b""
        assert new.look(news) == new.told(last, last)


def test_a_task_that_prints_what_looks_like_a_cut_loses_nothing() -> None:
    news = LogNews()
    text = b"one\n[p2premap cut 7 bytes here]\ntwo\n"
    assert news.of(HEAD + text) == HEAD + text
    assert news.of(HEAD + text + b"three\n").endswith(b"three\n")
    assert news.of(HEAD + text + b"three\nfour\n") == b"four\n"
