"""Whole vertex jobs without nodes: what algorithms and job files come to, and how what is wrong ends them."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from p2premap.errors import JobRejected
from p2premap.worker.vertex.partition import VertexError
from tests.vertex.direct import job

EXAMPLES = Path(__file__).parents[2] / "examples"
TRIANGLE = b"1 2\n2 3\n3 1\n3 4\n"


def program(directory: Path, source: str) -> Path:
    path = directory / "job.py"
    path.write_text(dedent(source))
    return path


def test_an_empty_graph(tmp_path: Path) -> None:
    assert job(tmp_path, {"a.txt": b"# nothing\n"}).run() == {}


def test_vertices_without_edges(tmp_path: Path) -> None:
    assert job(tmp_path, {"a.txt": b"7\n8\n"}, "components", format="adjacency").run() == {"7": "7", "8": "8"}


def test_mail_to_what_does_not_exist(tmp_path: Path) -> None:
    made = job(tmp_path, {"a.txt": b"1 2 3\n2 1\n"}, "degrees", format="adjacency")
    assert made.run() == {"1": "1\t2", "2": "1\t1"}
    assert made.told.dropped == 1
    (tmp_path / "again").mkdir()
    with pytest.raises(VertexError, match=r"1 messages? went to vertices that do not exist"):
        job(tmp_path / "again", {"a.txt": b"1 2 3\n2 1\n"}, "degrees", format="adjacency", unknown="error").run()


def test_ids_that_are_text(tmp_path: Path) -> None:
    found = job(tmp_path, {"a.csv": "Zoë,Ada\nBob,Ada\nEve,Eve\n".encode()}, "degrees").run()
    assert found == {"Zoë": "0\t1", "Ada": "2\t0", "Bob": "0\t1", "Eve": "1\t1"}


@pytest.mark.parametrize(
    ("name", "data", "options", "said"),
    [
        ("sssp", b"1 2 1\n2 3 -1\n", {"source": "1", "weights": True}, "An edge of vertex 2 has the weight -1.0"),
        ("bfs", TRIANGLE, {"source": "77"}, "77"),
        ("kcore", TRIANGLE, {"supersteps_max": 1}, "superstep"),
        ("pagerank", b"1 2\n1\n", {}, "line 2: '1' has 1 field"),
    ],
)
def test_what_ends_a_job(tmp_path: Path, name: str, data: bytes, options: dict[str, object], said: str) -> None:
    with pytest.raises(VertexError) as told:
        job(tmp_path, {"a.txt": data}, name, **options).run()
    assert said in str(told.value)


def test_a_program_of_lines(tmp_path: Path) -> None:
    source = """
        import p2premap

        class Reached(p2premap.VertexProgram):
            def prepare(self, line):
                if not line.strip():
                    return None
                name, *others = line.split()
                return name, 0, others

            def compute(self, ctx, vertex, messages):
                vertex.value += len(messages)
                if ctx.superstep == 0:
                    ctx.send.all(None)
                ctx.halt()
    """
    texts = {"a.txt": b"ada bob eve\n\nbob eve\neve\n"}
    assert job(tmp_path, texts, program(tmp_path, source)).run() == {"ada": "0", "bob": "1", "eve": "2"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return int(line)", r"invalid literal for int\(\) with base 10: 'x'"),
        ("return line", r"a.txt, line 1: prepare gave '1': it must give \(id, value\)"),
        ("return [], 1", r"a.txt, line 1: prepare gave the id \[\], which is not hashable"),
        ("return 'same', 1", r"Two lines are of the vertex 'same'"),
    ],
)
def test_a_prepare_that_goes_wrong(tmp_path: Path, body: str, said: str) -> None:
    source = f"""
        import p2premap

        class Wrong(p2premap.VertexProgram):
            def prepare(self, line):
                {body if body != "return int(line)" else "return int(line), 0"}

            def compute(self, ctx, vertex, messages):
                ctx.halt()
    """
    with pytest.raises(Exception, match=said) as told:
        job(tmp_path, {"a.txt": b"1\nx\n"}, program(tmp_path, source)).run()
    if "invalid" in said:
        assert told.value.__notes__ == [f"prepare was given {tmp_path}/inputs/a.txt, line 2: 'x'"]


def test_lines_that_prepare_cannot_read_may_be_left_out(tmp_path: Path) -> None:
    source = """
        import p2premap

        class Some(p2premap.VertexProgram):
            def prepare(self, line):
                return int(line), 0

            def compute(self, ctx, vertex, messages):
                ctx.halt()
    """
    made = job(tmp_path, {"a.txt": b"1\nx\n2\n"}, program(tmp_path, source), max_bad=1)
    assert made.run() == {"1": "0", "2": "0"}
    assert made.told.loaded.bad == 1
    assert "line 2: prepare raised ValueError" in made.told.loaded.first_bad[0]


def test_a_job_file_with_several_programs(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        from p2premap import ArrayProgram, VertexProgram

        class One(VertexProgram):
            def compute(self, ctx, vertex, messages):
                vertex.value = 1
                ctx.halt()

        class Two(VertexProgram):
            def compute(self, ctx, vertex, messages):
                vertex.value = 2
                ctx.halt()
        """,
    )
    with pytest.raises(JobRejected, match=r"has the vertex programs One, Two: say --option program=NAME"):
        job(tmp_path, {"a.txt": b"1 2\n"}, path)
    (tmp_path / "again").mkdir()
    assert job(tmp_path / "again", {"a.txt": b"1 2\n"}, path, program="Two").run() == {"1": "2", "2": "2"}


