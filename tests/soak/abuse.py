"""User code that goes wrong in every way, on real nodes: what `p2premap run` says of each, and what it costs the nodes.

All of these trials run on the same nodes, one after the other: what one of them leaves behind the next ones have too.
A daemon's memory is looked at from its start on, so that what leaks a little each time is seen after twenty times.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from p2premap.errors import ClusterError
from tests.soak.nodes import Node, leftovers, wait_until
from tests.soak.trial import Trial

GROWTH_BYTES_MAX: Final = 48 << 20
"""By how much a daemon may grow, whatever its workers do and however often."""
GONE_S: Final = 30.0
CHILDREN: Final = 4
GIB: Final = 1 << 30

RUN: Final = """
import os, sys, subprocess, time
reader = "lines"

def map(key, line):
    {body}
"""

GIBIBYTE: Final = f"""
import sys, p2premap

def large(byte):
    return byte * {GIB}

if __name__ == "__main__":
    with p2premap.connect(node=sys.argv[1]) as cluster:
        one, other = cluster.submit(large, b"x"), cluster.submit(len, b"after")
        value = one.result()
        print(len(value), value.count(b"x"), other.result(), cluster.job_id)
"""


class Abuse(NamedTuple):
    """What user code does, and what its user must be told.

    Args:
        body: of `map`.
        options: of `p2premap run`.
        code: its exit code.
        phase: of the job at its end.
        failed: attempts that failed.
        error: in the sentence of the job's error, and in what the command says.
        detail: in what is told beside.
        output: the job's only part.
    """

    body: str
    options: tuple[str, ...] = ()
    code: int = 1
    phase: str = "failed"
    failed: int = 0
    error: str = ""
    detail: str = ""
    output: str = ""


THRICE: Final = "Task 0 of stage map {} 3 times, at last on n"

ABUSES: Final = {
    "segfault": Abuse(
        "import ctypes; ctypes.string_at(0)",
        failed=3,
        error=THRICE.format("crashed its worker process") + "?: The worker process was killed by SIGSEGV.",
        detail="in map",
    ),
    "exit": Abuse(
        "print('leaving', flush=True); os._exit(7)",
        failed=3,
        error=THRICE.format("crashed its worker process") + "?: The worker process exited with code 7.",
        detail="leaving",
    ),
    "loop": Abuse(
        "while True: pass",
        options=("--time-limit", "0.3"),
        failed=3,
        error=THRICE.format("exceeded its time limit") + "?: It ran longer than its limit of 0.3 s.",
        detail="in map",
    ),
    "endless": Abuse(
        "while True: pass",
        options=("--timeout", "0.6"),
        code=124,
        phase="cancelled",
        error="was cancelled: the time given by --timeout is over.",
    ),
    "memory": Abuse(
        "hoard = [bytearray(b'x' * (4 << 20)) for _ in range(10_000)]",
        options=("--memory-limit", "100M"),
        failed=3,
        error=THRICE.format("exceeded its memory limit") + "?: It held ",
    ),
    "children": Abuse(
        f"""for number in range({CHILDREN}):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=number % 2 == 0)
    yield line, {CHILDREN}""",
        code=0,
        phase="done",
        output=f"a line\t{CHILDREN}\n",
    ),
    "stdout": Abuse(
        "print('gone'); os.close(1); os.close(2); yield line, 1", code=0, phase="done", output="a line\t1\n"
    ),
}


def abuse(trial: Trial, name: str) -> None:
    """Run a job whose code does this, and compare what its user is told."""
    wanted = ABUSES[name]
    work = trial.cluster.work_dir
    file, text, out = work / f"{name}.py", work / "line", work / f"out-{time.monotonic_ns()}"
    file.write_text(RUN.format(body=wanted.body))
    text.write_text("a line\n")
    memory = Memory(trial)
    home = trial.any_node()
    argv = ("-m", "p2premap", "--node", home.name, "run", file, text, "-o", out, "--partitions", "1", "--json")
    done = _run(trial, home, *argv, *wanted.options)
    told = _json(trial, done.stdout)
    trial.job = bytes.fromhex(str(told.get("id", "")))
    judge_report(trial, wanted, done, told)
    if wanted.output:
        parts = sorted(out.glob("part-*"))
        trial.check([part.read_text() for part in parts] == [wanted.output], f"the output is {parts}")
    _clean(trial)
    memory.judge()


def gibibyte(trial: Trial) -> None:
    """A call that returns a gibibyte: the caller has it, and no daemon has had it in its memory."""
    file = trial.cluster.work_dir / "gibibyte.py"
    file.write_text(GIBIBYTE)
    memory = Memory(trial)
    home = trial.any_node()
    done = _run(trial, home, file, home.name)
    length, count, after, job = (*done.stdout.split(), "", "", "", "")[:4]
    trial.check(
        (done.returncode, length, count, after) == (0, str(GIB), str(GIB), "5"),
        f"the program ended with {done.returncode}: {done.stdout[-300:]} {done.stderr[-1000:]}",
    )
    trial.facts["job"] = job
    _clean(trial)
    memory.judge()
    _forget_blobs(trial)


def _run(trial: Trial, node: Node, *args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*node.prefix, sys.executable, *map(str, args)],
        env=node.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=max(1.0, trial.until - time.monotonic()),
    )


def _json(trial: Trial, text: str) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except ValueError:
        trial.violations.append(f"`p2premap run --json` printed {text[:300]!r}")
        return {}
    assert isinstance(told, dict)
    return told


def judge_report(trial: Trial, wanted: Abuse, done: subprocess.CompletedProcess[str], told: dict[str, Any]) -> None:
    """Whether the exit code, the fields of the JSON and the words on standard error are what this abuse deserves."""
    said = done.stderr
    trial.facts.update(exit_code=done.returncode, error=told.get("error", ""), took_run_s=told.get("took_s", -1))
    trial.check(done.returncode == wanted.code, f"the command ended with {done.returncode}: {said[-1000:]}")
    trial.check(told.get("phase") == wanted.phase, f"the job is {told.get('phase')}: {told.get('error')}")
    failed = sum(stage["failed_attempts"] for stage in told.get("stages", ()))
    trial.check(failed == wanted.failed, f"{failed} failed attempts are counted")
    again = told.get("retries")
    trial.check(again == max(0, failed - 1), f"{again} of them are said to have been tried again")
    lost = sum(stage["lost_attempts"] for stage in told.get("stages", ()))
    trial.check(not lost, f"{lost} attempts are counted as lost with their node")
    words = wanted.error.split("?")
    trial.check(all(word in said for word in words), f"standard error lacks {words}: {said[-1000:]}")
    if wanted.phase == "failed":
        error = str(told.get("error"))
        trial.check(all(word in error for word in words), f"the error lacks {words}: {error}")
    detail = str(told.get("detail"))
    trial.check(wanted.detail in detail and wanted.detail in said, f"the detail lacks {wanted.detail!r}: {detail}")
    trial.check("This is a fault of p2premap" not in said, f"a fault of ours: {said[-1000:]}")


def _clean(trial: Trial) -> None:
    """Nothing of the job runs any more: whatever lives under the cluster's home is one of its daemons."""
    nodes = trial.cluster.nodes.values()
    try:
        wait_until(partial(_only_daemons, trial), time.monotonic() + GONE_S, "processes are left over")
    except TimeoutError:
        left = set(leftovers(trial.cluster.home)) - {node.pid for node in nodes}
        trial.violations.append(f"processes are left over: {[_command_line(pid) for pid in left]}")
    for node in nodes:
        if not node.runs:
            trial.violations.append(f"{node.name} ended: {node.log.read_text(errors='replace')[-1000:]}")


