"""Jobs that were written for remap and mincemeat, as they stand, on real nodes: the examples of each kind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from p2premap.compat import mincemeat
from p2premap.compat.mincemeat import apply_over
from p2premap.compat.remap import FRAME, RemapError, unpack
from tests.cluster import environment, job_file, p2premap

EXAMPLES = Path(__file__).parents[2] / "examples" / "compat"
TEXTS = {"one.txt": "The fox, the dog.\n\nA dog sleeps.\n", "two.txt": "the Fox wakes\n\nso does the dog\n"}


@pytest.fixture
def books(tmp_path: Path) -> list[str]:
    (tmp_path / "books").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "books" / name).write_text(text)
    return [str(tmp_path / "books" / name) for name in TEXTS]


def _script(home: str, name: str, *args: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, which it takes for itself."""
    command = [sys.executable, "-m", "p2premap", "run", "--compat", "mincemeat", name, *args]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=120, check=False)


# --- remap --------------------------------------------------------------------------------------------------------


def _remap(home: str, name: str, *args: str) -> None:
    done = p2premap(home, "run", "--compat", "remap", name, *args)
    assert done.exit_code == 0, done.stderr


def test_a_remap_word_count_with_a_combiner(three_nodes: PrivateCluster, books: list[str], tmp_path: Path) -> None:
    _remap(three_nodes.home, str(EXAMPLES / "remap_wordcount.py"), *books, "-o", str(tmp_path / "out"))
    words = Counter(re.findall(r"[a-z]+", " ".join(TEXTS.values()).lower()))
    for partition, letters in (("a2m", "abcdefghijklm"), ("n2z", "nopqrstuvwxyz")):
        lines = (tmp_path / "out" / f"reduce_{partition}").read_text().splitlines()
        assert lines == [f"{word},{words[word]}" for word in sorted(words) if word[0] in letters]
    again = p2premap(
        three_nodes.home,
        "run",
        "--compat",
        "remap",
        str(EXAMPLES / "remap_wordcount.py"),
        *books,
        "-o",
        str(tmp_path / "out"),
    )
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1), "before anything runs"
    assert "is not empty (reduce_a2m), and the application names its files itself" in again.stderr


def test_a_remap_secondary_sort_has_a_file_for_each_department_by_salary(
    three_nodes: PrivateCluster, tmp_path: Path
) -> None:
    people = ["1,Ada,Lovelace,Engines,900", "2,Alan,Turing,Machines,1000", "3,Grace,Hopper,Machines,700", ""]
    (tmp_path / "people.csv").write_text("\n".join([*people[:3], "4,Charles,Babbage,Engines,90", ""]))
    out = tmp_path / "out"
    _remap(three_nodes.home, str(EXAMPLES / "remap_secondarysort.py"), str(tmp_path / "people.csv"), "-o", str(out))
    assert (out / "reduce_Engines").read_text() == "Charles Babbage,90\nAda Lovelace,900\n"
    assert (out / "reduce_Machines").read_text() == "Grace Hopper,700\nAlan Turing,1000\n"