def test_a_program_under_the_name_that_it_derives_from(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        from p2premap import VertexProgram

        class VertexProgram(VertexProgram):
            size = 1

            def compute(self, ctx, vertex, messages):
                vertex.value = self.size
                ctx.halt()
        """,
    )
    assert job(tmp_path, {"a.txt": b"1 2\n"}, path, size="3").run() == {"1": "3", "2": "3"}


def test_a_program_that_derives_from_an_earlier_one_of_its_name(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
        from p2premap import VertexProgram

        class One(VertexProgram):
            size = 1

            def compute(self, ctx, vertex, messages):
                vertex.value = self.size
                ctx.halt()

        class One(One):
            size = 2
        """,
    )
    with pytest.raises(JobRejected, match="line 11: One derives from an earlier class of its name: give each"):
        job(tmp_path, {"a.txt": b"1 2\n"}, path)


@pytest.mark.parametrize("chosen", ["", "One", "Three"])
def test_programs_that_derive_from_each_other(tmp_path: Path, chosen: str) -> None:
    path = program(
        tmp_path,
        """
        from p2premap import VertexProgram

        class One(VertexProgram):
            def compute(self, ctx, vertex, messages):
                ctx.halt()

        class Two(One):
            pass

        class One(Two):
            pass
        """,
    )
    if chosen == "Three":
        path.write_text(f"{path.read_text()}\nclass Three(One):\n    pass\n")
    options = {"program": chosen} if chosen else {}
    with pytest.raises(JobRejected, match=r"One and Two derive from each other: give each class a name of its own"):
        job(tmp_path, {"a.txt": b"1 2\n"}, path, **options)


def test_an_option_that_a_program_has_not(tmp_path: Path) -> None:
    said = "RankPages has no option 'dampng'; options are what its class sets: combine, damping"
    with pytest.raises(JobRejected, match=said):
        job(tmp_path, {"a.txt": TRIANGLE}, EXAMPLES / "rank_pages.py", dampng=0.9)
    path = program(
        tmp_path,
        """
        import p2premap

        class Mixed:
            pass

        class Some(p2premap.ArrayProgram, Mixed):
            def __init__(self):
                self.limit = 3

            def start(self, part): ...

            def compute(self, part, inbox):
                part.state["x"] = part.keys * self.limit
                return True

            def result(self, part):
                return part.state["x"]
        """,
    )
    for name in ("found", "wrong"):
        (tmp_path / name).mkdir()
    assert job(tmp_path / "found", {"a.txt": b"1 2\n"}, path, limit=5).run() == {"1": "5", "2": "10"}
    with pytest.raises(VertexError, match="Some has no option 'limits'"):
        job(tmp_path / "wrong", {"a.txt": b"1 2\n"}, path, limits=5).run()


