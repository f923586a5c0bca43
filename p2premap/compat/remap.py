"""remap's interface over our jobs: readers, partitioners and writers, and what runs an application with them.

A remap application is a module with functions that make these, and `map` and `reduce`::

    create_mapper_reader(filename)                       -> reader: read() yields (key, value)
    create_mapper_partitioner(directory, partition, id)  -> partitioner, with its combiner and customkey
    create_reducer_reader(filename)                      not needed here: what travels between the nodes is our own
    create_reducer_writer(directory, partition)          -> writer: store(key, value), close()
    map(key, value)                                      -> yields (partition, key, value)
    reduce(key, values)                                  -> yields (key, value)

It becomes a map/reduce job over pairs of (partition, key), in the order of the partitioner's `customkey`. The writer of
each partition works in a directory of its own on some node; what it leaves there goes into the output directory under
the same names, such as ``reduce_a2e``.

A vertex application has functions of vertices instead, and becomes a vertex job of two functions
(`p2premap.worker.vertex.functions`); what it makes of partitions is its own::

    create_vertex_reader(filename)                       -> TextFileReader(filename, yieldkv=False)
    create_vertex_partitioner(directory, partition, id)  not needed here
    prepare(line)                                        -> (id, vertex); (None, None): no vertex
    compute(forward, superstep, vertex, messages)        -> (vertex, halt)
    compute(forward, subscribe, unsubscribe, superstep, vertex, messages)
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from types import ModuleType
from typing import IO, Any, Final

from p2premap.errors import P2PRemapError

Key = Any
Value = Any

FRAME: Final = b"p2premap-remap "
"""Begins the line before each file in an output part; then its name and its size in bytes as JSON."""


class RemapError(P2PRemapError):
    """The application does what a remap application does not do. Definite."""


# --- what applications use ----------------------------------------------------------------------------------------


class BaseReader:
    """Reads one file. Derive from it, and define `read`."""

    def __init__(self, filename: str) -> None:
        self.filename = filename
        self.filesize = os.stat(filename).st_size
        self.complete = False

    def read(self) -> Iterator[tuple[Key, Value]]:
        """The records."""
        raise NotImplementedError

    def isComplete(self) -> bool:
        """Whether it has read everything."""
        return self.complete

    def close(self) -> None:
        """Let go of the file."""


class TextFileReader(BaseReader):
    """Lines, each with its end; the key is the file's name.

    Args:
        yieldkv: False: only the lines.
    """

    def __init__(self, filename: str, yieldkv: bool = True) -> None:
        super().__init__(filename)
        self.yieldkv = yieldkv

    def read(self) -> Iterator[Any]:
        """The lines."""
        with open(self.filename, encoding="utf-8") as file:
            for line in file:
                yield (self.filename, line) if self.yieldkv else line
        self.complete = True


class BasePartitioner:
    """What a mapper's pairs for one partition go through.

    Args:
        combiner: (key, values) -> value: one for many of a key, before they travel.
        customkey: what keys are ordered by.
    """

    def __init__(
        self,
        outputdir: str,
        partition: str,
        mapperid: object,
        combiner: Callable[..., Value] | None = None,
        customkey: Callable[[Key], Any] | None = None,
    ) -> None:
        self.outputdir, self.partition, self.mapperid = outputdir, partition, mapperid
        self.combiner, self.customkey = combiner, customkey


class TextPartitioner(BasePartitioner):
    """The same; what it would write in the original travels between the nodes in a form of our own."""


class TextPartFileReader(BaseReader):
    """Reads what reducers would read in the original; here nothing needs it."""


class BaseReduceWriter:
    """Writes one partition's results into a directory. Derive from it, and define `store` and `close`."""

    def __init__(self, outputdir: str, partition: str) -> None:
        self.outputdir, self.partition = outputdir, partition

    def store(self, key: Key, value: Value) -> None:
        """Write one pair."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is left."""


class TextReduceWriter(BaseReduceWriter):
    """Lines of key, comma, value in a file ``reduce_PARTITION``."""

    def __init__(self, outputdir: str, partition: str) -> None:
        super().__init__(outputdir, partition)
        self.filename = os.path.join(outputdir, f"reduce_{partition}")
        self._file = open(self.filename, "w", encoding="utf-8")  # noqa: SIM115  (until `close`)

    def store(self, key: Key, value: Value) -> None:
        """Write one line."""
        self._file.write(f"{key},{value}\n")

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


