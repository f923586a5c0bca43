"""What is kept of a trial that went wrong: what its nodes say, where they stand, and everything on their disks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from p2premap.cli.shapes import job_shape, node_shape, status_shape
from p2premap.control.jobs import Jobs, JobUpdate, ListJobs, Watch
from p2premap.control.nodes import GetStatus, ListNodes, Nodes, Status
from tests.soak.nodes import Cluster, Node

ASK_S = 3.0
DUMP_S = 20.0
FILE_BYTES_MAX = 8 << 20


def save(cluster: Cluster, job: bytes, directory: Path) -> None:
    """Write it down; never raises."""
    directory.mkdir(parents=True, exist_ok=True)
    for node in cluster.nodes.values():
        if node.runs and not node.frozen:
            _say(node, job, directory)
            _stand(node, directory)
    shutil.copytree(cluster.home, directory / "home", ignore=_large, dirs_exist_ok=True)


def _say(node: Node, job: bytes, directory: Path) -> None:
    questions: dict[str, Callable[[], object]] = {
        "status": lambda: status_shape(_ask(node, lambda n: GetStatus(request=n), Status), []),
        "nodes": lambda: [node_shape(v) for v in _ask(node, lambda n: ListNodes(request=n), Nodes).views],
        "jobs": lambda: [job_shape(v) for v in _ask(node, lambda n: ListJobs(request=n), Jobs).views],
        "job": lambda: msgspec.to_builtins(
            _ask(node, lambda n: Watch(request=n, job=job, once=True), JobUpdate), builtin_types=()
        ),
        "why": lambda: _command(node, "why", job.hex(), "--json"),
    }
    for name, question in questions.items():
        try:
            told = question()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        (directory / f"{node.name}-{name}.json").write_text(json.dumps(told, indent=1, default=repr))


def _ask(node: Node, make, answer):  # type: ignore[no-untyped-def]
    with node.connect() as line:
        return line.ask(make, answer, timeout_s=ASK_S)


def _command(node: Node, *args: str) -> str:
    argv = [*node.prefix, sys.executable, "-m", "p2premap", "--node", node.name, *args]
    done = subprocess.run(argv, env=node.environment, capture_output=True, text=True, timeout=DUMP_S)
    return done.stdout + done.stderr


def _stand(node: Node, directory: Path) -> None:
    """Where each thread stands, if py-spy is here."""
    py_spy = Path(sys.executable).parent / "py-spy"
    if py_spy.exists():
        done = subprocess.run(
            [str(py_spy), "dump", "--pid", str(node.pid)], capture_output=True, text=True, timeout=DUMP_S
        )
        (directory / f"{node.name}-stack.txt").write_text(done.stdout + done.stderr)


def _large(directory: str, names: list[str]) -> list[str]:
    """What is not kept: sockets, and files that are large."""
    paths = [Path(directory) / name for name in names]
    return [p.name for p in paths if not p.is_dir() and (not p.is_file() or p.stat().st_size > FILE_BYTES_MAX)]
