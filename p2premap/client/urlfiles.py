"""URLs among what a user typed: the files that they name, and looking into these where they are to be cut."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import msgspec

from p2premap.client.cutting import Look
from p2premap.errors import JobRejected
from p2premap.tasks.job import JobOptions
from p2premap.tasks.mapreduce_plan import InputFile
from p2premap.worker import urls
from p2premap.worker.places import Found, UrlError


def files_at(url: str) -> list[InputFile]:
    """The file at a URL, or those that a pattern or a directory names.

    Raises:
        JobRejected: there is none, it cannot be read, or a package is missing here.
    """
    try:
        return [
            InputFile(path="", name=each.url, mtime_ns=0, size=each.size, identity=each.identity, ranges=each.ranges)
            for each in urls.find(url)
        ]
    except UrlError as error:
        raise JobRejected(str(error)) from None


def looking_at(file: InputFile) -> Look:
    """Looks into a file at a URL."""
    return partial(_look, Found(file.name, file.size, file.identity, file.ranges))


def _look(found: Found, size: int, offset: int) -> bytes:
    assert found.size is not None, "files of unknown size are not cut"
    try:
        return b"".join(urls.read(found, offset, min(offset + size, found.size)))
    except UrlError as error:
        raise JobRejected(str(error)) from None


def needing(options: JobOptions, used: Iterable[str]) -> JobOptions:
    """These options, for nodes that can read and write these URLs."""
    packages = dict.fromkeys(f"package {package}" for url in used if (package := urls.needs(url)))
    requires = tuple(dict.fromkeys((*options.requires, *packages)))
    return options if requires == options.requires else msgspec.structs.replace(options, requires=requires)
