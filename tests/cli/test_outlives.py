"""A job goes on without the node that submitted it: its plan and its code are on other nodes, and its files shared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.cluster import counts, eventually, job_file, p2premap, plain, private

GATED = """
import os, time
errors = "replace"
reader = "blocks"

def map(key, block):
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    for word in block.split():
        yield word, 1

def reduce(word, counts):
    return sum(counts)
"""


def test_a_job_outlives_its_home_with_all_that_is_on_it(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for number in range(4):
        (inputs / f"{number}.txt").write_text("one two three four\n" * 2_000)
    expected = plain(*inputs.rglob("*.txt"))
    with private() as cluster:
        home = cluster.home
        state = json.loads(p2premap(home, "--node", "n1", "status", "--json").stdout)["state_dir"]
        gate = tmp_path / "gate"
        job = job_file(tmp_path, GATED.format(gate=str(gate)))
        done = p2premap(home, "--node", "n1", "run", job, str(inputs), "--detach")
        assert done.exit_code == 0, done.stderr

        def running() -> bool:
            views = json.loads(p2premap(home, "--node", "n2", "jobs", "--json").stdout)
            return [view["phase"] for view in views] == ["running"]

        eventually(running)
        cluster.kill("n1")
        shutil.rmtree(Path(state) / "blobs")
        gate.touch()
        watched = p2premap(home, "--node", "n2", "watch", done.stdout.strip(), "-o", str(tmp_path / "out"))
        assert watched.exit_code == 0, watched.stderr
        assert counts(tmp_path / "out") == expected
