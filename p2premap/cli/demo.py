"""Three real nodes on this machine count words, the answer is checked, and nothing of it stays: `demo`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click

from p2premap.cli import demo_job
from p2premap.cli.exits import Exit
from p2premap.cli.progress import Progress, progress_for
from p2premap.cli.show import clean, count, json_option, print_json, say
from p2premap.cli.words import WordCounts
from p2premap.client.amounts import duration, size
from p2premap.client.connection import local
from p2premap.client.jobs import cancel, raise_unless_done
from p2premap.client.private import PrivateCluster
from p2premap.client.session import Collector, hand_in, renamed, see_through
from p2premap.errors import ConfigError, P2PRemapError
from p2premap.tasks.job import JobView

NAMES = ("red", "green", "blue")
COLOURS = {"red": "red", "green": "green", "blue": "blue"}
BAR_CELLS = 30
INPUT_BYTES_MAX = 64 << 20
TOP = 5

NEXT = (
    ("node", "a node that stays; type the same on every machine"),
    ("run JOB.py FILES... -o OUT", "a job of your own"),
    ("invite", "let another machine in"),
    ("--help", "everything else"),
)


@dataclass
class Report:
    """What happened, for people and for ``--json``. Times in seconds."""

    files: int = 0
    bytes_in: int = 0
    start_s: float = 0.0
    job_s: float = 0.0
    plain_s: float = 0.0
    words: int = 0
    different: int = 0
    right: bool = False
    shares: dict[str, int] = field(default_factory=dict)
    top: list[tuple[str, int]] = field(default_factory=list)
    total_s: float = 0.0


@click.command()
@click.option("--input", "path", metavar="PATH", help="Count the words of this file or directory instead.")
@json_option
@click.pass_context
def demo(ctx: click.Context, path: str | None, as_json: bool) -> None:
    """See it work: three nodes, one job, 20 seconds.

    Starts three real nodes on this machine, counts the words of Python's own library on them, compares with a plain
    count, shows who did what, and leaves nothing running.
    """
    started = time.monotonic()
    report = Report()
    tell: Callable[[str], None] = (lambda text: None) if as_json else say
    with _terminated_as_interrupt():
        tell(click.style("p2premap demo", bold=True) + ": three nodes on this machine, one job, no head node")
        tell("")
        files = _inputs(path)
        report.files, report.bytes_in = len(files), sum(os.path.getsize(name) for name in files)
        counts = _run_on_cluster(files, report, tell, progress_for(as_json=as_json))
        _compare(files, counts, report)
    report.total_s = time.monotonic() - started
    if as_json:
        print_json(_shape(report))
    else:
        _print_report(report)
    ctx.exit(Exit.OK if report.right else Exit.FAILED)


@contextlib.contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal take the same way out as Ctrl-C: through every clean-up."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _inputs(path: str | None) -> list[str]:
    """The files to count: by default the sources of Python's own library, which every machine has.

    Raises:
        ConfigError: there is nothing to count.
    """
    if path is None:
        library = Path(sysconfig.get_paths()["stdlib"])
        found = sorted(p for p in library.rglob("*.py") if not {"site-packages", "dist-packages"} & set(p.parts))
        return _up_to(INPUT_BYTES_MAX, (str(p) for p in found if p.is_file() and b"\0" not in p.read_bytes()[:65536]))
    from p2premap.client.splits import find_files

    return [file.input.path for file in find_files([path])]


def _up_to(limit: int, names: Iterator[str]) -> list[str]:
    taken, total = [], 0
    for name in names:
        total += os.path.getsize(name)
        if total > limit:
            break
        taken.append(name)
    if not taken:
        raise ConfigError("Python's own sources are not on this machine; name a text with --input PATH.")
    return taken


def _run_on_cluster(files: list[str], report: Report, tell: Callable[[str], None], progress: Progress) -> Counter[str]:
    begun = time.monotonic()
    slots = max((os.cpu_count() or 1) // len(NAMES), 1)
    with PrivateCluster(NAMES, slots=slots) as cluster:
        report.start_s = time.monotonic() - begun
        pids = ", ".join(f"{_node(name)} (pid {pid})" for name, pid in zip(NAMES, cluster.pids, strict=True))
        tell(f"{pids} found each other in {duration(report.start_s)}.")
        what = "Python's own library" if len(files) > 1 else files[0]
        tell(f"Counting the words of {count(report.files, 'file')}, {size(report.bytes_in)} ({clean(what)}):")
        counts, view = _count_words(files, cluster, progress, report)
        report.shares = dict(view.nodes)
    return counts


def _count_words(
    files: list[str], cluster: PrivateCluster, progress: Progress, report: Report
) -> tuple[Counter[str], JobView]:
    from p2premap.client.plan import plan_mapreduce

    connect = partial(local, paths=cluster.paths)
    output = WordCounts()
    begun = time.monotonic()
    with progress:
        submission = plan_mapreduce(str(demo_job.__file__), files, slots=cluster.slots, compression="none")
        submission = renamed(submission, "count words")
        job = hand_in(connect, submission)
        try:
            collector = Collector(connect, output, progress.collected)
            view = see_through(connect, job, collector, progress.update, lambda: None, known=True)
        except KeyboardInterrupt:
            with contextlib.suppress(P2PRemapError), connect() as connection:
                cancel(connection, job, "Ctrl-C at the demo")
            raise
    report.job_s = time.monotonic() - begun
    raise_unless_done(view)
    return output.words, view


def _compare(files: list[str], counts: Counter[str], report: Report) -> None:
    begun = time.monotonic()
    plain: Counter[str] = Counter()
    for name in files:
        plain.update(demo_job.WORD.findall(Path(name).read_text(encoding="utf-8", errors="replace").lower()))
    report.plain_s = time.monotonic() - begun
    report.right = plain == counts
    report.words, report.different = plain.total(), len(plain)
    report.top = plain.most_common(TOP)


def _node(name: str) -> str:
    return click.style(name, fg=COLOURS.get(name), bold=True)


def _print_report(report: Report) -> None:
    say()
    if not report.right:
        wrong = click.style("The answer is WRONG", fg="red", bold=True)
        say(f"{wrong}: it differs from a plain count. Please report it.")
        return
    total = sum(report.shares.values())
    for name in NAMES:
        tasks = report.shares.get(name, 0)
        bar = "█" * round(BAR_CELLS * tasks / max(total, 1))
        say(f"  {_node(name.ljust(5))}  {click.style(bar.ljust(BAR_CELLS), fg=COLOURS[name])}  {count(tasks, 'task')}")
    say()
    same = click.style("the same answer", fg="green", bold=True)
    say(
        f"{same} as a plain count: {report.words:,} words, {report.different:,} different, "
        f"most often {', '.join(word for word, _ in report.top)}"
    )
    say(f"{duration(report.job_s)} on the three nodes, {duration(report.plain_s)} in one process")
    if report.job_s > report.plain_s:
        cpus = count(os.cpu_count() or 1, "CPU")
        say(f"(They share this machine's {cpus}, and their workers had to start; more machines make it quicker.)")
    say(f"{duration(report.total_s)} in all; the nodes have stopped, and their files are gone")
    say()
    say("Next:")
    command = "p2premap" if shutil.which("p2premap") else os.path.relpath(sys.argv[0])
    for arguments, what in NEXT:
        say(f"  {(command + ' ' + arguments).ljust(len(command) + 30)}  {what}")


def _shape(report: Report) -> dict[str, object]:
    return {
        "right": report.right,
        "files": report.files,
        "bytes_in": report.bytes_in,
        "words": report.words,
        "different": report.different,
        "nodes": report.shares,
        "start_s": round(report.start_s, 3),
        "job_s": round(report.job_s, 3),
        "plain_s": round(report.plain_s, 3),
        "total_s": round(report.total_s, 3),
    }
