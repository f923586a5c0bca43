"""From paths to splits: what is found, how it is cut, what is announced, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from p2premap.client import plan as planning
from p2premap.client import splits
from p2premap.client.plan import plan_mapreduce
from p2premap.client.splits import find_files, task_sizes
from p2premap.client.submission import Submission
from p2premap.errors import JobRejected
from p2premap.tasks.mapreduce_plan import MapReducePlan, unpack_plan

JOB = "def map(key, value):\n    yield value, 1\ndef reduce(key, values):\n    return sum(values)\n"


@pytest.fixture
def job(tmp_path: Path) -> str:
    (tmp_path / "job.py").write_text(JOB)
    return str(tmp_path / "job.py")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    directory = tmp_path / "texts"
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / ".hidden").mkdir()
    for name in ("b.txt", "a.txt", "sub/c.txt", "sub/deep/d.md", ".secret", ".hidden/e.txt"):
        (directory / name).write_text(f"words of {name}\n")
    return directory


def plan_of(submission: Submission) -> MapReducePlan:
    return unpack_plan(submission.blobs[1][1])


def ranges(submission: Submission) -> list[list[tuple[str, int, int]]]:
    plan = plan_of(submission)
    return [[(plan.files[s.file].name, s.start, s.end) for s in plan.splits_of(task)] for task in range(plan.tasks)]


def names(*inputs: str) -> list[str]:
    return [f.input.name for f in find_files(inputs)]


def test_directories_are_searched_in_order_and_hidden_files_skipped(texts: Path) -> None:
    expected = [f"{texts}/{name}" for name in ("a.txt", "b.txt", "sub/c.txt", "sub/deep/d.md")]
    assert names(str(texts)) == expected


def test_patterns_match_files_and_directories(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(texts)
    assert names("*.txt") == ["a.txt", "b.txt"]
    assert names("**/*.txt") == ["a.txt", "b.txt", "sub/c.txt"]
    assert names("s*") == ["sub/c.txt", "sub/deep/d.md"]
    assert names("b.txt", "a.txt", "a.txt") == ["b.txt", "a.txt"]
    (texts / "odd[1].txt").write_text("x\n")
    assert names("odd[1].txt") == ["odd[1].txt"]


def test_paths_are_absolute_and_names_as_typed(texts: Path, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(texts)
    submission = plan_mapreduce(job, ["a.txt"], slots=2)
    (file,) = plan_of(submission).files
    assert (file.name, file.path) == ("a.txt", str(texts / "a.txt"))
    assert file.mtime_ns == (texts / "a.txt").stat().st_mtime_ns
    assert submission.files == (str(texts / "a.txt"),)


@pytest.mark.parametrize(
    ("given_input", "sentence"),
    [
        ("missing.txt", "Cannot read missing.txt: No such file or directory"),
        ("*.none", r"Nothing matches \*\.none"),
        ("empty_directory", "There are no files in empty_directory"),
        ("empty.txt", "The input is empty: empty.txt"),
        ("binary.dat", "binary.dat is not text: there are NUL bytes"),
        ("pipe", "pipe is not a regular file"),
        ("dangling", "Cannot read dangling: No such file"),
    ],
)
def test_a_wrong_input_is_refused_with_a_sentence(
    tmp_path: Path, job: str, given_input: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty_directory").mkdir()
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.dat").write_bytes(b"\x7fELF\0\0\1")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(JobRejected, match=sentence) as caught:
        plan_mapreduce(job, [given_input], slots=2)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_named_again_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    for name in ("texts/a.txt", "texts/b.txt"):
        Path(name).write_text(name)
    Path("link.txt").symlink_to("texts/a.txt")
    assert names("texts/b.txt", "texts", "texts/*.txt", "link.txt") == ["texts/b.txt", "texts/a.txt"]


def test_no_input_at_all_is_refused(job: str) -> None:
    with pytest.raises(JobRejected, match="No input"):
        plan_mapreduce(job, [], slots=2)


def test_binary_files_are_fine_where_the_job_reads_bytes(tmp_path: Path) -> None:
    (tmp_path / "bytes.py").write_text("encoding = None\n" + JOB)
    (tmp_path / "binary.dat").write_bytes(b"\0\1\2")
    submission = plan_mapreduce(str(tmp_path / "bytes.py"), [str(tmp_path / "binary.dat")], slots=2)
    assert submission.bytes_in == 3


def test_empty_files_among_others_are_left_out(texts: Path, job: str) -> None:
    (texts / "empty.txt").write_text("")
    assert len(plan_of(plan_mapreduce(job, [str(texts)], slots=2)).files) == 4


def check_cover(submission: Submission, contents: dict[str, bytes]) -> None:
    """Every byte of every file is in exactly one split, cut at line ends, under its digest."""
    plan = plan_of(submission)
    seen = dict.fromkeys(contents, 0)
    for task in range(plan.tasks):
        assert plan.splits_of(task)
        for split in plan.splits_of(task):
            path = plan.files[split.file].path
            assert split.start == seen[path]
            data = contents[path][split.start : split.end]
            assert split.end == len(contents[path]) or data.endswith(b"\n")
            assert split.digest == blake3(data).digest()
            seen[path] = split.end
    assert seen == {path: len(data) for path, data in contents.items()}


lines = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\0", b"x")), max_size=40)


@given(st.lists(lines.map(b"\n".join), min_size=1, max_size=6), st.integers(1, 5), st.integers(1, 60))
def test_splits_cover_the_input_and_end_at_line_ends(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], slots: int, smallest: int
) -> None:
    directory = tmp_path_factory.mktemp("cover")
    (directory / "job.py").write_text(JOB)
    contents = {str(directory / f"{number}.txt"): data for number, data in enumerate(texts) if data}
    for path, data in contents.items():
        Path(path).write_bytes(data)
    if not contents:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "TASK_BYTES_MIN", smallest)
        submission = plan_mapreduce(str(directory / "job.py"), list(contents), slots=slots)
    check_cover(submission, contents)


def test_large_files_are_cut_and_small_ones_share_a_task(
    tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 1_000)
    for number in range(20):
        (tmp_path / f"small{number:02}.txt").write_text("word\n" * 20)
    (tmp_path / "zlarge.txt").write_text("word\n" * 2_000)
    tasks = ranges(plan_mapreduce(job, [str(tmp_path / "*.txt")], slots=2))
    assert len(tasks[0]) == 20 + 1  # the small ones and the beginning of the large one
    assert all(len(task) == 1 for task in tasks[1:])
    assert 6 <= len(tasks) <= 9


def test_tasks_shrink_so_that_slots_finish_together() -> None:
    sizes = task_sizes(200 << 20, 2)
    taken: list[int] = []
    while sum(taken) < 200 << 20:
        taken.append(next(sizes))
    assert taken == sorted(taken, reverse=True)
    assert taken[0] >= 3 * taken[-1]
    assert 6 <= len(taken) <= 10


def test_tasks_have_a_least_and_a_greatest_size() -> None:
    assert next(task_sizes(100, 16)) == splits.TASK_BYTES_MIN
    assert next(task_sizes(1 << 50, 16)) == splits.TASK_BYTES_MAX


def test_a_file_of_one_endless_line_is_one_split(tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 1_000)
    (tmp_path / "line.txt").write_text("word " * 100_000)
    assert ranges(plan_mapreduce(job, [str(tmp_path / "line.txt")], slots=8)) == [
        [(str(tmp_path / "line.txt"), 0, 500_000)]
    ]


def test_partitions_follow_the_slots_but_not_for_little_input(tmp_path: Path, job: str) -> None:
    (tmp_path / "little.txt").write_text("word\n")
    (tmp_path / "much.txt").write_text("some words\n" * 1_000_000)
    (tmp_path / "maponly.py").write_text("def map(key, value): return None\n")

    def partitions(name: str, file: str = job, **more: int) -> int:
        return plan_of(plan_mapreduce(file, [str(tmp_path / name)], slots=16, **more)).partitions  # type: ignore[arg-type]

    assert partitions("little.txt") == 1
    assert partitions("much.txt") == 3
    assert partitions("little.txt", partitions=7) == 7
    assert partitions("much.txt", str(tmp_path / "maponly.py")) == 0
    with pytest.raises(JobRejected, match="5000 partitions"):
        partitions("little.txt", partitions=5_000)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.txt"
    path.write_text("line\n" * 100)
    found = find_files([str(path)])
    monkeypatch.setattr(planning, "find_files", lambda inputs: found)
    path.write_text("line\n")
    with pytest.raises(JobRejected, match="became shorter"):
        plan_mapreduce(job, [str(path)], slots=2)


def test_the_spec_names_the_blobs(texts: Path, job: str) -> None:
    submission = plan_mapreduce(job, [str(texts)], slots=2)
    for ref, (digest, data) in zip((submission.spec.code, submission.spec.plan), submission.blobs, strict=True):
        assert (ref.digest, ref.size) == (digest, len(data))
        assert blake3(data).digest() == digest
    assert (submission.spec.kind, submission.spec.name) == ("mapreduce", "job")
    assert len({plan_mapreduce(job, [str(texts)], slots=2).spec.submission_key for _ in range(3)}) == 3