def test_a_remap_collation_reads_and_writes_by_classes_of_its_own(
    three_nodes: PrivateCluster, books: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _remap(three_nodes.home, str(EXAMPLES / "remap_collation.py"), *books, "-o", str(out), "--partitions", "2")
    assert (out / "index-s.txt").read_text() == "1 words\nso: two.txt/1\n"
    assert (out / "index-t.txt").read_text() == "1 words\nthe: one.txt/0 two.txt/0 two.txt/1\n"


def test_without_o_a_remap_application_prints_what_its_writers_wrote(
    three_nodes: PrivateCluster, books: list[str]
) -> None:
    done = p2premap(three_nodes.home, "run", "--compat", "remap", str(EXAMPLES / "remap_wordcount.py"), books[1])
    assert sorted(done.stdout.splitlines()) == ["does,1", "dog,1", "fox,1", "so,1", "the,2", "wakes,1"]


PAGES = "a b c\nb c\nc a\n\nd c\n"


def test_a_vertex_application_of_remap_ranks_pages(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "pages.txt").write_text(PAGES)
    out = tmp_path / "ranks"
    _remap(three_nodes.home, str(EXAMPLES / "remap_pagerank.py"), str(tmp_path / "pages.txt"), "-o", str(out))
    links = {line.split()[0]: line.split()[1:] for line in PAGES.splitlines() if line}
    expected = dict.fromkeys(links, 1.0)
    for _ in range(30):
        given = {page: [expected[by] / len(links[by]) for by in links if page in links[by]] for page in links}
        expected = {page: 0.15 + 0.85 * sum(given[page]) for page in links}
    lines = [line.split("\t") for part in out.iterdir() for line in part.read_text().splitlines()]
    assert {page: float(rank) for page, rank, _ in lines} == pytest.approx(expected, rel=1e-12)
    assert {page: targets for page, _, targets in lines} == {page: str(targets) for page, targets in links.items()}


def test_a_vertex_application_of_remap_subscribes_to_other_vertices(
    three_nodes: PrivateCluster, tmp_path: Path
) -> None:
    (tmp_path / "values.txt").write_text("a 3 b\nb 9 c\n\nc 2 d\nd 5 a\ne 1\nf 4 e\n")
    source = str(EXAMPLES / "remap_highest.py")
    done = p2premap(
        three_nodes.home, "run", "--compat", "remap", source, str(tmp_path / "values.txt"), "--partitions", "4"
    )
    assert done.exit_code == 0, done.stderr
    found = {line.split("\t")[0]: int(line.split("\t")[2]) for line in done.stdout.splitlines()}
    assert found == {"a": 9, "b": 9, "c": 9, "d": 9, "e": 1, "f": 4}
    assert "All vertices have halted after" in done.stderr


REFUSED = [
    ("def map(key, value):\n    yield 1\n", "is no remap application: it lacks create_mapper_reader"),
    ("def prepare(line): pass\ndef compute(*a): pass\n", "is no vertex application of remap: it lacks create_vertex"),
    (
        "def create_vertex_reader(f): return Mine(f)\ndef prepare(line): pass\ndef compute(*a): pass\n",
        "must return a remap.TextFileReader",
    ),
    ("print 'two'\n", "line 1"),
]


@pytest.mark.parametrize(("source", "sentence"), REFUSED)
def test_what_is_no_remap_application_is_refused_in_one_sentence(
    three_nodes: PrivateCluster, tmp_path: Path, source: str, sentence: str
) -> None:
    done = p2premap(three_nodes.home, "run", "--compat", "remap", job_file(tmp_path, source), __file__)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert sentence in done.stderr


def test_a_remap_application_is_waited_for(three_nodes: PrivateCluster, books: list[str]) -> None:
    name = str(EXAMPLES / "remap_wordcount.py")
    done = p2premap(three_nodes.home, "run", "--compat", "remap", name, *books, "--detach")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "wait for it" in done.stderr


def test_what_a_remap_application_raises_is_shown_with_its_own_lines(
    three_nodes: PrivateCluster, books: list[str], tmp_path: Path
) -> None:
    source = (EXAMPLES / "remap_wordcount.py").read_text().replace("value.lower()", "value.nonesuch()")
    done = p2premap(three_nodes.home, "run", "--compat", "remap", job_file(tmp_path, source), *books)
    assert done.exit_code == 1
    assert "value.nonesuch()" in done.stderr
    assert "adapter.py" not in done.stderr
    assert "AttributeError" in done.stderr


def test_a_part_is_unpacked_into_its_files() -> None:
    part = FRAME + b'{"name": "a", "size": 3}\nx\ny' + FRAME + b'{"name": "../../b", "size": 0}\n'
    assert list(unpack(part)) == [("a", b"x\ny"), ("b", b"")]
    with pytest.raises(RemapError):
        list(unpack(b"something else\n"))


# --- mincemeat ----------------------------------------------------------------------------------------------------


def test_a_mincemeat_word_count(three_nodes: PrivateCluster) -> None:
    done = _script(three_nodes.home, str(EXAMPLES / "mincemeat_wordcount.py"))
    assert done.returncode == 0, done.stderr
    assert {"dog 3", "fox 2", "the 4", "a 2"} <= set(done.stdout.splitlines())


def test_mincemeat_without_reduce_and_with_collect_functions_of_both_forms(
    three_nodes: PrivateCluster, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("b " * 12 + "c c\n")
    (tmp_path / "b.txt").write_text("b c\n")
    done = _script(three_nodes.home, str(EXAMPLES / "mincemeat_collect.py"), str(tmp_path / "*.txt"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["collect 2 b=13 c=3", "collect_all 2 b=13 c=3"]


def test_mincemeat_asks_each_node_once_for_its_statistics(three_nodes: PrivateCluster) -> None:
    done = _script(three_nodes.home, str(EXAMPLES / "mincemeat_hosts.py"))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert all("CPUs" in line for line in done.stdout.splitlines())


MINCEMEAT = """
import mincemeat

def mapfn(key, value):
    import mincemeat as there
    yield key % 2, value if there.VERSION else None

seen = []
server = mincemeat.Server(mapfn=mapfn, datasource={n: n * n for n in range(10)})
server.reducefn = lambda items: ((key, max(values)) for key, values in items)
server.set_datasource({2: [5, 7]}, mapfn=None, txn="second")
server.run_server(password="x", port=mincemeat.DEFAULT_PORT)
print(server.results(), server.results(), server.results())
daemon = mincemeat.Server_daemon({"datasource": {1: 2}, "mapfn": mapfn, "password": "x"})
daemon.start()
daemon.stop()
print(daemon.state(), daemon.results())
raise ValueError("as it was raised")
"""


def test_mincemeat_transactions_daemons_and_errors(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    done = _script(three_nodes.home, job_file(tmp_path, MINCEMEAT))
    assert done.stdout.splitlines() == [
        "{0: 64, 1: 81} {0: [5, 7]} None",
        "success {1: [2]}",
    ]
    assert done.returncode == 1
    assert 'raise ValueError("as it was raised")' in done.stderr
    assert "p2premap/compat" not in done.stderr, "the script's own lines, and none of ours"
    assert done.stderr.splitlines()[-1].startswith("p2premap: ValueError: as it was raised (job.py, line ")


def test_functions_are_applied_in_either_form() -> None:
    items = [("a", [1, 2]), ("b", [3])]
    assert dict(apply_over(lambda key, values: sum(values), items)) == {"a": 3, "b": 3}
    assert dict(apply_over(lambda pairs: ((k * 2, v) for k, v in pairs), items)) == {"aa": [1, 2], "bb": [3]}
    assert dict(apply_over(lambda key, values, start=1: sum(values, start), items)) == {"a": 4, "b": 4}


def test_a_server_with_nothing_to_do_says_so() -> None:
    with pytest.raises(mincemeat.MincemeatError, match="no datasource"):
        mincemeat.Server().run_server()


def test_options_that_would_be_of_no_effect_on_a_script_are_refused(three_nodes: PrivateCluster) -> None:
    name = str(EXAMPLES / "mincemeat_wordcount.py")
    done = p2premap(three_nodes.home, "run", "--compat", "mincemeat", name, "--partitions", "3")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "--partitions has no effect" in done.stderr
