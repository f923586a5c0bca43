"""Output parts of a job as a program reads them: the bytes of each, and what is in them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from p2premap.client.jobs import Connect
from p2premap.client.session import Collector
from p2premap.errors import JobError, JobLost
from p2premap.tasks.action import KIND as ACTION
from p2premap.tasks.job import SAVED_PARTS_FIRST, JobView, Part


class OutputPart:
    """One part of a job's output. Iterating gives what is in it, as of the job.

    Attributes:
        name: of the file that it is.
        size: in bytes.
        records: how many records it has; 0 where nobody counted.
    """

    def __init__(self, connect: Connect, view: JobView, part: Part) -> None:
        self._connect, self._view, self._part = connect, view, part
        self._job = view.job.hex()
        self.name, self.number = part.file_name, part.number
        self.size, self.records = part.source.size, part.records

    @property
    def set(self) -> str:
        """The output that it is a part of, where the job has several."""
        return self.name.rpartition("/")[0]

    def __repr__(self) -> str:
        records = f", {self.records} records" if self.records else ""
        return f"<{self.name} of job {self._job[:8]}: {self.size} bytes{records}>"

    def read(self) -> bytes:
        """The part as it is.

        Raises:
            JobLost: no node has it any more.
        """
        with tempfile.TemporaryDirectory(prefix="p2premap-part-") as place:
            return self._fetched(place).read_bytes()

    def __iter__(self) -> Iterator[Any]:
        with tempfile.TemporaryDirectory(prefix="p2premap-part-") as place:
            path = self._fetched(place)
            if self._view.kind == ACTION:
                if self.number >= SAVED_PARTS_FIRST:
                    raise JobError(f"{self.name} is a file that was saved: `read` has it.", job=self._job)
                with path.open() as lines:
                    yield from map(json.loads, lines)
            else:
                yield from _pairs(path, self.name, self._job)

    def _fetched(self, place: str) -> Path:
        files = PartFiles(Path(place))
        collector = Collector(self._connect, files)
        collector.take(msgspec.structs.replace(self._view, parts=(self._part,)))
        if not files.paths:
            raise JobLost(f"{self.name} can be read from no node now; try again.", job=self._job)
        return files.paths[0]


class PartFiles:
    """Keeps output parts as files of a directory; see `p2premap.client.session.Output`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.paths: list[Path] = []

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """Take one whole part."""
        path = self._directory / f"part-{part.number:05d}"
        with path.open("wb") as file:
            size = sum(file.write(piece) for piece in pieces)
        if path not in self.paths:
            self.paths.append(path)
        return size


def _pairs(path: Path, name: str, job: str) -> Iterator[tuple[Any, Any]]:
    """The pairs of a part.

    Raises:
        JobError: it holds none.
    """
    from p2premap.worker.earlier import records as groups_of  # with what reads every format
    from p2premap.worker.pairs import JobCodeError
    from p2premap.worker.runtime import Segment

    if name.endswith(".parquet"):
        raise JobError(f"{name} is a table and no pairs: write it with `save`, and read it with pyarrow.", job=job)
    segment = Segment(str(path), 0, path.stat().st_size, b"", True, name)
    try:
        for records in groups_of(segment, name):
            yield from zip(records.keys(), records.values, strict=True)
    except JobCodeError as error:
        text = f"{str(error).rstrip('.')}: the part holds no pairs that could be read; `read` has it as it is."
        raise JobError(text, job=job) from None
