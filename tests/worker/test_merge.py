"""Sorted runs as one: against a plain sort, in bounded memory, whatever the blocks look like."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from p2premap.worker import merge as merging
from p2premap.worker.blocks import Columns, encode_block
from p2premap.worker.merge import Run, merge
from p2premap.worker.pairs import JobCodeError
from p2premap.worker.runtime import InputLost, Segment

Pairs = list[tuple[int, int]]


def write_run(path: Path, run: Pairs, block: int, *, grouped: bool) -> Segment:
    """A run in blocks of some pairs; grouped ones have a list a key and block."""
    data = b""
    for start in range(0, len(run), block):
        some = run[start : start + block]
        if grouped:
            groups = [(k, [v for _, v in g]) for k, g in groupby(some, key=lambda pair: pair[0])]
            columns = Columns([k for k, _ in groups], [v for _, v in groups], True)
        else:
            columns = Columns([k for k, _ in some], [v for _, v in some], False)
        data += encode_block(columns, "zlib")[0]
    path.write_bytes(b"before" + data + b"after")
    return Segment(str(path), 6, 6 + len(data), blake3(data).digest(), False, "")


def merged(runs: list[Run], *, take: int = 10**9) -> list[tuple[int, list[int]]]:
    """What merging gives; of each key at most `take` values are looked at."""
    return [
        (key, [value for value, _ in zip(window.groups[key], range(take), strict=False)])
        for window in merge(runs)
        for key in window.keys
    ]


def expected(runs: list[Pairs], *, take: int = 10**9) -> list[tuple[int, list[int]]]:
    flat = sorted(((k, n, v) for n, run in enumerate(runs) for k, v in run), key=lambda entry: entry[:2])
    return [(k, [v for _, _, v in g][:take]) for k, g in groupby(flat, key=lambda entry: entry[0])]


run_pairs = st.lists(st.tuples(st.integers(0, 12), st.integers()), max_size=60).map(
    lambda pairs: sorted(pairs, key=lambda pair: pair[0])
)


@given(st.lists(run_pairs, max_size=5), st.integers(1, 7), st.booleans(), st.sampled_from([1, 3, 10**9]))
def test_merging_is_sorting(
    tmp_path_factory: pytest.TempPathFactory, runs: list[Pairs], block: int, grouped: bool, take: int
) -> None:
    directory = tmp_path_factory.mktemp("merge")
    segments = [write_run(directory / str(n), run, block, grouped=grouped) for n, run in enumerate(runs)]
    assert merged([Run(s) for s in segments], take=take) == expected(runs, take=take)


def test_at_most_two_blocks_of_a_run_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    read = Run._read

    def watched(run: Run) -> None:
        read(run)
        held.append(sum(len(c.keys) for c in run.front))

    monkeypatch.setattr(merging.Run, "_read", watched)
    hot = [(5, n) for n in range(2_000)]
    runs = [[(1, 0), *hot, (9, 0)], [(n, n) for n in range(1_000)], hot]
    segments = [write_run(tmp_path / str(n), run, 10, grouped=False) for n, run in enumerate(runs)]
    assert merged([Run(s) for s in segments]) == expected(runs)
    assert len(held) > 400
    assert max(held) <= 20


def test_a_hot_key_is_streamed(tmp_path: Path) -> None:
    segment = write_run(tmp_path / "hot", [(5, n) for n in range(1_000)], 10, grouped=False)
    (window,) = merge([Run(segment)])
    assert not isinstance(window.groups[5], list)


def test_a_changed_run_is_lost_before_anything_of_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = write_run(tmp_path / "run", [(1, 1), (2, 2)], 1, grouped=False)
    data = bytearray((tmp_path / "run").read_bytes())
    data[12] ^= 1
    (tmp_path / "run").write_bytes(data)
    monkeypatch.setattr(merging, "decode_block", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputLost) as caught:
        merged([Run(segment)])
    assert caught.value.digest == segment.digest


def test_a_missing_or_short_run_is_lost(tmp_path: Path) -> None:
    segment = write_run(tmp_path / "run", [(1, 1), (2, 2)], 1, grouped=False)
    for verified in (False, True):
        (tmp_path / "run").write_bytes(b"before")
        with pytest.raises(InputLost):
            merged([Run(segment._replace(verified=verified))])
    (tmp_path / "run").unlink()
    with pytest.raises(InputLost):
        merged([Run(segment)])


def test_keys_that_do_not_compare_are_named(tmp_path: Path) -> None:
    one = write_run(tmp_path / "1", [(1, 1)], 1, grouped=False)
    other = write_run(tmp_path / "2", [("a", 1)], 1, grouped=False)  # type: ignore[list-item]
    with pytest.raises(JobCodeError, match=r"1 \(int\) and 'a' \(str\)"):
        merged([Run(one), Run(other)])


def test_keys_without_an_order_end_in_a_sentence(tmp_path: Path) -> None:
    nan = float("nan")
    runs: list[Pairs] = [[(nan, n) for n in range(4)], [(nan, n) for n in range(4)]]  # type: ignore[misc]
    made = [Run(write_run(tmp_path / f"r{n}", run, 2, grouped=False)) for n, run in enumerate(runs)]
    with pytest.raises(JobCodeError, match="has no place among others, nan"):
        merged(made)


def test_a_merge_of_nothing_is_nothing() -> None:
    assert merged([]) == []
