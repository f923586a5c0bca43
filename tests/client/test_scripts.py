"""What users write: scripts, packages, modules beside a notebook. Workers have all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from p2premap.client.private import PrivateCluster
from p2premap.client.syntax import Collector, parse
from p2premap.tasks.bundle import unpack_bundle
from tests.cluster import environment
from tests.cluster import p2premap as command

SCRIPT = """
from dataclasses import dataclass, field
from functools import partial
import p2premap

SCALE = 2

@dataclass(frozen=True)
class Point:
    x: int
    tags: tuple[str, ...] = ()
    parts: list["Point"] = field(default_factory=list)

    def scaled(self):
        return Point(self.x * SCALE, self.tags, [part.scaled() for part in self.parts])

class Odd(ValueError):
    pass

def helper(x):
    return SCALE * x

def calls_others(x):
    return helper(x) + 1

def adder(n):
    return lambda x: x + n

def refuse(x):
    raise Odd(x)

if __name__ == "__main__":
    with p2premap.connect() as cluster:
        moved = cluster.submit(Point.scaled, Point(3, ("a",), [Point(1)])).result(60)
        assert moved == Point(6, ("a",), [Point(2)]), moved
        assert type(moved) is Point
        double = lambda x: SCALE * x
        assert cluster.submit(double, 4).result(60) == 8
        assert cluster.submit(calls_others, 4).result(60) == 9
        assert list(cluster.map(adder(5), range(3))) == [5, 6, 7]
        assert cluster.submit(partial(pow, 2), 5).result(60) == 32
        try:
            cluster.submit(refuse, 1).result(60)
        except Odd as error:
            assert error.args == (1,)
        # what a function names is bound anew, as it is in a notebook
        SCALE = 10
        assert cluster.submit(double, 4).result(60) == 40
        assert cluster.submit(calls_others, 4).result(60) == 41
        def helper(x):
            return -x
        assert cluster.submit(calls_others, 4).result(60) == -3
    print("fine")
"""

PACKAGE = {
    "shop/__init__.py": "TAX = 7\n",
    "shop/money.py": "from . import TAX\n\ndef taxed(x):\n    return x + TAX\n",
    "shop/sales/__init__.py": "",
    "shop/sales/near.py": "def twice(x):\n    return 2 * x\n",
    "shop/sales/main.py": """
import p2premap
from .near import twice
from ..money import taxed
from .. import TAX

def price(x):
    return taxed(twice(x)) - TAX

if __name__ == "__main__":
    with p2premap.connect() as cluster:
        print(list(cluster.map(price, range(4))), cluster.submit(taxed, 1).result(60))
""",
    "shop/sales/job.py": """
from .near import twice
from ..money import taxed

def map(key, line):
    yield "sum", taxed(twice(int(line)))

def reduce(key, values):
    return sum(values)
""",
}

NOTEBOOK = """
import importlib, pathlib, sys
import p2premap

cluster = p2premap.connect()
print(cluster.submit(abs, -1).result(60))

pathlib.Path("beside.py").write_text("BASE = 100\\n\\nclass Box:\\n    pass\\n\\ndef plus(x):\\n    return BASE + x\\n")
import beside
print(cluster.submit(beside.plus, 1).result(60))

def uses(x):
    box = beside.Box()
    box.x = beside.plus(x)
    return box

box = cluster.submit(uses, 2).result(60)
print(box.x, type(box) is beside.Box)

changed = pathlib.Path("beside.py").read_text().replace("BASE + x", "10 * BASE - x")
pathlib.Path("beside.py").write_text(changed)
importlib.invalidate_caches()
pathlib.Path(beside.__cached__).unlink(missing_ok=True)
importlib.reload(beside)
print(cluster.submit(beside.plus, 1).result(60))
cluster.shutdown()
"""


def run(cluster: PrivateCluster, directory: Path, *args: str, stdin: str = "", **variables: str) -> str:
    """What Python prints."""
    done = subprocess.run(
        [sys.executable, *args],
        cwd=directory,
        input=stdin,
        env=environment(cluster.home) | variables,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def test_what_a_script_defines_goes_with_its_calls(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    assert run(three_nodes, tmp_path, "script.py") == "fine\n"


def test_a_script_in_a_package_with_relative_imports(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    write(tmp_path, PACKAGE)
    assert run(three_nodes, tmp_path, "-m", "shop.sales.main") == "[0, 2, 4, 6] 8\n"


def test_modules_beside_a_notebook_are_imported_and_loaded_anew_as_it_goes(
    three_nodes: PrivateCluster, tmp_path: Path
) -> None:
    # read from standard input, as a notebook's cells are: there is no file of the program
    assert run(three_nodes, tmp_path, "-", stdin=NOTEBOOK).split("\n") == ["1", "101", "102 True", "999", ""]


def test_a_job_file_in_a_package_with_relative_imports(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    write(tmp_path, PACKAGE)
    (tmp_path / "in.txt").write_text("1\n2\n3\n")
    done = command(three_nodes.home, "run", str(tmp_path / "shop/sales/job.py"), str(tmp_path / "in.txt"))
    assert (done.exit_code, done.stdout) == (0, "sum\t33\n"), done.stderr


def names(file: Path) -> set[str]:
    source, tree = parse(file, shown=str(file))
    return {module.name for module in unpack_bundle(Collector.of(file, tree).bundle(file, source))}


def test_what_a_job_file_imports_is_found_where_python_would_find_it(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, {"lib/far.py": "", "lib/pack/__init__.py": "", "lib/pack/sub.py": "from . import more\n"})
    write(tmp_path, {"lib/pack/more.py": "", "job/near.py": ""})
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    job = tmp_path / "job/job.py"
    job.write_text("import near, far, pack.sub, msgspec, json\n")
    assert names(job) == {"p2premap_job", "near", "far", "pack", "pack.sub", "pack.more"}


def test_relative_imports_that_point_nowhere_are_left_to_python(tmp_path: Path) -> None:
    directory = tmp_path / "not a name"
    directory.mkdir()
    (directory / "job.py").write_text("from . import near\n")
    assert names(directory / "job.py") == {"p2premap_job"}
    # without __init__.py it is a namespace package, as for `python -m`
    write(tmp_path, {"plain/job.py": "from .near import x\n", "plain/near.py": "x = 1\n"})
    assert names(tmp_path / "plain/job.py") == {"plain.p2premap_job", "plain", "plain.near"}
