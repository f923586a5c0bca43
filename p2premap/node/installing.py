"""`python -m p2premap.node.installing DIRECTORY`: a virtual environment from ``DIRECTORY/wheels``, in its own process.

Worker processes run in it, so p2premap and what it depends on must be found there, and nothing else of what this
node has installed: its packages stand in a directory of links that comes last on the path, behind what the wheels
brought. (The client resolves within p2premap's own bounds, so that what comes first fits it too.) Packages that bring
kinds of jobs are linked as well.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Final

import p2premap
from p2premap.errors import P2PRemapError
from p2premap.node import pip
from p2premap.node.paths import LINKS_NAME
from p2premap.plugins import MODULES, find

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")


def main(directory: str) -> int:
    """Make it; returns an exit code, with the reason on stderr."""
    wheels = sorted(str(file) for file in Path(directory, "wheels").iterdir())
    try:
        if wheels and not pip.is_installed():
            raise P2PRemapError(pip.NO_PIP)
        venv.EnvBuilder(symlinks=True, with_pip=False).create(directory)
        link_own(Path(directory))
    except (P2PRemapError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    if not wheels:
        return 0
    python = f"{directory}/bin/python"
    # the wheels are all that there is: what one of them needs beside them was resolved elsewhere
    how = ["--no-index", "--no-deps", "--no-input", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    return subprocess.run([sys.executable, "-P", "-m", "pip", "--python", python, "install", *how, *wheels]).returncode


def link_own(directory: Path) -> None:
    """Have p2premap found in this environment.

    Raises:
        P2PRemapError: nobody knows what it depends on.
        OSError: the disk is full, or read-only.
    """
    links = directory / LINKS_NAME
    links.mkdir()
    (links / "p2premap").symlink_to(Path(p2premap.__file__).parent, target_is_directory=True)
    for target in chain(_own_kinds(), *map(_tops, _needed())):
        if not (links / target.name).exists():
            (links / target.name).symlink_to(target, target_is_directory=target.is_dir())
    (site,) = directory.glob("lib/python3*/site-packages")
    (site / "p2premap.pth").write_text(f"{links}\n")


def _tops(distribution: metadata.Distribution) -> Iterator[Path]:
    """What it has put beside other packages."""
    for top in dict.fromkeys(file.parts[0] for file in distribution.files or ()):
        if top not in ("..", "__pycache__") and not top.endswith(".pth"):
            yield Path(str(distribution.locate_file(top)))


def _own_kinds() -> Iterator[Path]:
    """Packages that bring kinds of jobs, wherever they are: those installed for editing list no files."""
    for plugin in find(MODULES).values():
        spec = find_spec(plugin.target.partition(":")[0].partition(".")[0])
        places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
        if places and places[0]:
            yield Path(places[0])


def _needed() -> Iterator[metadata.Distribution]:
    """p2premap, what brings kinds of jobs, and what they depend on, each once."""
    waiting = ["p2premap", *(found.dist.name for found in metadata.entry_points(group=MODULES) if found.dist)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if (normal := re.sub(r"[-_.]+", "-", name).lower()) in seen:
            continue
        seen.add(normal)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name == "p2premap":
                raise P2PRemapError(pip.NOT_INSTALLED) from None
            continue  # of another platform, or another Python
        yield distribution
        for line in distribution.requires or ():
            if "extra ==" not in line and (needed := _NAME.match(line)):
                waiting.append(needed[0])


if __name__ == "__main__":
    sys.exit(main(os.path.abspath(sys.argv[1])))
