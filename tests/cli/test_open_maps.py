"""Jobs that run once on each node, late ones included, and jobs over what never ends, on real nodes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import eventually, job_file, p2premap, private, start, stop

EACH = """
import os, time

each_node = True

def map(node, _):
    open({begun!r} + node, "w").close()
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    yield "nodes", node

def reduce(key, nodes):
    return sorted(nodes)
"""
ENDLESS = """
import itertools, os, time

datasource = itertools.count(10)
endless = True
lasts = {lasts}

def map(number, key):
    time.sleep(0.02)
    yield key, number
"""


def stages(home: str | Path, job: str) -> list[dict[str, int]]:
    views = json.loads(p2premap(home, "jobs", "--json").stdout)
    return next(view["stages"] for view in views if view["id"] == job)


def test_a_job_runs_once_on_each_node_and_on_one_that_comes_while_it_lasts(tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun-"
    file = job_file(tmp_path, EACH.format(begun=str(begun), gate=str(gate)))

    def ran() -> set[str]:
        return {path.name.removeprefix("begun-") for path in tmp_path.glob("begun-*")}

    with private(("n1", "n2")) as cluster:
        refused = p2premap(cluster.home, "run", file, str(tmp_path))
        assert refused.exit_code == 2
        assert "reads no files" in refused.stderr
        job = p2premap(cluster.home, "run", file, "--detach").stdout.strip()
        eventually(lambda: ran() == {"n1", "n2"})
        late = start(cluster.home, "node", "--name", "n3", "--slots", "2")
        try:
            eventually(lambda: ran() == {"n1", "n2", "n3"})
            assert stages(cluster.home, job)[0]["tasks"] == 3
            gate.touch()
            done = p2premap(cluster.home, "watch", job, "-o", str(tmp_path / "out"))
        finally:
            stop(late)
        assert done.exit_code == 0, done.stderr
        assert (tmp_path / "out" / "part-00000").read_text() == 'nodes\t["n1","n2","n3"]\n'


def test_what_never_ends_gives_part_after_part_until_it_is_cancelled(tmp_path: Path) -> None:
    with private(("n1", "n2")) as cluster:
        out = tmp_path / "out"
        running = start(cluster.home, "run", job_file(tmp_path, ENDLESS.format(lasts=3600)), "-o", str(out), "--json")
        eventually(lambda: len(list(out.glob("part-*"))) > 20)
        (view,) = json.loads(p2premap(cluster.home, "jobs", "--json").stdout)
        assert view["phase"] == "running"
        (stage,) = view["stages"]
        assert stage["tasks"] - stage["done"] <= 16, "no more wait or run than were to at once"
        assert p2premap(cluster.home, "cancel", view["id"]).exit_code == 0
        running.communicate(timeout=60)
        assert running.returncode == 130 or running.returncode == 1
        parts = sorted(out.glob("part-*"))
        numbers = [int(part.name.removeprefix("part-")) for part in parts]
        assert [part.read_text() for part in parts] == [f"{number + 10}\t{number}\n" for number in numbers]


def test_what_never_ends_ends_after_its_time(tmp_path: Path) -> None:
    with private(("n1",)) as cluster:
        for lasts in (2, 60):  # the latter where a machine is so busy that nothing comes of the first
            out = tmp_path / f"out-{lasts}"
            done = p2premap(cluster.home, "run", job_file(tmp_path, ENDLESS.format(lasts=lasts)), "-o", str(out))
            assert done.exit_code == 0, done.stderr
            parts = sorted(out.glob("part-*"))
            assert [part.read_text() for part in parts] == [f"{n + 10}\t{n}\n" for n in range(len(parts))]
            assert "Left out" not in done.stderr
            if len(parts) > 2:
                break
        assert len(parts) > 2
