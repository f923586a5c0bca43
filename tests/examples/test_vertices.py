"""The examples of vertex jobs without nodes; `tests/cli/test_graph.py` runs them on nodes."""

from __future__ import annotations

from pathlib import Path

from tests.vertex.direct import job

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_shortest_paths(tmp_path: Path) -> None:
    roads = b"Ulm,Augsburg,79.5\nAugsburg,Munich,62\nUlm,Munich,150\nRome,Naples,225\n"
    options = {"weights": True, "undirected": True, "start": "Ulm"}
    assert job(tmp_path, {"roads.csv": roads}, EXAMPLES / "shortest_paths.py", **options).run() == {
        "Ulm": "0.0\t",
        "Augsburg": "79.5\tUlm",
        "Munich": "141.5\tAugsburg",
        "Rome": "inf\t",
        "Naples": "inf\t",
    }


def test_rank_pages(tmp_path: Path) -> None:
    ranks = job(tmp_path, {"g.txt": b"1 2\n2 1\n3 1\n3 2\n"}, EXAMPLES / "rank_pages.py", supersteps=60).run()
    assert round(sum(map(float, ranks.values())), 12) == 1.0
    assert float(ranks["1"]) == float(ranks["2"]) > float(ranks["3"])