# --- what runs an application on a node ---------------------------------------------------------------------------


def install() -> None:
    """Have ``import remap`` mean this module in this process."""
    sys.modules["remap"] = sys.modules[__name__]


class Application:
    """A remap application as the functions of a map/reduce job file.

    Args:
        module: the application.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._partitioner: BasePartitioner | None = None

    def _asked(self, name: str) -> Callable[..., Any]:
        found = getattr(self._module, name, None)
        if not callable(found):
            raise RemapError(f"The remap application has no function {name}.")
        return found  # type: ignore[no-any-return]

    def partitioner(self) -> BasePartitioner:
        """The application's, for its settings."""
        if self._partitioner is None:
            made = self._asked("create_mapper_partitioner")("", "", 0)
            if not isinstance(made, BasePartitioner):
                raise RemapError("create_mapper_partitioner must return a remap partitioner.")
            self._partitioner = made
        return self._partitioner

    def map_line(self, key: tuple[str, int], line: str) -> Iterator[tuple[tuple[str, Key], Value]]:
        """`map` for a line, which was read by the job's own reader."""
        return self._mapped(key[0], line + "\n")

    def map_record(self, _: object, record: tuple[Key, Value]) -> Iterator[tuple[tuple[str, Key], Value]]:
        """`map` for what the application's reader gave."""
        return self._mapped(*record)

    def _mapped(self, key: Key, value: Value) -> Iterator[tuple[tuple[str, Key], Value]]:
        for partition, name, one in self._asked("map")(key, value):
            yield (str(partition), name), one

    def read(self, stream: IO[bytes]) -> Iterator[tuple[Key, Value]]:
        """The records of a file, by the application's reader, which wants a file of its own."""
        with tempfile.TemporaryDirectory(dir=os.getcwd()) as directory:
            name = os.path.join(directory, os.path.basename(getattr(stream, "name", "") or "input"))
            with open(name, "wb") as copy:
                shutil.copyfileobj(stream, copy)
            reader = self._asked("create_mapper_reader")(name)
            try:
                yield from reader.read()
            finally:
                reader.close()

    def combine(self, key: tuple[str, Key], values: Iterable[Value]) -> Value:
        """The partitioner's combiner."""
        combiner = self.partitioner().combiner
        assert combiner is not None
        return combiner(key[1], list(values))

    def combines(self) -> bool:
        """Whether there is a combiner."""
        return self.partitioner().combiner is not None

    def partition(self, key: tuple[str, Key], n: int) -> int:
        """All of a partition goes to one reducer."""
        return zlib.crc32(key[0].encode()) % n

    def sort_key(self, key: tuple[str, Key]) -> tuple[str, Any]:
        """By partition, then as the partitioner orders keys."""
        custom = self.partitioner().customkey
        return key[0], key[1] if custom is None else custom(key[1])

    def reduce(self, key: tuple[str, Key], values: Iterable[Value]) -> Iterator[tuple[tuple[str, Key], Value]]:
        """`reduce`."""
        for name, value in self._asked("reduce")(key[1], list(values)):
            yield (key[0], name), value

    def write(self, pairs: Iterable[tuple[tuple[str, Key], Value]], stream: IO[bytes]) -> None:
        """Each partition by its own writer; what these leave goes into the part, a line that names it before each."""
        for partition, group in groupby(pairs, key=lambda pair: pair[0][0]):
            with tempfile.TemporaryDirectory(dir=os.getcwd()) as directory:
                writer = self._asked("create_reducer_writer")(directory, partition)
                for (_, key), value in group:
                    writer.store(key, value)
                writer.close()
                for name in sorted(os.listdir(directory)):
                    path = os.path.join(directory, name)
                    head = json.dumps({"name": name, "size": os.path.getsize(path)}).encode()
                    stream.write(FRAME + head + b"\n")
                    with open(path, "rb") as file:
                        shutil.copyfileobj(file, stream)


def unpack(part: bytes) -> Iterator[tuple[str, bytes]]:
    """The files in an output part: name and content.

    Raises:
        RemapError: it is no such part.
    """
    at = 0
    while at < len(part):
        end = part.find(b"\n", at)
        if not part.startswith(FRAME, at) or end < 0:
            raise RemapError("A part of the output was not written by a remap application.")
        head = json.loads(part[at + len(FRAME) : end])
        at = end + 1 + head["size"]
        yield os.path.basename(head["name"]), part[end + 1 : at]
