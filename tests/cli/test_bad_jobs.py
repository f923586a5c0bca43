"""What a user can get wrong in a job, on a real node: one sentence, an exit code that is not 0, and nothing lost."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from p2premap.client.connection import local
from p2premap.client.plan import plan_mapreduce
from p2premap.client.private import PrivateCluster
from p2premap.client.session import hand_in
from p2premap.node.charter import job_id
from p2premap.tasks.job import JobOptions
from tests.cluster import eventually, job_file, p2premap, private

COUNT = """
def map(key, line):
    for word in line.split():
        yield word, 1

def reduce(word, counts):
    return sum(counts)
"""


class Bad(NamedTuple):
    """A job that goes wrong.

    Args:
        code: the job file.
        says: what is said, as a pattern. A sentence does not repeat the traceback above it.
        exit: 1: it failed while it ran; 2: it was refused.
        options: of `run`.
    """

    code: str
    says: str
    exit: int = 1
    options: tuple[str, ...] = ()


MAP = "\ndef map(key, value):\n    yield value, 1\n"
REDUCE = "\ndef reduce(key, values):\n    return sum(values)\n"
BAD = {
    "a reader that raises in the middle": Bad(
        'def reader(stream):\n    yield "one"\n    yield "two"\n    raise ValueError("page 3 is torn")\n' + MAP,
        r"words\.txt.*page 3 is torn",
    ),
    "keys that cannot be compared": Bad(
        "def map(key, line):\n    yield 1, line\n    yield 'one', line\n" + REDUCE,
        r"keys.*(int|1).*(str|one)|keys.*(str|one).*(int|1)",
    ),
    "keys that are no keys": Bad("def map(key, line):\n    yield [line], 1\n" + REDUCE, r"a key that cannot be one"),
    "no pairs": Bad("def map(key, line):\n    yield 1\n" + REDUCE, r"must give \(key, value\) pairs"),
    "a partition that there is not": Bad(
        MAP + REDUCE + "\ndef partition(key, n):\n    return n\n",
        r"partition.*\b2\b.*0 to 1",
        options=("--partitions", "2"),
    ),
    "a partition that is no number": Bad(
        MAP + REDUCE + "\ndef partition(key, n):\n    return 'first'\n", r"partition.*'first'"
    ),
    "a package that is not there": Bad("import nowhere_at_all\n" + MAP, r"nowhere_at_all"),
    "a package that is missed later": Bad(
        "def map(key, line):\n    import nowhere_at_all\n    yield line, 1\n", r"nowhere_at_all"
    ),
    "map raises": Bad("def map(key, line):\n    yield line, 1 / 0\n", r"ZeroDivisionError: division by zero"),
    "reduce raises": Bad(MAP + "\ndef reduce(key, values):\n    raise KeyError(key)\n", r"KeyError"),
    "combine raises": Bad(
        "def map(key, line):\n    yield 1, line\n" + REDUCE + "\ndef combine(key, values):\n    raise KeyError(key)\n",
        r"KeyError",
    ),
    "a writer that raises": Bad(MAP + "\ndef writer(pairs, stream):\n    raise OSError('no paper')\n", r"no paper"),
    "what JSON cannot say": Bad(
        "writer = 'jsonl'\ndef map(key, line):\n    yield line, object()\n", r"JSON has no way to say"
    ),
    "a process that ends itself": Bad(
        "import os\ndef map(key, line):\n    os._exit(3)\n", r"crashed its worker process 3 times.*code 3"
    ),
    "a task that never ends": Bad(
        "def map(key, line):\n    while True: pass\n",
        r"exceeded its time limit 3 times.*limit of 0\.3 s",
        options=("--time-limit", "0.3"),
    ),
    "a task that takes too much memory": Bad(
        "def map(key, line):\n    hog = []\n    while True: hog.append(bytearray(1 << 20))\n",
        r"exceeded its memory limit 3 times.*limit of 95 MiB",
        options=("--memory-limit", "100M"),
    ),
    "a limit below what a worker takes": Bad(
        MAP, r"--memory-limit.*worker process", exit=2, options=("--memory-limit", "20M")
    ),
    "a job file without map": Bad("def mop(key, line):\n    yield line, 1\n", r"no function map", exit=2),
    "a job file that is no Python": Bad("def map(key, line)\n", r"line 1", exit=2),
    "map with one argument": Bad("def map(line):\n    yield line, 1\n", r"map must take two arguments", exit=2),
    "an unknown reader": Bad("reader = 'books'\n" + MAP, r"reader is 'books'; say one of", exit=2),
    "a requirement that is none": Bad(MAP, r"'disk 5' is not understood", exit=2, options=("--require", "disk 5")),
    "endless without a datasource": Bad("endless = True\n" + MAP, r"endless but no datasource", exit=2),
    "endless with reduce": Bad("datasource = [1]\nendless = True\n" + MAP + REDUCE, r"endless and reduce", exit=2),
    "lasts of no length": Bad("each_node = True\nlasts = 0\n" + MAP, r"lasts must be a number of seconds", exit=2),
}


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateCluster]:
    """One node, which all of these jobs leave as it was."""
    with private(("n1",)) as cluster:
        yield cluster
        eventually(lambda: phases(cluster) <= {"done", "failed"})


@pytest.fixture
def words(tmp_path: Path) -> Path:
    file = tmp_path / "words.txt"
    file.write_text("one two\ntwo\nthree\n")
    return file


def phases(cluster: PrivateCluster) -> set[str]:
    return {view["phase"] for view in json.loads(p2premap(cluster.home, "jobs", "--json").stdout)}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_one_sentence(node: PrivateCluster, tmp_path: Path, words: Path, name: str) -> None:
    bad, out = BAD[name], tmp_path / "out"
    inputs = () if "each_node" in bad.code or "endless =" in bad.code else (str(words),)
    done = p2premap(node.home, "run", job_file(tmp_path, bad.code), *inputs, *bad.options, "-o", str(out))
    assert done.exit_code == bad.exit, done.stderr
    assert done.stdout == ""
    sentences = [line for line in done.stderr.splitlines() if line.startswith("p2premap: ")]
    assert sentences == [done.stderr.splitlines()[-1]], "it is the last line; a traceback of the job file's is above it"
    assert re.search(bad.says, done.stderr), done.stderr
    stack = "--time-limit" in bad.options  # it shows where the attempt was, all the way down
    assert stack or "p2premap/" not in done.stderr, "no traceback of ours"
    assert not list(out.glob("part-*"))
    assert words.read_text() == "one two\ntwo\nthree\n"


def test_the_node_goes_on_after_all_of_them(node: PrivateCluster, tmp_path: Path, words: Path) -> None:
    done = p2premap(node.home, "run", job_file(tmp_path, COUNT), str(words))
    assert (done.exit_code, done.stdout) == (0, "one\t1\nthree\t1\ntwo\t2\n"), done.stderr


@pytest.mark.parametrize(
    "args", [("--name", "n\udcff"), ("--kind", "action", '"\udcff"'), ("-o", "file:///tmp/\udcff")]
)
def test_text_that_is_not_utf8_is_the_users_to_mend(
    node: PrivateCluster, tmp_path: Path, words: Path, args: tuple[str, ...]
) -> None:
    """As a shell gives it: any bytes."""
    action = "import p2premap\nclass A(p2premap.Action):\n    def process(self): return self.input\n"
    source = job_file(tmp_path, action if "action" in args else "def map(key, line): yield line, 1\n")
    done = p2premap(node.home, "run", source, str(words), *args)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert r"\udcff" in done.stderr


def test_an_output_that_exists_is_refused_and_stays(node: PrivateCluster, tmp_path: Path, words: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "part-00000").write_text("precious\n")
    refused = p2premap(node.home, "run", job_file(tmp_path, COUNT), str(words), "-o", str(out))
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "holds the output of an earlier job (part-00000); name another, or say --overwrite" in refused.stderr
    failed = job_file(tmp_path, "def map(key, line):\n    yield line, 1 / 0\n")
    assert p2premap(node.home, "run", failed, str(words), "-o", str(out), "--overwrite").exit_code == 1
    assert (out / "part-00000").read_text() == "precious\n"


def test_a_job_handed_in_twice_is_one_job(node: PrivateCluster, tmp_path: Path, words: Path) -> None:
    """As a client does that does not know whether its job was accepted."""
    submission = plan_mapreduce(job_file(tmp_path, COUNT), [str(words)], slots=1)

    def handed_in() -> bytes:
        return bytes(hand_in(lambda: local("n1", paths=node.paths), submission))

    first = handed_in()
    assert handed_in() == first
    views = json.loads(p2premap(node.home, "jobs", "--json").stdout)
    assert [view["id"] for view in views].count(first.hex()) == 1


def test_an_id_that_several_jobs_begin_with_is_refused(node: PrivateCluster, tmp_path: Path, words: Path) -> None:
    submission = plan_mapreduce(job_file(tmp_path, COUNT), [str(words)], slots=1, options=JobOptions(copies=1))
    with local("n1", paths=node.paths) as connection:
        replicas = (connection.welcome.node,)
    ids: dict[bytes, bytes] = {}
    for number in itertools.count():  # some hundreds: birthdays
        spec = replace(submission.spec, submission_key=number.to_bytes(16, "big"))
        job = job_id(spec, replicas)
        if (other := ids.setdefault(job[:2], spec.submission_key)) != spec.submission_key:
            break
    for key in (other, spec.submission_key):
        twin = dataclasses.replace(submission, spec=replace(submission.spec, submission_key=key))
        hand_in(lambda: local("n1", paths=node.paths), twin)
    double = job[:2].hex()
    done = p2premap(node.home, "watch", double)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert f"2 jobs begin with {double}; give more digits of the id." in done.stderr


def test_a_combiner_that_is_not_associative_is_the_users_to_avoid() -> None:
    """Nothing can tell one from the other; the page on job files says what one must be."""
    page = (Path(__file__).parents[2] / "docs" / "job-files.md").read_text()
    assert "A **combiner must be associative**" in page