def _only_daemons(trial: Trial) -> bool:
    return set(leftovers(trial.cluster.home)) <= {node.pid for node in trial.cluster.nodes.values()}


def _command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return f"{pid}, gone by now"
    return f"{pid}: {b' '.join(words).decode(errors='replace')}"


def _forget_blobs(trial: Trial) -> None:
    """Twenty results of this size are kept for days: here there may be no room for so many."""
    for blob in trial.cluster.home.rglob("blobs/**/*"):
        if blob.is_file() and blob.stat().st_size >= GIB:
            blob.unlink()


class Memory:
    """The nodes' memory during a trial, and since they were started.

    Raises:
        ClusterError: a node is gone, or its memory cannot be read here.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        for node in trial.cluster.nodes.values():
            node.resident_first = node.resident_first or _resident(node, "VmRSS")
            # from now on the peak is of what comes (proc(5), clear_refs)
            Path(f"/proc/{node.pid}/clear_refs").write_text("5")

    def judge(self) -> None:
        """Bounded, whatever the trials so far did."""
        peaks = {node: _resident(node, "VmHWM") for node in self._trial.cluster.nodes.values() if node.runs}
        self._trial.facts["peak_mb"] = round(max(peaks.values(), default=0) / 1e6, 1)
        grown = {node.name: peak - node.resident_first for node, peak in peaks.items()}
        self._trial.facts["grown_mb"] = round(max(grown.values(), default=0) / 1e6, 1)
        for name, growth in grown.items():
            self._trial.check(growth < GROWTH_BYTES_MAX, f"the daemon {name} has grown by {growth / 1e6:.0f} MB")


def _resident(node: Node, what: str) -> int:
    """Bytes that the daemon holds now (VmRSS) or held at most (VmHWM)."""
    try:
        lines = Path(f"/proc/{node.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{what}:"))
    except (OSError, StopIteration):
        raise ClusterError(f"{node.name} is gone.") from None
