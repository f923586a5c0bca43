"""From files to graphs: forms of lines, ids, what is wrong with them, and which partition has what."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from p2premap.client import splits
from p2premap.errors import JobRejected
from p2premap.ids import JobId, NodeId
from p2premap.vertex.director import VertexDirector
from p2premap.vertex.loading import ADJACENCY, STRINGS, Columns, Reading
from p2premap.vertex.plan import VertexPlan
from p2premap.worker.vertex import segments
from p2premap.worker.vertex.owners import key_of, owner, owners_of
from p2premap.worker.vertex.partition import VertexError
from p2premap.worker.vertex.text import BadLines, Names, TextReader
from p2premap.worker.writers import PairsWriter
from tests.vertex.direct import DirectJob, edges_of, job, planned
from tests.webserver import serving

SNAP = b"# Directed graph\n# FromNodeId\tToNodeId\n1\t2\n2\t3\n3\t1\n3\t4\n"
FOUND = ([1, 2, 3, 4], [(1, 2), (2, 3), (3, 1), (3, 4)])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("snap.txt", SNAP),
        ("konect.tsv", b"% sym\n1\t2\n2\t3\n3\t1\n3\t4"),
        ("spaces.txt", b"  1 2\n\n2   3 \r\n3 1\n3 4\n\n"),
        ("plain.csv", b"1,2\n2, 3\n3,1\n3,4\n"),
        ("head.csv", b"source,target\n1,2\n2,3\n3,1\n3,4\n"),
        ("more.csv", b"from,to,when\n1,2,2024-01-01\n2,3,\n3,1,x\n3,4,y\n"),
        ("bom.txt", b"\xef\xbb\xbf1 2\n2 3\n3 1\n3 4\n"),
        ("packed.txt.gz", gzip.compress(SNAP)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # a packed file holds the time at which it was made
)
def test_lists_of_edges(tmp_path: Path, name: str, data: bytes) -> None:
    assert edges_of(job(tmp_path, {name: data}).graphs()) == FOUND


def test_zstandard(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    assert edges_of(job(tmp_path, {"a.txt.zst": zstandard.ZstdCompressor().compress(SNAP)}).graphs()) == FOUND


def test_adjacency_lines(tmp_path: Path) -> None:
    data = b"1 2\n# nothing\n2: 3\n3, 1, 4\n4\n"
    assert edges_of(job(tmp_path, {"a.txt": data}, format="adjacency").graphs()) == FOUND


def test_a_target_without_a_line_of_its_own(tmp_path: Path) -> None:
    vertices, edges = edges_of(job(tmp_path, {"a.txt": b"1 2\n3 1 4\n"}, format="adjacency").graphs())
    assert vertices == [1, 3]
    assert edges == [(1, 2), (3, 1), (3, 4)]


def test_that_may_become_a_vertex(tmp_path: Path) -> None:
    made = job(tmp_path, {"a.txt": b"1 2\n3 1 4\n"}, format="adjacency", unknown="create")
    assert edges_of(made.graphs())[0] == [1, 2, 3, 4]


def test_weights(tmp_path: Path) -> None:
    data = b"1 2 0.5\n2 3 12\n3 1 1e-3\n3 4 -.25\n"
    edges = edges_of(job(tmp_path, {"a.txt": data}, weights=True).graphs())[1]
    assert edges == [(1, 2, 0.5), (2, 3, 12.0), (3, 1, 0.001), (3, 4, -0.25)]


def test_columns_by_number_and_by_name(tmp_path: Path) -> None:
    data = b"what,to,cost,from\na,2,1.5,1\nb,3,2,2\nc,1,3,3\nd,4,4,3\n"
    for number, columns in enumerate(("4,2,3", "from,to,cost")):
        (tmp_path / str(number)).mkdir()
        made = job(tmp_path / str(number), {"a.csv": data}, weights=True, columns=columns)
        assert edges_of(made.graphs())[1] == [(1, 2, 1.5), (2, 3, 2.0), (3, 1, 3.0), (3, 4, 4.0)]


def test_only_files_that_begin_with_them_have_names_of_columns(tmp_path: Path) -> None:
    texts = {"a.csv": b"source,target\n1,2\n", "b.csv": b"2,3\n3,1\n", "c.csv": b"source,target\n3,4\n"}
    assert edges_of(job(tmp_path, texts).graphs()) == FOUND
    (tmp_path / "named").mkdir()
    with pytest.raises(VertexError, match=r"b\.csv does not begin with the names of columns as the first file does"):
        job(tmp_path / "named", texts, columns="source,target").step()


def test_both_ends_see_an_edge(tmp_path: Path) -> None:
    graphs = job(tmp_path, {"a.txt": b"1 2\n2 1\n2 2\n1 2\n"}, "components").graphs()
    assert edges_of(graphs)[1] == [(1, 2)] * 3 + [(2, 1)] * 3 + [(2, 2)]
    assert sum(int(graph.forward.sum()) for graph in graphs if graph.forward is not None) == 4


def test_edges_without_direction(tmp_path: Path) -> None:
    graphs = job(tmp_path, {"a.txt": b"1 2\n2 3\n2 2\n"}, undirected=True).graphs()
    assert edges_of(graphs)[1] == [(1, 2), (2, 1), (2, 2), (2, 3), (3, 2)]
    assert all(graph.forward is None for graph in graphs)


def test_ids_that_are_text(tmp_path: Path) -> None:
    data = 'Ada,Bob\n"Curie, Marie",Ada\nBob,Zoë\n'.encode()
    vertices, edges = edges_of(job(tmp_path, {"a.csv": data}).graphs())
    assert vertices == ["Ada", "Bob", "Curie, Marie", "Zoë"]
    assert edges == [("Ada", "Bob"), ("Bob", "Zoë"), ("Curie, Marie", "Ada")]


def test_words_of_text(tmp_path: Path) -> None:
    made = job(tmp_path, {"a.txt": b"a b 2\nb c 1.5\n"}, weights=True)
    assert edges_of(made.graphs()) == (["a", "b", "c"], [("a", "b", 2.0), ("b", "c", 1.5)])


def test_ids_beyond_64_bits_are_text_where_that_is_said(tmp_path: Path) -> None:
    data = b"1 2\n18446744073709551616 1\n"
    with pytest.raises(VertexError, match=r"a\.txt, line 2: the id 18446744073709551616 does not fit into 64 bits; "):
        job(tmp_path, {"a.txt": data}).step()
    (tmp_path / "b").mkdir()
    assert edges_of(job(tmp_path / "b", {"a.txt": data}, ids="str").graphs())[0] == ["1", "18446744073709551616", "2"]


def test_the_largest_integers(tmp_path: Path) -> None:
    data = b"9223372036854775807 -9223372036854775808\n"
    vertices, edges = edges_of(job(tmp_path, {"a.txt": data}).graphs())
    assert vertices == [-(1 << 63), (1 << 63) - 1]
    assert edges == [((1 << 63) - 1, -(1 << 63))]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"1 x", "line 5: 'x' is no integer; where ids are text, say --ids str."),
        (b"1", "line 5: '1' has 1 field: an edge is two ids, apart by white space."),
        (b"1 2 3", "line 5: '1 2 3' has 3 fields: an edge is two ids; say --weights (in run: --option weights=yes)"),
        (b"1 \xff", r"line 5: '\\xff' is no integer"),
    ],
)
def test_a_line_that_cannot_be_read(tmp_path: Path, line: bytes, said: str) -> None:
    with pytest.raises(VertexError) as told:
        job(tmp_path, {"bad.txt": b"1 2\n3 4\n5 6\n7 8\n" + line + b"\n9 10\n"}).step()
    assert f"bad.txt, {said}" in str(told.value)
    assert str(told.value).endswith("Mend it, or say --max-bad N to leave out up to N such lines.")


@pytest.mark.parametrize("weight", [b"nan", b"inf", b"much"])
def test_a_weight_that_is_no_number(tmp_path: Path, weight: bytes) -> None:
    with pytest.raises(VertexError, match=r"line 2: the weight .* is no"):
        job(tmp_path, {"bad.txt": b"1 2 3\n1 2 " + weight + b"\n"}, weights=True).step()


def test_bad_lines_may_be_left_out(tmp_path: Path) -> None:
    made = job(tmp_path, {"bad.txt": b"1 2\nx y\n2 3\n3\n3 1\n3 4\n"}, max_bad=2)
    assert edges_of(made.graphs()) == FOUND
    assert made.told.loaded.bad == 2
    assert [text.partition(":")[0].rpartition("/")[2] for text in made.told.loaded.first_bad] == [
        "bad.txt, line 2",
        "bad.txt, line 4",
    ]
    assert (made.told.loaded.lines, made.told.loaded.edges) == (6, 4)


def test_but_no_more_than_that(tmp_path: Path) -> None:
    with pytest.raises(VertexError, match=r"3 lines cannot be read, and --max-bad allows 2. The first: .*, line 1: "):
        job(tmp_path, {"bad.txt": b"x y z\n1 2\nx\n2 3\n1 2\n1 2\n3\n3 1\n3 4\n"}, max_bad=2, ids="int").step()


def test_lines_keep_their_numbers_where_a_file_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 64)
    data = b"".join(b"%d %d\n" % (i, i + 1) for i in range(500))
    made = job(tmp_path, {"a.txt": data + b"oh\n" + data}, slots=4)
    assert made.stage is not None
    assert made.stage.tasks > 4
    with pytest.raises(VertexError, match=r"a\.txt, line 501: 'oh' has 1 field"):
        made.step()


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    inputs = tmp_path / "inputs"
    inputs.mkdir()
    table = {"when": ["x"] * 4, "source": [1, 2, 3, 3], "target": [2, 3, 1, 4], "weight": [0.5, 1.0, 2.0, 4.0]}
    parquet.write_table(pyarrow.table(table), inputs / "a.parquet")
    (tmp_path / "work").mkdir()
    found = edges_of(DirectJob(planned("pagerank", [inputs / "a.parquet"], weights=True), tmp_path / "work").graphs())
    assert found[1] == [(1, 2, 0.5), (2, 3, 1.0), (3, 1, 2.0), (3, 4, 4.0)]
    table["source"][2] = None  # type: ignore[call-overload]
    parquet.write_table(pyarrow.table(table), inputs / "a.parquet")
    (tmp_path / "again").mkdir()
    with pytest.raises(VertexError, match=r"a\.parquet, row 3: a cell is empty"):
        DirectJob(planned("pagerank", [inputs / "a.parquet"]), tmp_path / "again").step()
    (tmp_path / "named").mkdir()
    with pytest.raises(Exception, match=r"has no column 'a' but 'when', 'source', 'target', 'weight': say --columns"):
        DirectJob(planned("pagerank", [inputs / "a.parquet"], columns="a,b"), tmp_path / "named").step()


def test_the_output_of_an_earlier_job(tmp_path: Path) -> None:
    pairs: list[bytes] = []
    PairsWriter(pairs.append).add([1, 2, 3], [2, [3], (1, 4)])
    lines = "".join(json.dumps({"key": key, "value": value}) + "\n" for key, value in [(1, 2), (2, 3), (3, [1, 4])])
    text = b"1\t2\n2\t3\n3\t1\n3\t4\n"
    for number, (name, data) in enumerate(
        (("part-00000.pairs", b"".join(pairs)), ("part-00000.jsonl", lines.encode()), ("part-00000", text))
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        assert edges_of(job(directory, {name: data}).graphs()) == FOUND


def test_files_at_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "TASK_BYTES_MIN", 8)
    monkeypatch.setattr(splits, "TASK_BYTES_MAX", 8)
    (tmp_path / "more.txt").write_bytes(b"3\t1\n3 4\n")
    with serving() as server:
        server.files |= {"/graph.txt": b"1 2\n# two\n2 3\n", "/bad.txt": b"1 2\n" * 9 + b"oh\n"}
        inputs = [f"{server.url}/graph.txt", f"file://{tmp_path}/more.txt"]
        (tmp_path / "a").mkdir()
        assert edges_of(DirectJob(planned("pagerank", inputs), tmp_path / "a").graphs()) == FOUND
        (tmp_path / "b").mkdir()
        with pytest.raises(VertexError, match=r"/bad\.txt, line \d+ from byte \d+ on: 'oh' has 1 field"):
            DirectJob(planned("pagerank", [f"{server.url}/bad.txt"]), tmp_path / "b").step()


def test_several_files_and_an_empty_one(tmp_path: Path) -> None:
    made = job(tmp_path, {"a.txt": b"1 2\n2 3\n", "b.txt": b"", "c.txt": b"# c\n3 1\n3 4\n"})
    assert edges_of(made.graphs()) == FOUND


def test_a_file_of_comments_is_an_empty_graph(tmp_path: Path) -> None:
    assert edges_of(job(tmp_path, {"a.txt": b"# nothing\n\n"}).graphs()) == ([], [])


def test_no_input_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobRejected, match="The input is empty"):
        job(tmp_path, {"a.txt": b""})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ids": "float"}, "ids is 'float'; say one of auto, int, str."),
        ({"format": "adjacency", "weights": True}, "Adjacency lines have no weights"),
        ({"columns": "1"}, "columns names 1 of them"),
        ({"columns": "a,b"}, "There is no column 'a': the first row names '1', '2'."),
        ({"max_bad": "few"}, "The option max-bad is 'few': say a number."),
        ({"undirected": "maybe"}, "The option undirected is 'maybe': say yes or no."),
        ({"delimiter": "ab"}, "delimiter is 'ab'; say one character"),
        ({"partitions": 5000}, "5000 partitions: choose between 1 and 1024."),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(JobRejected) as told:
        job(tmp_path, {"a.txt": b"1 2\n2 3\n"}, **options)
    assert said in str(told.value)


def test_the_source_must_be_an_id(tmp_path: Path) -> None:
    with pytest.raises(JobRejected, match="The source 'Ada' is no integer"):
        job(tmp_path, {"a.txt": b"1 2\n"}, "bfs", source="Ada")


def test_partitions_by_ranges_have_about_as_many_edges_each(tmp_path: Path) -> None:
    draw = random.Random(1)
    data = b"".join(b"%d %d\n" % (int(draw.random() ** 3 * 1000), draw.randrange(1000)) for _ in range(20_000))
    graphs = job(tmp_path, {"a.txt": data}, partition_by="range", partitions=4).graphs()
    bounds = [(int(graph.keys[0]), int(graph.keys[-1])) for graph in graphs]
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(bounds))
    assert sum(len(graph.keys) for graph in graphs) == 1000


def test_each_row_has_its_targets_in_the_order_of_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SORTED_EDGES", 100)
    monkeypatch.setattr(segments, "HELD_BYTES_MAX", 2_000)  # spilled now and then
    draw = random.Random(2)
    edges = [(draw.randrange(70_000), draw.randrange(70_000) << draw.choice((0, 40))) for _ in range(3_000)]
    edges += [(7, target) for target in range(500, 0, -1)]
    draw.shuffle(edges)
    data = b"".join(b"%d %d\n" % edge for edge in edges)
    graphs = job(tmp_path, {"a.txt": data}).graphs()
    rows: dict[int, list[int]] = {end: [] for edge in edges for end in edge}
    for source, target in edges:
        rows[source].append(target)
    for number, graph in enumerate(graphs):
        assert (owner(graph.keys, 3) == number).all()
        assert (np.diff(graph.keys) > 0).all()
        for row, key in enumerate(graph.keys.tolist()):
            assert graph.targets[graph.indptr[row] : graph.indptr[row + 1]].tolist() == rows.pop(key)
    assert not rows


def test_owners() -> None:
    keys = np.arange(-(1 << 10), 1 << 10, dtype=np.int64) << 40
    for partitions in (1, 2, 7, 1024):
        spread = np.bincount(owner(keys, partitions), minlength=partitions)
        assert len(spread) == partitions
        assert spread.max() <= len(keys) / partitions * 1.5 + 10
    ids = [1, 1.0, True, "1", (1, 2), 1 << 70, None, b"x"]
    assert owners_of(ids, 5)[0] == owners_of(ids, 5)[1] == owners_of(ids, 5)[2]
    assert key_of("1") != key_of(1)
    assert owners_of(["a", "b", "c", "d"], 1000) == [212, 789, 447, 92]  # the same everywhere, for ever


def test_a_plan_of_another_version_is_refused(tmp_path: Path) -> None:
    _, (_, packed) = planned("degrees", [__file__], ids="str").blobs
    plan = msgspec.msgpack.decode(packed, type=VertexPlan)
    reading = msgspec.msgpack.encode([1, 2, 3])
    strange = replace(plan, settings=replace(plan.settings, reading=reading)).pack()
    with pytest.raises(JobRejected, match="cannot be understood here"):
        VertexDirector(job=JobId(bytes(16)), home=NodeId(bytes(16)), plan=strange)


# --- the fast way and the slow way read the same -----------------------------------------------------------------


def _slowly(data: bytes, reading: Reading) -> tuple[list[tuple[int, int]], int]:
    """What a line-by-line reader makes of it."""
    reader = TextReader(reading, Names(), bad := BadLines(10_000))
    edges: list[tuple[int, int]] = []
    for line in data.split(b"\n"):
        for found in reader.read(memoryview(b"#\n" + line), 0, str):
            edges += zip(found.sources.tolist(), found.targets.tolist(), strict=True)
    return edges, bad.count


_FIELD = st.one_of(
    st.integers(0, 10**6).map(str),
    st.integers(-(1 << 63), (1 << 63) - 1).map(str),
    st.sampled_from(["", "x", "+5", "007", "1.0", "#", "999999999999999999", "9999999999999999999999"]),
)
_LINE = st.tuples(st.lists(_FIELD, max_size=4), st.sampled_from([" ", "\t", "  ", ","])).map(lambda t: t[1].join(t[0]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.tuples(st.integers(0, 9999), st.integers(0, 10**12)).map("{0[0]} {0[1]}".format), _LINE)),
    st.sampled_from([Reading(), Reading(form=ADJACENCY), Reading(delimiter=","), Reading(ids=STRINGS)]),
    st.booleans(),
)
def test_lines_by_numpy_and_lines_by_python(lines: list[str], reading: Reading, ended: bool) -> None:
    data = ("\n".join(lines * 3) + "\n" * ended).encode()
    reader = TextReader(reading, Names(), bad := BadLines(10_000))
    edges: list[tuple[int, int]] = []
    for found in reader.read(memoryview(data), 0, str) if data else ():
        edges += zip(found.sources.tolist(), found.targets.tolist(), strict=True)
    assert (edges, bad.count) == _slowly(data, reading)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1e12).map(lambda x: f"{x:.3f}") | st.floats(0, 1).map(repr), min_size=1, max_size=20))
def test_weights_are_rounded_as_python_does(weights: list[str]) -> None:
    reading = Reading(columns=Columns(weight=2, fields=3))
    data = "".join(f"1 2 {weight}\n" for weight in weights).encode()
    found = list(TextReader(reading, Names(), BadLines(0)).read(memoryview(data), 0, str))
    read = [weight for edges in found if edges.weights is not None for weight in edges.weights.tolist()]
    assert read == list(map(float, weights))
