"""The output of remap applications: each part holds the files that the writers of its partitions left."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from p2premap.cli.output import StandardOutput, check_overwrite
from p2premap.client.directories import PartsDirectory
from p2premap.compat.remap import unpack
from p2premap.errors import ConfigError
from p2premap.tasks.job import Part


class FilesDirectory(PartsDirectory):
    """Puts the files into the directory under their own names, which nobody knows before.

    Raises:
        ConfigError: see `PartsDirectory`; or there is anything in it.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        if not overwrite and self.path.is_dir() and (found := sorted(self.path.glob("[!.]*"))):
            said = f"{path} is not empty ({found[0].name}), and the application names its files itself"
            raise ConfigError(f"{said}; name another directory, or say --overwrite to replace what it names.")

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
