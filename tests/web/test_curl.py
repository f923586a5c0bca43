"""docs/curl.md, run as it is printed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import environment

PAGE = Path(__file__).parents[2] / "docs" / "curl.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_walk_through_works_as_printed(three_nodes: PrivateCluster, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 8
    command = f'p2premap() {{ "{sys.executable}" -m p2premap "$@"; }}\nset -e\n'
    script = command + "\necho -----\n".join(blocks)
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment(three_nodes.home),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = [part.strip() for part in ran.stdout.split("-----\n")]
    assert said[0].startswith('{"items":[{"id":')
    assert re.fullmatch(r"/api/v1/jobs/[0-9a-f]{32}", said[2])
    assert said[3].startswith('{"id":')
    assert "counted be" in said[4]
    assert said[4].endswith('"phase":"done"')
    assert said[5] == "event: snapshot"
    assert sorted(line.split("\t") for line in said[6].splitlines()[1:5]) == [
        ["be", "2"],
        ["not", "1"],
        ["or", "1"],
        ["to", "2"],
    ]
    assert said[7].startswith("204")
    assert '"status":404' in said[7]
    assert not list(tmp_path.iterdir())