ARRAYS = """
    import numpy as np
    import p2premap

    class Some(p2premap.ArrayProgram{mixed}):
        def start(self, part):
            part.state["x"] = {state}

        {compute}compute(self, part, inbox):
            part.state["x"] = part.state["x"] + 1
            return part.superstep > 1

        def {result}(self, part):
            return {value}
"""


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"result": "results"}, JobRejected, r"Some has no method result: define result\(self, part\)"),
        ({"result": "results", "mixed": ", dict"}, VertexError, "Some has no method result"),
        ({"compute": "async def "}, JobRejected, "line 9: compute is async; define it with a plain def"),
        ({"value": "(yield part.keys)"}, JobRejected, "line 14: result yields, and nobody takes what"),
        ({"value": "part.state['x'][:1]"}, VertexError, r"result of Some gave an array of the shape \(1,\)"),
        ({"state": "np.zeros(part.n, complex)"}, VertexError, r"part.state\['x'\] is an array of complex128"),
    ],
)
def test_what_an_array_program_lacks(tmp_path: Path, given: dict[str, str], kind: type[Exception], said: str) -> None:
    usual = {"mixed": "", "state": "np.zeros(part.n)", "compute": "def ", "result": "result", "value": "part.keys"}
    with pytest.raises(kind, match=said):
        job(tmp_path, {"a.txt": TRIANGLE}, program(tmp_path, ARRAYS.format(**{**usual, **given})), partitions=1).run()


def test_state_of_any_shape_outlives_a_process(tmp_path: Path) -> None:
    given = {"state": "np.stack([part.keys, part.keys * 10], axis=1)", "value": "part.state['x'][:, 1]"}
    usual = {"mixed": "", "compute": "def ", "result": "result"}
    made = job(tmp_path, {"a.txt": TRIANGLE}, program(tmp_path, ARRAYS.format(**usual, **given)), checkpoint_every=1)
    while made.stage is not None and not made.stage.final:
        made.step()
        made.forget()
    assert made.run() == {"1": "13", "2": "23", "3": "33", "4": "43"}


def test_a_third_column_is_not_left_out_where_it_may_be_the_weight(tmp_path: Path) -> None:
    roads = {"roads.csv": b"from,to,km\n1,2,7.5\n2,3,0.5\n"}
    with pytest.raises(JobRejected, match=r"for the third one to be the weight, or --columns from,to where"):
        job(tmp_path, roads, "sssp", source="1")
    for name, more, far in (("with", {"weights": True}, "8.0"), ("without", {"columns": "from,to"}, "2.0")):
        (tmp_path / name).mkdir()
        assert job(tmp_path / name, roads, "sssp", source="1", **more).run()["3"] == far
    (tmp_path / "vertices").mkdir()
    found = job(tmp_path / "vertices", {"a.txt": b"1 2\n2 3\n"}, EXAMPLES / "shortest_paths.py", start="1").run()
    assert found == {"1": "0.0\t", "2": "1.0\t1", "3": "2.0\t2"}


def test_adjacency_lines_with_a_colon_are_of_integers(tmp_path: Path) -> None:
    found = job(tmp_path, {"a.txt": b"7:\n8:\n9: 7\n"}, "components", format="adjacency").run()
    assert found == {"7": "7", "8": "8", "9": "7"}


FAMILY = """
    import p2premap

    class Base(p2premap.{form}):
        view = "both"

        def prepare(self, line):
            name, *others = line.split()
            return name, 0, others

        def start(self, part):
            part.state["n"] = part.degrees

        def result(self, part):
            return part.value if self.per_vertex else part.state["n"]

    class Middle(Base):
        per_vertex = {per_vertex}

    class Mine(Middle):
        def compute(self, one, two, *three):
            if self.per_vertex:
                two.value = len(two.edges)
                one.halt()
            return True
"""


def test_what_a_program_inherits_counts(tmp_path: Path) -> None:
    path = program(tmp_path, FAMILY.format(form="VertexProgram", per_vertex=True))
    assert job(tmp_path, {"a.txt": b"ada bob eve\nbob eve\neve\n"}, path).run() == {"ada": "2", "bob": "1", "eve": "0"}
    (tmp_path / "arrays").mkdir()
    path = program(tmp_path, FAMILY.format(form="ArrayProgram", per_vertex=False))
    found = job(tmp_path / "arrays", {"a.txt": b"1 2\n2 3\n"}, path).run()
    assert found == {"1": "1", "2": "2", "3": "1"}


def test_a_view_that_nobody_has_seen_is_refused(tmp_path: Path) -> None:
    source = FAMILY.format(form="ArrayProgram", per_vertex=False).replace('view = "both"', 'view = "".join(["both"])')
    with pytest.raises(VertexError, match=r'write view = "both" into the class itself'):
        job(tmp_path, {"a.txt": b"1 2\n2 3\n"}, program(tmp_path, source)).run()
