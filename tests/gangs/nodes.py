"""Real nodes that run jobs of `tests.gangs.kind`."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from p2premap.client.connection import local
from p2premap.control.nodes import ListNodes
from p2premap.control.nodes import Nodes as NodeList
from p2premap.errors import NodeUnavailable, PeerUnreachable
from tests.cluster import COMMAND, environment, eventually
from tests.gangs.kind import HOLD, Plan, answer
from tests.node.nodes import paths

REPOSITORY = Path(__file__).parents[2]


def install(directory: Path) -> dict[str, str]:
    """Have the kind found by whoever is started with these variables."""
    metadata = directory / "sums-1.0.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text("[p2premap.modules]\nsums = tests.gangs.kind:Director\n")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sums\nVersion: 1.0\n")
    (directory / "job.py").write_text("")
    return {"PYTHONPATH": f"{directory}:{REPOSITORY}"}


class Nodes:
    """Nodes of one user on this machine.

    Args:
        directory: for the kind, and what jobs leave behind.
        slots: of each node, in order of name: n1, n2, ...
    """

    def __init__(self, directory: Path, slots: tuple[int, ...]) -> None:
        self.directory = directory
        self._home = tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp", ignore_cleanup_errors=True)
        self._place = {**environment(self._home.name), **install(directory)}
        self._paths = paths(Path(self._home.name))
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.slots: dict[str, int] = {}
        self.signs = directory / "signs"
        self.signs.mkdir()
        for number, count in enumerate(slots, 1):
            self.start(f"n{number}", count)

    def start(self, name: str, slots: int, *options: str) -> None:
        """Another node."""
        argv = [*COMMAND, "node", "--name", name, "--slots", str(slots), "--json", "--until-eof", *options]
        process = subprocess.Popen(
            argv,
            env=self._place,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.processes[name] = process
        assert process.stdout is not None
        assert process.stdout.readline()
        self.slots[name] = slots
        self.settle()

    def settle(self) -> None:
        """Wait until every node knows what each of them offers."""
        for name in self.processes:
            eventually(lambda name=name: self._offered(name) == self.slots)  # type: ignore[misc]

    def _offered(self, at: str) -> dict[str, int]:
        """The slots of those that are there, as this node knows them; nothing while it is too busy to tell."""
        try:
            with local(at, paths=self._paths) as line:
                views = line.ask(lambda n: ListNodes(request=n), NodeList).views
        except (NodeUnavailable, PeerUnreachable):
            return {}
        return {view.name: view.slots for view in views if view.state == "alive"}

    def kill(self, name: str) -> None:
        """A node is gone, with all that it runs."""
        process = self.processes.pop(name)
        del self.slots[name]
        process.kill()
        process.communicate(timeout=60)

    def close(self) -> None:
        """End them all."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.communicate(timeout=60)
        self._home.cleanup()

    def argv(self, *args: str) -> list[str]:
        """A command."""
        return [*COMMAND, *args]

    def submit(self, plan: Plan, at: str = "n1", *options: str) -> subprocess.Popen[str]:
        """Begin to run a job; `finish` waits for it."""
        plan.signs = str(self.signs)
        given = [f"--option={name}={getattr(plan, name)}" for name in plan.__struct_fields__]
        job, out = str(self.directory / "job.py"), str(self.directory / "out")
        argv = self.argv("--node", at, "run", "--kind", "sums", job, "-o", out, *given, *options, "--json")
        return subprocess.Popen(argv, env=self._place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, running: subprocess.Popen[str], plan: Plan, within_s: float = 120.0) -> dict[str, object]:
        """The job's end, whose answer is right."""
        out, err = running.communicate(timeout=within_s)
        assert running.returncode == 0, (out, err)
        parts = sorted((self.directory / "out").glob("part-*"))
        assert [int(part.read_text()) for part in parts] == answer(plan)
        for part in parts:
            part.unlink()
        return json.loads(out)

    def hold(self) -> None:
        """Processes stop in the middle, ..."""
        (self.signs / HOLD).touch()

    def let_go(self) -> None:
        """... and go on."""
        (self.signs / HOLD).unlink()

    def meetings(self) -> dict[str, dict[int, tuple[int, list[int]]]]:
        """Meeting -> seat -> (process, tasks), of those that are, or were, in the middle."""
        found: dict[str, dict[int, tuple[int, list[int]]]] = {}
        for sign in self.signs.glob("*.*.*"):
            meeting, seat, pid = sign.name.split(".")
            found.setdefault(meeting, {})[int(seat)] = (int(pid), list(map(int, sign.read_text().split())))
        return found
