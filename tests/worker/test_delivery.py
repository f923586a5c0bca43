"""Writing output parts to URLs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from p2premap.tasks.delivery import DeliverParams, pack_names
from p2premap.worker.delivery import deliver
from p2premap.worker.places import UrlError
from p2premap.worker.runtime import InputLost, Result, Segment
from tests.worker.jobs import context, whole

DATA = b"the whole part\n" * 100


def run(tmp_path: Path, segment: Segment, name: str = "part-00000", others: bytes = b"", url: str = "") -> Result:
    params = DeliverParams(url=url or f"file://{tmp_path}/out", name=name, others=others)
    return deliver(msgspec.msgpack.encode(params), [segment], context(tmp_path))


@pytest.fixture
def part(tmp_path: Path) -> Path:
    (tmp_path / "part").write_bytes(DATA)
    return tmp_path / "part"


def test_a_part_is_written_again_and_again_and_is_the_same(tmp_path: Path, part: Path) -> None:
    segment = whole(part, verified=False, digest=blake3(DATA).digest())
    for _ in range(2):
        assert run(tmp_path, segment, "words/part-00000.jsonl") == Result()
    assert (tmp_path / "out/words/part-00000.jsonl").read_bytes() == DATA


def test_what_is_damaged_here_is_not_written(tmp_path: Path, part: Path) -> None:
    segment = whole(part, verified=False, digest=blake3(DATA).digest())
    for data in (DATA[:-1], DATA[:-1] + b"x", DATA + b"x"):
        part.write_bytes(data)
        with pytest.raises(InputLost) as caught:
            run(tmp_path, segment)
        assert caught.value.digest == segment.digest
    part.unlink()
    with pytest.raises(InputLost, match="cannot be read"):
        run(tmp_path, segment)
    assert not (tmp_path / "out").exists()


def test_an_empty_part_is_an_empty_file(tmp_path: Path) -> None:
    run(tmp_path, Segment("/dev/null", 0, 0, blake3().digest(), False, ""))
    assert (tmp_path / "out/part-00000").read_bytes() == b""


def test_parts_of_an_earlier_job_go_and_other_files_stay(tmp_path: Path, part: Path) -> None:
    out = tmp_path / "out"
    for name in ("part-00000", "part-00007", "words/part-00000", "readme"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("old")
    run(tmp_path, whole(part), others=pack_names(["part-00000"]))
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == ["part-00000", "readme"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, part: Path) -> None:
    with pytest.raises(UrlError, match="file:///dev/null/out/part-00000 cannot be written: Not a directory"):
        run(tmp_path, whole(part), url="file:///dev/null/out")
