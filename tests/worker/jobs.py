"""Job files for tests, run through planning, director, runtime and shuffle in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

from bench.direct import Outcome, run_direct
from p2premap.client.plan import plan_mapreduce
from p2premap.ids import JobId
from p2premap.node.blobs import BlobStore
from p2premap.tasks.job import AttemptKey, StageId
from p2premap.worker.context import AttemptContext
from p2premap.worker.jobfile import JobFile
from p2premap.worker.loading import BundleImporter
from p2premap.worker.runtime import Segment

KEY = AttemptKey(JobId(bytes(16)), StageId(0, b""), 0, 0)


@contextmanager
def forgotten() -> Iterator[None]:
    """Whatever bundle is loaded inside is taken out of this process at the end."""
    try:
        yield
    finally:
        for finder in list(sys.meta_path):
            if isinstance(finder, BundleImporter):
                finder.forget()


def run_source(directory: Path, source: str, texts: dict[str, bytes] | bytes, **options: object) -> Outcome:
    """Run a job file over these files, in this process.

    Args:
        options: of `plan_mapreduce`.
    """
    inputs = directory / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for name, data in ({"in.txt": texts} if isinstance(texts, bytes) else texts).items():
        (inputs / name).write_bytes(data)
    job = directory / "job.py"
    job.write_text(dedent(source))
    planned = {"slots": 2, **options}
    with forgotten():
        return run_direct(plan_mapreduce(str(job), [str(inputs)], **planned), directory / "work")  # type: ignore[arg-type]


def lines(outcome: Outcome) -> list[str]:
    """The lines of all parts, part after part."""
    return [line for part in outcome.parts for line in part.decode().split("\n")[:-1]]


def pairs(outcome: Outcome) -> dict[str, str]:
    """Key and value of each line; a key that occurs twice is an error."""
    found = [line.split("\t", 1) for line in lines(outcome)]
    assert len({key for key, _ in found}) == len(found)
    return dict(found)


def context(directory: Path) -> AttemptContext:
    """An attempt's context with its own store."""
    scratch = directory / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return AttemptContext(KEY, str(scratch), BlobStore(directory / "blobs"))


def settings(**fields: object) -> JobFile:
    """A job file's functions and settings, without a file."""
    given = {
        "map": lambda key, value: None,
        "map_yields": False,
        "combine": None,
        "reduce": None,
        "reduce_yields": False,
        "partition": None,
        "reader": "lines",
        "encoding": "utf-8",
        "errors": "strict",
    }
    return JobFile(**{**given, **fields})  # type: ignore[arg-type]


def whole(path: Path, *, verified: bool = True, digest: bytes = b"") -> Segment:
    """A whole file as a segment."""
    return Segment(str(path), 0, path.stat().st_size, digest, verified, path.name)
