"""The deep run goes on where it stopped, and says what it found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from p2premap.sim.deep import KINDS, Done, Part, main, parts_of, read, run_part, work

SMALL = [Part(kind, kinds.seeds[0], 2) for kind, kinds in KINDS.items()]


def test_each_part_that_is_done_is_a_line(tmp_path: Path) -> None:
    results = tmp_path / "deep.jsonl"
    done = list(work(iter(SMALL), results, processes=1, until=math.inf))
    assert [one.part for one in done] == SMALL
    assert read(results) == done
    assert all(one.counts and one.violations == [] for one in done)


def test_a_line_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    results = tmp_path / "deep.jsonl"
    whole = json.dumps(Done(SMALL[1], 1.0, {"tick": 3}, []))
    results.write_text(f"{whole}\n{whole[:-20]}\n")
    assert [one.part for one in read(results)] == [SMALL[1]]


def test_every_seed_is_in_one_part() -> None:
    for name, kind in KINDS.items():
        parts = list(parts_of([name]))
        assert [seed for part in parts for seed in range(part.first, part.first + part.size)] == list(kind.seeds)
    kinds = [part.kind for part in parts_of(tuple(KINDS))]
    assert kinds[: len(KINDS)] == list(KINDS), "a run that is stopped early has done some of each"


def test_a_violation_is_told_and_fails_the_run(tmp_path: Path) -> None:
    results = tmp_path / "deep.jsonl"
    done = [Done(Part("trials", 1_001, 20), 9.0, {"takeover": 7}, []), Done(SMALL[1], 1.0, {}, [(5, "gone: it runs")])]
    results.write_text("".join(json.dumps(one) + "\n" for one in done))
    run = CliRunner().invoke(main, ["--results", str(results), "--minutes", "0"])
    assert run.exit_code == 1
    assert "trials: 20 of 10,000, 9 s of CPU, 0 violations; 7 takeover" in run.output
    assert "seed 5: gone: it runs" in run.output


def test_what_a_walk_violates_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, steps: int) -> None:
        raise AssertionError("own: it goes back")

    monkeypatch.setattr("p2premap.sim.gossipwalk.Walk.run", broken)
    assert run_part(Part("walks of gossip", 7, 2)).violations == [(7, "own: it goes back"), (8, "own: it goes back")]
