"""What installed packages add to p2premap: the entry points of a group, read from their metadata.

A package says ``[project.entry-points."p2premap.modules"]`` in its ``pyproject.toml``; what installs it writes that
into ``entry_points.txt`` in its ``*.dist-info`` directory on `sys.path`. Only these files are read here:
`importlib.metadata` would find the same, but importing it takes 20 ms, which each node would pay before its first task.

Source: https://packaging.python.org/specifications/entry-points/
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

COMMANDS: Final = "p2premap.commands"
"""Commands that live elsewhere, such as the simulator's."""

MODULES: Final = "p2premap.modules"
"""Kinds of jobs: name -> a class that satisfies `p2premap.tasks.director.Director`."""

_METADATA: Final = (".dist-info", ".egg-info")


class Plugin(NamedTuple):
    """Something that a package adds.

    Args:
        name: in its group.
        target: "package.module:attribute".
    """

    name: str
    target: str

    def load(self) -> object:
        """What it stands for, imported now.

        Raises:
            Exception: whatever its package raises when it is imported; AttributeError: it lacks the attribute.
        """
        return load(self.target)


def load(target: str) -> object:
    """What "package.module:attribute" names, imported now.

    Raises:
        Exception: as `Plugin.load`.
    """
    module, _, attributes = target.partition(":")
    found: object = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found


def find(group: str) -> dict[str, Plugin]:
    """The plug-ins of a group by name, sorted; of two with one name the one that comes first on `sys.path`."""
    found: dict[str, Plugin] = {}
    for file in _files():
        for plugin in _read(file, group):
            found.setdefault(plugin.name, plugin)
    return dict(sorted(found.items()))


def _files() -> Iterator[str]:
    for directory in dict.fromkeys(sys.path):
        try:
            with os.scandir(directory or ".") as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(_METADATA))
        except OSError:  # sys.path may name what is not there, and archives
            continue
        yield from (os.path.join(directory, name, "entry_points.txt") for name in names)


def _read(file: str, group: str) -> Iterator[Plugin]:
    try:
        with open(file, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError):  # most packages have none
        return
    inside = False
    for line in map(str.strip, lines):
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and not line.startswith(("#", ";")):
            name, equals, target = line.partition("=")
            if equals:
                yield Plugin(name.strip(), target.partition("[")[0].strip())
