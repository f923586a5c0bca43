"""The map/reduce examples on the real data path, against plain Python."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from bench.direct import Outcome
from tests.worker.jobs import lines, pairs, run_source

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(directory: Path, example: str, texts: dict[str, bytes]) -> Outcome:
    return run_source(directory, (EXAMPLES / example).read_text(), texts, partitions=2)


def test_inverted_index(tmp_path: Path) -> None:
    texts = {"a.txt": "The whale, the sea.\nÆsir!", "b.txt": "Sea 7 sea; the end", "c.txt": "nothing\n"}
    found = pairs(run(tmp_path, "inverted_index.py", {name: text.encode() for name, text in texts.items()}))
    index = {word: [(Path(name).name, n) for name, n in json.loads(files)] for word, files in found.items()}
    assert index["sea"] == [("b.txt", 2), ("a.txt", 1)]
    assert index["the"] == [("a.txt", 2), ("b.txt", 1)]
    assert set(index) == {"the", "whale", "sea", "æsir", "end", "nothing"}


def test_secondary_sort(tmp_path: Path) -> None:
    first = "visitor,at,page\nann,5000,/c\nbob,10,/x\nann,100,/a\n"
    second = 'visitor,at,page\nann,700,/b\nbob,20,"/y,z"\n'
    found = pairs(run(tmp_path, "secondary_sort.py", {"1.csv": first.encode(), "2.csv": second.encode()}))
    assert {name: json.loads(value) for name, value in found.items()} == {
        "ann": {"visits": 2, "longest_s": 600.0, "began_on": ["/a", "/c"]},
        "bob": {"visits": 1, "longest_s": 10.0, "began_on": ["/x"]},
    }


def test_join(tmp_path: Path) -> None:
    customers = 'id,name,city\n1,"Ada, Countess",London\n2,Bob,Oslo\n3,Eve,Rome\n'
    orders = "customer,amount\n1,10.5\n2,3\n9,99\n1,4\n"
    outcome = run(tmp_path, "join_csv.py", {"customers.csv": customers.encode(), "orders.csv": orders.encode()})
    joined = [tuple(json.loads(line).values()) for line in lines(outcome)]
    rows = [(key, value["name"], value["city"], value["amount"]) for key, value in joined]
    assert sorted(rows) == [
        ("1", "Ada, Countess", "London", 4.0),
        ("1", "Ada, Countess", "London", 10.5),
        ("2", "Bob", "Oslo", 3.0),
    ]


def test_web_log(tmp_path: Path) -> None:
    entry = '10.0.0.{} - - [10/Oct/2000:{:02}:55:36 -0700] "GET {} HTTP/1.0" {} {}'
    requests = [(1, 13, "/a?x=1", 200, 2326), (2, 13, "/a", 404, "-"), (3, 14, "/b", 500, 12), (4, 14, "/a", 200, 5)]
    log = ["not a request", *(entry.format(*request) for request in requests)]
    texts = {
        "access.log": "\n".join(log[:3]).encode(),
        "access.log.1.gz": gzip.compress("\n".join(log[3:]).encode()),
    }
    outcome = run(tmp_path, "web_log.py", texts)
    found: dict[str, dict[str, str]] = {}
    for name, part in zip(outcome.names, outcome.parts, strict=True):
        told = (line.split("\t") for line in part.decode().splitlines())
        found.setdefault(name.partition("/")[0], {}).update((key, value) for key, value in told)
    assert found == {
        "pages": {"/a": "3", "/b": "1"},
        "errors": {"404 /a": "1", "500 /b": "1"},
        "hours": {"2000-Oct-10 13h": "2326", "2000-Oct-10 14h": "17"},
    }
