"""Tiny wheels, made by tests: what an index has, without one."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def wheel(
    directory: Path,
    project: str,
    version: str = "1.0",
    *,
    source: str | None = None,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    programs: Mapping[str, str] | None = None,
) -> Path:
    """Make one, which installs a module of the project's name.

    Args:
        source: of the module; by default it knows its version.
        requires: other projects.
        programs: console scripts: name -> "module:function".
    """
    directory.mkdir(parents=True, exist_ok=True)
    name = project.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    metadata = [
        f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    files = {
        f"{name}.py": source if source is not None else f"VERSION = {version!r}\n",
        f"{info}/METADATA": "\n".join((*metadata, "")),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if programs:
        lines = [f"{program} = {target}" for program, target in programs.items()]
        files[f"{info}/entry_points.txt"] = "\n".join(("[console_scripts]", *lines, ""))
    record = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join((*record, f"{info}/RECORD,,", ""))
    made = directory / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return made


def requirements(file: Path, wheels: Path, *lines: str) -> str:
    """Write a requirements file that knows these wheels and no index; its path."""
    file.write_text("\n".join(("--no-index", f"--find-links {wheels}", *lines, "")))
    return str(file)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
