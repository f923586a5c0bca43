"""`graph` and `run` with vertex programs, as a person types them, against three real nodes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from p2premap.cli.convergence import Convergence, plot
from p2premap.client.private import PrivateCluster
from p2premap.vertex.plan import StepRow
from tests.cluster import p2premap

EXAMPLES = Path(__file__).parents[2] / "examples"
EDGES = b"# a triangle, a tail, and two by themselves\n1\t2\n2\t3\n3\t1\n3\t4\n8\t9\n"


@pytest.fixture
def graph(tmp_path: Path) -> str:
    path = tmp_path / "graph.txt"
    path.write_bytes(EDGES)
    return str(path)


def rows(text: str) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in text.splitlines())


def test_components_go_to_standard_output(three_nodes: PrivateCluster, graph: str) -> None:
    done = p2premap(three_nodes.home, "graph", "components", graph)
    assert done.exit_code == 0, done.stderr
    assert rows(done.stdout) == {"1": "1", "2": "1", "3": "1", "4": "1", "8": "8", "9": "8"}
    assert "graph: 6 vertices, 5 edges" in done.stderr
    assert re.search(r"^superstep 0: 6 computed, \d active, \d+ messages?, .*\d\.\d{3} s$", done.stderr, re.MULTILINE)


def test_ranks_go_into_a_directory_with_a_plot(three_nodes: PrivateCluster, graph: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--iterations", "12", "--checkpoint-every", "4", "--partitions", "3", "--plot")
    done = p2premap(three_nodes.home, "graph", "pagerank", graph, "-o", str(out), *options)
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["part-00000", "part-00001", "part-00002"]
    ranks = {vertex: float(rank) for path in out.iterdir() for vertex, rank in rows(path.read_text()).items()}
    assert sum(ranks.values()) == pytest.approx(1.0, abs=1e-12)
    assert max(ranks, key=ranks.__getitem__) == "3"
    assert [int(n) for n in re.findall(r"^superstep (\d+):", done.stderr, re.MULTILINE)] == list(range(13))
    assert "delta (logarithmic)" in done.stderr
    again = p2premap(three_nodes.home, "graph", "pagerank", graph, "-o", str(out))
    assert again.exit_code == 2
    assert "holds the output of an earlier job" in again.stderr


def test_distances_as_json(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    table = tmp_path / "roads.csv"
    table.write_text("from,to,km\nUlm,Augsburg,79.5\nAugsburg,Munich,62\noops\nUlm,Munich,150\nRome,Naples,225\n")
    out = tmp_path / "out"
    options = ("--source", "Ulm", "--weights", "--undirected", "--max-bad", "1", "--json", "--writer", "jsonl")
    done = p2premap(three_nodes.home, "graph", "sssp", str(table), "-o", str(out), *options)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["kind"], told["phase"], told["vertices"], told["bad_lines"]) == ("vertex", "done", 5, 1)
    assert told["first_bad_lines"][0].startswith(f"{table}, line 4: 'oops' has 1 field")
    assert [row["superstep"] for row in told["convergence"]] == list(range(told["supersteps"]))
    found = [json.loads(line) for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]
    assert {row["key"]: row["value"] for row in found if row["value"] is not None} == {
        "Ulm": 0.0,
        "Augsburg": 79.5,
        "Munich": 141.5,
    }


@pytest.mark.parametrize(
    ("line", "options", "code", "said"),
    [
        ("1 x", ("pagerank",), 1, "graph.txt, line 7: 'x' is no integer"),
        ("1 2", ("bfs", "--source", "Ada"), 2, "The source 'Ada' is no integer"),
        ("1 2", ("pagerank", "--damping", "2"), 2, "2.0 is not in the range 0<=x<=1"),
        ("1 2", ("sssp",), 2, "Missing option '--source'"),
        ("1 2", ("pagerank", "--detach", "--plot"), 2, "--detach does not wait"),
        ("1 2", ("degrees", "--memory-limit", "1M"), 2, "--memory-limit 1 MB is not enough"),
        ("1 2", ("degrees", "--callback-secret-file", "/dev/null"), 2, "its first line has to be a secret"),
        ("1 2", ("degrees", "--with-requirements", "none.txt"), 2, "none.txt"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    three_nodes: PrivateCluster, graph: str, line: str, options: tuple[str, ...], code: int, said: str
) -> None:
    with open(graph, "a") as file:
        file.write(line + "\n")
    done = p2premap(three_nodes.home, "graph", options[0], graph, *options[1:])
    assert done.exit_code == code, done.stderr
    last = done.stderr.rstrip().splitlines()[-1]
    assert re.search(said, last), done.stderr
    assert "Traceback" not in done.stderr


def test_memory_that_an_algorithm_must_not_take(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    star = tmp_path / "star.txt"
    star.write_text("".join(f"{leaf} 0\n" for leaf in range(1, 400_000)))
    done = p2premap(three_nodes.home, "graph", "degrees", str(star), "--partitions", "1", "--memory-limit", "32M")
    assert done.exit_code == 1, done.stderr
    assert re.search(r"It held \d+ MiB of memory, over its limit of 31 MiB", done.stderr), done.stderr


def test_a_plot_of_a_job_that_was_handed_in_before(three_nodes: PrivateCluster, tmp_path: Path, graph: str) -> None:
    program = str(EXAMPLES / "rank_pages.py")
    options = ("--option", "supersteps=9")
    said = p2premap(three_nodes.home, "run", program, graph, *options, "--detach").stdout.strip()
    watched = p2premap(three_nodes.home, "watch", said, "--plot")
    assert watched.exit_code == 0, watched.stderr
    assert "8 superstep" in watched.stderr
    ran = p2premap(three_nodes.home, "run", program, graph, *options, "--plot")
    assert "8 superstep" in ran.stderr
    assert len(rows(ran.stdout)) == 6
    count = str(EXAMPLES / "wordcount.py")
    for again in (
        ("watch", p2premap(three_nodes.home, "run", count, graph, "--detach").stdout.strip()),
        ("run", count, graph),
    ):
        refused = p2premap(three_nodes.home, *again, "--plot")
        assert refused.exit_code == 2, refused.stderr
        assert "--plot draws how a vertex job converges; this one is of the kind mapreduce" in refused.stderr


def test_no_node(home: Path, graph: str) -> None:
    done = p2premap(home, "graph", "pagerank", graph)
    assert done.exit_code == 69
    assert "No p2premap node answers" in done.stderr


def test_a_program_of_a_job_file(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "roads.csv").write_text("Ulm,Augsburg,79.5\nAugsburg,Munich,62\nUlm,Munich,150\n")
    options = [part for one in ("weights=yes", "undirected=yes", "start=Ulm") for part in ("--option", one)]
    done = p2premap(three_nodes.home, "run", str(EXAMPLES / "shortest_paths.py"), str(tmp_path / "roads.csv"), *options)
    assert done.exit_code == 0, done.stderr
    assert rows(done.stdout) == {"Ulm": "0.0\t", "Augsburg": "79.5\tUlm", "Munich": "141.5\tAugsburg"}


def test_a_program_that_raises(three_nodes: PrivateCluster, tmp_path: Path, graph: str) -> None:
    job = tmp_path / "job.py"
    job.write_text(
        "import p2premap\n\n\nclass Bad(p2premap.VertexProgram):\n"
        "    def compute(self, ctx, vertex, messages):\n"
        "        if ctx.superstep == 3 and vertex.id == 9:\n            1 / 0\n"
        "        ctx.send.all(1)\n"
    )
    done = p2premap(three_nodes.home, "run", str(job), graph)
    assert done.exit_code == 1
    assert "ZeroDivisionError" in done.stderr
    assert re.search(r"vertex 9.*superstep 3|superstep 3.*vertex 9", done.stderr), done.stderr


# --- without nodes ------------------------------------------------------------------------------------------------


def row(superstep: int, sent: int = 10, **values: float) -> StepRow:
    return StepRow(
        superstep=superstep, active=1, computed=2, sent=sent, dropped=0, seconds=0.5, values=tuple(values.items())
    )


def test_a_plot_of_what_changes_by_orders_of_magnitude() -> None:
    lines = plot([row(n, delta=10.0**-n) for n in range(8)])
    assert lines[0] == "delta (logarithmic)"
    assert [line.partition("|")[2] for line in lines[1:9]] == [" " * n + "*" for n in range(8)]
    assert lines[-1].split() == ["0", "7", "superstep"]


def test_a_plot_of_messages_where_nothing_tells_a_change() -> None:
    lines = plot([row(n, sent=n) for n in range(3)])
    assert lines[0] == "messages"
    assert lines[1].endswith("|  *")
    assert plot([]) == plot([row(0)]) == []


def test_many_supersteps_fit_into_a_plot() -> None:
    assert max(map(len, plot([row(n, sent=n % 7) for n in range(0, 5000, 9)]))) < 80


def test_other_jobs_tell_nothing() -> None:
    from tests.cli.scripted import view

    assert Convergence().of(view()) == []
