"""The output of remap applications: each part holds the files that the writers of its partitions left."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from p2premap.cli.output import PartsDirectory, StandardOutput, check_overwrite
from p2premap.compat.remap import unpack
from p2premap.tasks.job import Part


class FilesDirectory(PartsDirectory):
    """Puts the files into the directory under their own names."""

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """Take one whole part."""
        data = b"".join(pieces)
        for name, content in unpack(data):
            super().write(msgspec.structs.replace(part, name=name), iter([content]))
        return len(data)


class FilesToOutput(StandardOutput):
    """Writes them one after the other."""

    def write(self, part: Part, pieces: Iterator[bytes]) -> int:
        """Take one whole part."""
        return super().write(part, (content for _, content in unpack(b"".join(pieces))))


def output_of_application(
    path: str | None, *, as_json: bool, overwrite: bool = False
) -> FilesDirectory | FilesToOutput | None:
    """As `p2premap.cli.output.output_to`."""
    check_overwrite(path, overwrite)
    if path is not None:
        return FilesDirectory(path, overwrite=overwrite)
    return None if as_json else FilesToOutput()
