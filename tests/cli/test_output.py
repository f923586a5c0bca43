"""Where parts go: never over what is there, unless it is asked for, and then only when all are here."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2premap.cli import output
from p2premap.cli.output import output_to
from p2premap.client.directories import OutputFailed, PartsDirectory
from p2premap.client.private import PrivateCluster
from p2premap.errors import ConfigError
from p2premap.ids import Digest
from p2premap.tasks.job import SAVED_PARTS_FIRST, Part, Source
from tests.cluster import environment, job_file, p2premap

SOURCE = Source(digest=Digest(bytes(32)), start=0, end=3, holders=())


def part(number: int, name: str = "") -> Part:
    return Part(number=number, source=SOURCE, name=name)


def tree(directory: Path) -> dict[str, str]:
    return {str(file.relative_to(directory)): file.read_text() for file in directory.rglob("*") if file.is_file()}


@pytest.mark.parametrize("old", ["part-00007", "words/part-00000.jsonl", "00003/page.png"])
def test_an_earlier_output_is_refused(tmp_path: Path, old: str) -> None:
    (tmp_path / old).parent.mkdir(exist_ok=True)
    (tmp_path / old).write_text("precious")
    with pytest.raises(
        ConfigError, match=rf"holds the output of an earlier job \({old}\); name another, or say --overw"
    ):
        PartsDirectory(str(tmp_path))


def test_an_earlier_output_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    for name in ("part-00000", "part-00001", "notes.txt", "00003/page.png", "other/page.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    target = PartsDirectory(str(tmp_path), overwrite=True)
    target.write(part(0), iter([b"n", b"ew"]))
    target.write(part(1, "words/part-00000.jsonl"), iter([b"new"]))
    target.write(part(0), iter([b"newer"]))
    seen = {name: text for name, text in tree(tmp_path).items() if not name.startswith(".")}
    assert len(seen) == 5
    assert set(seen.values()) == {"old"}
    target.deliver()
    seen = {name: text for name, text in tree(tmp_path).items() if not name.startswith(".")}
    assert seen == {
        "part-00000": "newer", "words/part-00000.jsonl": "new", "notes.txt": "old", "other/page.png": "old",
    }  # fmt: skip
    assert not (tmp_path / "00003").exists()


def test_nothing_is_replaced_by_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "part-00000").write_text("old")
    target = PartsDirectory(str(tmp_path), overwrite=True)
    target.write(part(0), iter([b"new"]))
    target.write(part(1), iter([b"new"]))
    next(tmp_path.glob(".new-*/part-00001")).unlink()
    with pytest.raises(OutputFailed, match=r"part-00001 is gone, .* was replaced; fetch the output again"):
        target.deliver()
    assert (tmp_path / "part-00000").read_text() == "old"


def test_two_jobs_replace_the_same_output_and_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "part-00000").write_text("old")
    targets = [PartsDirectory(str(tmp_path), overwrite=True)]
    targets[0].write(part(0), iter([b"first"]))
    targets.append(PartsDirectory(str(tmp_path), overwrite=True))
    targets[1].write(part(0), iter([b"second"]))
    targets[1].deliver()
    assert (tmp_path / "part-00000").read_text() == "second"
    targets[0].deliver()
    assert tree(tmp_path) == {"part-00000": "first"}


def test_what_will_not_be_delivered_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "part-00000").write_text("old")
    target = PartsDirectory(str(tmp_path), overwrite=True)
    target.write(part(0), iter([b"new"]))
    target.discard()
    assert [file.name for file in tmp_path.iterdir()] == ["part-00000"]
    assert tree(tmp_path) == {"part-00000": "old"}


def test_what_cannot_be_replaced_can_when_nothing_is_in_the_way_any_more(tmp_path: Path) -> None:
    (tmp_path / "part-00000").write_text("old")
    target = PartsDirectory(str(tmp_path), overwrite=True)
    for number in range(3):
        target.write(part(number), iter([b"new"]))
    (tmp_path / "part-00001").mkdir()
    with pytest.raises(OutputFailed, match=r"Is a directory; what is not there yet is in .*\.new-"):
        target.deliver()
    (tmp_path / "part-00001").rmdir()
    target.deliver()
    assert tree(tmp_path) == dict.fromkeys(("part-00000", "part-00001", "part-00002"), "new")


ENDS = """
import sys
from p2premap.client import cluster
from p2premap.client.directories import PartsDirectory
from p2premap.ids import Digest
from p2premap.tasks.job import Part, Source

class Connected:
    def shutdown(self):
        if sys.argv[2] == "well":
            target.deliver()

