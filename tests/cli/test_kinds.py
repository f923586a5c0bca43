"""A kind of job that another package brings: the one in examples/, installed for some nodes and not for others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import COMMAND, environment, eventually, p2premap, short_home, start, stop

EXAMPLE = Path(__file__).parents[2] / "examples" / "montecarlo_kind"
JOB = str(EXAMPLE / "pi.py")


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """A directory with the example as an installer leaves it, for PYTHONPATH."""
    about = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    project = about["project"]
    for package in about["tool"]["setuptools"]["packages"]:
        shutil.copytree(EXAMPLE / package, tmp_path / package)
    metadata = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    lines = [line for group, points in project["entry-points"].items() for line in _section(group, points)]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    return tmp_path


def _section(group: str, points: dict[str, str]) -> list[str]:
    return [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]


def _run(home: str, installed: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """A command of a person who has the package, too."""
    place = {**environment(home), "PYTHONPATH": str(installed)}
    return subprocess.run([*COMMAND, *args], env=place, capture_output=True, text=True, timeout=120, check=False)


def test_a_kind_of_another_package_runs_where_that_is_installed_and_nowhere_else(installed: Path) -> None:
    with short_home() as home:
        having = subprocess.Popen(
            [sys.executable, "-m", "p2premap", "node", "--name", "having", "--slots", "1", "--json"],
            env={**environment(home), "PYTHONPATH": str(installed)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        lacking = start(home, "node", "--name", "lacking", "--slots", "2", "--json")
        try:
            assert having.stdout is not None
            assert having.stdout.readline()
            eventually(lambda: len(json.loads(p2premap(home, "nodes", "--json").stdout)) == 2)
            done = _run(home, installed, "--node", "having", "run", "--kind", "montecarlo", JOB, "--json",
                        "--option", "error=0.005")  # fmt: skip
            assert done.returncode == 0, done.stderr
            shape = json.loads(done.stdout)
            assert [node["name"] for node in shape["nodes"]] == ["having"]
            assert [stage["name"] for stage in shape["stages"]][:2] == ["round 1", "round 2"]
            assert shape["stages"][-1]["name"] == "report"
            shown = _run(home, installed, "watch", shape["id"], "-o", str(installed / "out"))
            assert shown.returncode == 0, shown.stderr
            mean, _, error, *_ = (installed / "out" / "part-00000").read_text().split()
            assert abs(float(mean) - 3.14159) < 6 * float(error) <= 6 * 0.005
            refused = _run(home, installed, "--node", "lacking", "run", "--kind", "montecarlo", JOB)
            assert refused.returncode == 2
            assert "No module for jobs of kind 'montecarlo' is installed on lacking." in refused.stderr
        finally:
            stop(lacking)
            having.terminate()
            having.communicate(timeout=60)


def test_the_example_is_one_that_pip_can_install() -> None:
    about = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    (target,) = about["project"]["entry-points"]["p2premap.modules"].values()
    module, _, name = target.partition(":")
    assert f"class {name}" in (EXAMPLE / Path(*module.split("."))).with_suffix(".py").read_text()
