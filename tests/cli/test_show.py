"""Numbers as people read and write them; and how a running job looks."""

from __future__ import annotations

import io

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from p2premap.cli import show
from p2premap.cli.live import LiveProgress
from p2premap.cli.progress import LINE_S, News, PlainProgress, Rate
from p2premap.cli.show import clean, fold, parse_duration, parse_size, table
from p2premap.client.amounts import duration, size
from p2premap.ids import NOBODY, NodeId
from p2premap.tasks.job import JobView, Phase, StageView

ADA, BOB = NodeId(b"a" * 16), NodeId(b"b" * 16)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4213, "0.42 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min"),
        (125, "2 min 5 s"),
        (600, "10 min"),
        (11_400, "3 h 10 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (4_714_000, "4.71 MB"), (99_960_000, "100 MB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@given(st.floats(0, 1e9))
def test_every_duration_and_size_can_be_shown(value: float) -> None:
    assert len(duration(value)) < 20
    assert len(size(value)) < 12


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2D ", 172_800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "count"), [("800", 800), ("64k", 64_000), ("500M", 500_000_000), ("2GB", 2 * 10**9)])
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@given(st.text())
def test_whatever_is_typed_is_a_number_or_a_sentence(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ValueError as wrong:
            told = str(wrong)
            assert "such as" in told


@given(st.text())
def test_clean_text_has_no_control_characters(text: str) -> None:
    assert all(c.isprintable() or ord(c) >= 0xA0 for c in clean(text))


def test_a_narrow_terminal_shows_fewer_columns_and_no_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    head, rows = ("NAME", "PID", "ADDRESS"), [("ada", "17", "192.168.1.20:7321")]
    for width, shown in ((40, head), (28, head), (27, ("NAME", "ADDRESS")), (20, ("NAME",)), (2, ("NAME",))):
        monkeypatch.setattr(show, "columns", lambda width=width: width)
        first = click.unstyle(table(head, rows, spare=("PID", "ADDRESS"))).splitlines()[0]
        assert tuple(first.split()) == shown


def test_where_fewer_columns_do_not_help_the_widest_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("89abcdef", "a-name-that-somebody-thought-was-clear", "done"), ("01234567", "short", "running")]
    monkeypatch.setattr(show, "columns", lambda: 40)
    lines = click.unstyle(table(("ID", "NAME", "STATE"), rows)).splitlines()
    assert max(map(len, lines)) == 40
    assert lines[1] == "89abcdef  a-name-that-somebody…  done"


def test_long_lines_are_folded_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "reach     this machine only; `p2premap invite` lets others in"
    assert fold(text, " " * 10) == text
    monkeypatch.setattr(show, "columns", lambda: 30)
    assert fold(text, " " * 10).splitlines()[1:] == ["          `p2premap invite`", "          lets others in"]
    path = "state in  /a/directory/whose/name/is/longer/than/this/terminal/is/wide"
    assert fold(path, " " * 10) == path, "it may be copied from here"


def test_a_table_has_columns() -> None:
    assert click.unstyle(table(("A", "LONG"), [("xx", "y"), ("z", "")])) == "A   LONG\nxx  y\nz"


def view(done: int, *, leader: NodeId = ADA, stages: int = 1, phase: Phase = Phase.RUNNING, note: str = "") -> JobView:
    last = StageView(number=stages - 1, name=f"stage{stages - 1}", tasks=10, done=done, running=2, lost_attempts=1)
    first = StageView(number=0, name="stage0", tasks=10, done=10)
    return JobView(
        job=b"\x89\xab\xcd\xef" * 4,
        name="count",
        kind="mapreduce",
        phase=phase,
        leader=leader,
        leader_name="ada" if leader == ADA else "bob",
        leader_pid=1,
        age_s=1.0,
        stages=(last,) if stages == 1 else (first, last),
        nodes=(("ada", 3), ("bob", 1)),
        note=note,
    )


def test_a_pipe_gets_a_line_a_second_at_most_and_news_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("p2premap.cli.progress.time.monotonic", lambda: now)
    with PlainProgress() as progress:
        for step in range(40):
            now = 100.0 + step * LINE_S / 10
            progress.update(view(step // 8, note="It waits for a slot." if step > 20 else ""))
        progress.update(view(5, leader=BOB, note="It waits for a slot."))
        progress.update(view(2, leader=BOB, stages=2, note="It waits for a slot."))
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("It waits for a slot.") == 1
    assert lines.count("bob leads the job now, in place of ada.") == 1
    counted = [line for line in lines if line.startswith("stage0: ") and " of 10 tasks" in line]
    assert 3 <= len(counted) <= 6
    assert "stage0: 10 of 10 tasks" in lines
    assert lines[-1].startswith("stage1: 2 of 10 tasks")


def test_a_job_that_nobody_leads_does_not_look_as_if_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    electing = view(4, leader=NOBODY, note="Its replicas are electing a leader.")
    out = io.StringIO()
    with LiveProgress(Console(file=out, force_terminal=True, width=100, color_system=None)) as picture:
        picture.update(view(4))
        picture.update(electing)
    last = out.getvalue().rsplit("count  89abcdef", 1)[1]
    assert "no leader" in last
    assert not any(word in last for word in ("led by", "running"))
    with PlainProgress() as lines:
        for now in (view(4), electing, view(4, leader=BOB)):
            lines.update(now)
    told = capsys.readouterr().err.splitlines()
    assert told[1:3] == ["Its replicas are electing a leader.", "bob leads the job now."]


def test_a_note_that_comes_back_is_no_news() -> None:
    told = News()
    notes = ["", "Waits for ada.", "", "Waits for ada.", "Waits for bob.", "Waits for ada."]
    assert [told.of(view(1, note=note)) for note in notes] == [
        [],
        ["Waits for ada."],
        [],
        [],
        ["Waits for bob."],
        ["Waits for ada."],
    ]


def test_the_clock_of_a_job_goes_on_while_nobody_leads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("p2premap.cli.live.time.monotonic", lambda: now)
    out = io.StringIO()
    with LiveProgress(Console(file=out, force_terminal=True, width=100, color_system=None)) as picture:
        for now in (100.0, 103.0, 107.0):
            picture.update(view(4, leader=ADA if now == 100.0 else NOBODY))
    assert "no leader  8.00 s" in out.getvalue()


def test_the_rate_is_of_the_last_seconds_and_of_the_stage_that_runs() -> None:
    rate = Rate()
    stage = StageView(number=0, name="map", tasks=10, bytes_in=1000)
    assert rate.left_s(stage) is None
    for second in range(20):
        stage = StageView(number=0, name="map", tasks=10, bytes_in=1000, done=second // 5, bytes_done=10 * second)
        rate.feed(float(second), stage)
    assert rate.bytes_per_s() == pytest.approx(10)
    assert rate.left_s(stage) == pytest.approx((1000 - 190) / 10)
    assert rate.left_s(StageView(number=0, name="map", tasks=100, done=9, bytes_in=1000, bytes_done=90)) is None
    rate.feed(20.0, StageView(number=1, name="reduce", tasks=2))
    assert rate.bytes_per_s() == 0


def test_the_live_picture_shows_stages_shares_and_news() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with LiveProgress(console) as progress:
        progress.update(view(3))
        progress.update(view(4, leader=BOB, stages=2))
        progress.collected(2, 5_000)
    text = out.getvalue()
    for expected in ("count", "89abcdef", "stage0", "stage1", "4/10", "ada 75%, bob 25%", "2 parts here, 5 kB",
                     "bob leads the job now, in place of ada.", "1 lost with their node"):  # fmt: skip
        assert expected in text


def test_what_no_node_has_is_told_when_it_changes() -> None:
    told = News()
    needy = msgspec.structs.replace(view(1), unmet=(("ada", "16 GB", "8 GB"),))
    assert [click.unstyle(line).split() for line in told.of(needy)] == [
        ["NODE", "LACKS", "HAS"],
        ["ada", "16", "GB", "8", "GB"],
    ]
    assert told.of(needy) == []