cluster.opened[Connected()] = None
target = PartsDirectory(sys.argv[1], overwrite=True)
source = Source(digest=Digest(bytes(32)), start=0, end=3, holders=())
target.write(Part(number=0, source=source), iter([b"new"]))
"""


@pytest.mark.parametrize(("how", "left"), [("well", "new"), ("badly", "old")])
def test_a_program_that_ends_replaces_the_earlier_output_or_leaves_it(tmp_path: Path, how: str, left: str) -> None:
    (tmp_path / "part-00000").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", ENDS, tmp_path, how],
        cwd=Path(__file__).parents[2],
        env=environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(tmp_path) == {"part-00000": left}
    assert not list(tmp_path.glob(".new-*"))


def test_a_job_does_not_read_what_it_is_to_replace(
    three_nodes: PrivateCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-00000").write_text("old\n")
    monkeypatch.chdir(tmp_path)
    source = job_file(tmp_path, "def map(key, line): yield line, 1\n")
    done = p2premap(three_nodes.home, "run", source, ".", "-o", "out", "--overwrite")
    assert done.exit_code == 2
    assert "out/part-00000 is output that would be replaced: leave out/ out of the inputs." in done.stderr


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../b"])
def test_what_other_nodes_say_does_not_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    target = PartsDirectory(str(tmp_path / "in"))
    target.write(part(3, name), iter([b"new"]))
    assert tree(tmp_path) == {"in/part-00003": "new"}


def test_standard_output_gets_each_part_once_in_order_and_nothing_before_the_end(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(output, "MEMORY_BYTES_MAX", 8)
    target, saved = output.StandardOutput(), part(SAVED_PARTS_FIRST, "page.png")
    with pytest.raises(RuntimeError, match="torn"):
        target.write(part(0), torn())
    for one, data in ((part(1), b"second\n"), (part(0), b"x"), (saved, b"png"), (part(0), b"first\n")):
        assert target.write(one, iter([data[:2], data[2:]])) == len(data)
    assert capfdbinary.readouterr().out == b""
    target.flush()
    assert capfdbinary.readouterr().out == b"first\nsecond\n"


def torn() -> Iterator[bytes]:
    yield b"half"
    raise RuntimeError("torn")


def test_a_full_standard_output_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    target = output.StandardOutput()
    target.write(part(0), iter([b"a\t1\n"]))
    with io.TextIOWrapper(io.FileIO("/dev/full", "w")) as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(OutputFailed, match="Standard output cannot be written: No space left"):
            target.flush()


def test_no_name_is_not_this_directory() -> None:
    with pytest.raises(ConfigError, match="has no name"):
        PartsDirectory("")


def test_overwrite_needs_a_directory() -> None:
    with pytest.raises(ConfigError, match="name it with -o DIR"):
        output_to(None, as_json=False, overwrite=True)


SETS = """
sets = ["words", "lengths"]
writer = "jsonl"

def map(key, line):
    for word in line.split():
        yield "words", word, 1
        yield "lengths", len(word), 1

def reduce(set, key, counts):
    return sum(counts)
"""
FAILS = "def map(key, line):\n    raise ValueError('no')\n"


def test_sets_formats_and_overwriting_from_the_command_line(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    """Two outputs in directories of their own; replaced by the next job that succeeds, and by no other."""
    home, out, data = three_nodes.home, tmp_path / "out", tmp_path / "in.txt"
    data.write_text("a bb a\n")
    job = job_file(tmp_path, SETS)
    done = p2premap(home, "run", job, str(data), "-o", str(out), "--partitions", "1")
    assert done.exit_code == 0, done.stderr
    first = {
        "words/part-00000.jsonl": '{"key":"a","value":2}\n{"key":"bb","value":1}\n',
        "lengths/part-00000.jsonl": '{"key":1,"value":2}\n{"key":2,"value":1}\n',
    }
    assert tree(out) == first
    again = p2premap(home, "run", job, str(data), "-o", str(out))
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert "say --overwrite to replace it" in again.stderr
    job = job_file(tmp_path, FAILS)
    assert p2premap(home, "run", job, str(data), "-o", str(out), "--overwrite").exit_code == 1
    assert tree(out) == first
    job = job_file(tmp_path, "datasource = {'k': 'v'}\ndef map(key, value):\n    yield key, value\n")
    done = p2premap(home, "run", job, "-o", str(out), "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert tree(out) == {"part-00000": "k\tv\n"}


def test_a_missing_package_and_a_reader_that_raises_are_one_sentence(
    three_nodes: PrivateCluster, tmp_path: Path
) -> None:
    home, data = three_nodes.home, tmp_path / "in.txt"
    data.write_text("x\n")
    job = job_file(tmp_path, "import no_such_package\ndef map(key, line):\n    yield line, 1\n")
    done = p2premap(home, "run", job, str(data))
    assert done.exit_code == 1
    assert "No module named 'no_such_package'" in done.stderr
    assert "; install it on that node, or put the module beside the job file)" in done.stderr.splitlines()[-1]
    reader = "def reader(stream):\n    yield 1\n    raise OSError('broken')\ndef map(key, value):\n    yield value, 1\n"
    done = p2premap(home, "run", job_file(tmp_path, reader), str(data))
    assert done.exit_code == 1
    assert "reader failed at record 1" in done.stderr
    assert "OSError: broken" in done.stderr
