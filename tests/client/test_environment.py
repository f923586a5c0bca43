"""What a client makes of a requirements file: what it depends on, where wheels are, and what nodes need then."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2premap.client.environment import Environment, _index_options, _kept_at, _read, read
from p2premap.errors import JobRejected
from p2premap.node.paths import Paths
from p2premap.tasks.job import JobOptions
from tests.tasks.test_environment import lock


def files_of(file: Path) -> list[Path]:
    found = [file]
    _read(file, found)
    return found


def test_what_the_environment_brings_nodes_need_not_have() -> None:
    made = lock("num_py-2.1-py3-none-any.whl")
    needs = ("package Num-Py >=2", "package num-py <2", "package scipy", "package num-py | gpu", "tag ssd")
    options = Environment(made, made.encode()).of(JobOptions(requires=needs))
    assert options.requires == ("package num-py <2", "package scipy", "tag ssd")
    assert options.environment is not None
    assert options.environment.size == len(made.encode())


def test_a_wheel_for_one_minor_ties_the_job_to_it() -> None:
    made = lock("a-1-cp312-cp312-manylinux2014_x86_64.whl", python="3.12")
    options = Environment(made, made.encode()).of(JobOptions(requires=("python 3.12",)))
    assert options.requires == ("python 3.12",), "said once"


def test_files_that_a_file_names_count(tmp_path: Path, paths: Paths) -> None:
    (tmp_path / "sub").mkdir()
    top, more, bounds = tmp_path / "r.txt", tmp_path / "sub" / "more.txt", tmp_path / "sub" / "bounds.txt"
    top.write_text("a\n-r sub/more.txt\n-r https://example.org/x.txt\n--require-hashes\n")
    more.write_text("-cbounds.txt\nb\n--requirement=../r.txt\n")
    bounds.write_text("b<3\n")
    found = files_of(top)
    assert found == [top, more, bounds]
    before = _kept_at(found, paths)
    assert _kept_at(files_of(top), paths) == before
    bounds.write_text("b<4\n")
    assert _kept_at(files_of(top), paths) != before
    bounds.unlink()
    with pytest.raises(JobRejected, match=r"Cannot read the requirements file .*bounds\.txt: No such file"):
        files_of(top)


def test_options_of_the_index_go_along(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    file = tmp_path / "r.txt"
    file.write_text(
        "--index-url=https://me:a=b@example.org/simple?x=1\n-f wheels  # here\n--find-links https://example.org/w\n"
        "--no-index\na==1 --hash=sha256:00\n--pre\n'\n"
    )
    assert list(_index_options([file])) == [
        "--index-url https://me:a=b@example.org/simple?x=1",
        f"-f {tmp_path}/wheels",
        "--find-links https://example.org/w",
        "--no-index",
    ]


def test_a_lock_beside_the_interpreter_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(JobRejected, match=r"Cannot read .*nothing: No such file"):
        read(str(tmp_path / "nothing"))
    (tmp_path / "lock").write_bytes(b"\xc1")
    with pytest.raises(JobRejected, match="lock of the job's environment cannot be read"):
        read(str(tmp_path / "lock"))
