"""What a job needs to be installed where it runs: a lock, which is a list of exactly these wheels. Pure.

The client resolves a requirements file once to a lock; nodes make one virtual environment for each lock, whose name
is the lock's digest, and run the job's worker processes in it (`p2premap.node.environments`). A wheel is a blob: who
has it hands it on, and it is what was locked or nothing.

Which wheels a node can use is told by their names (PEP 425, PEP 427); the installer there has the last word.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from p2premap.errors import JobRejected
from p2premap.tasks.placement import normal
from p2premap.wire import Count, DigestField, Record, Short, Text

LOCK_VERSION: Final = 1
WHEELS_MAX: Final = 2_000

_WHEEL: Final = r"\A[A-Za-z0-9_.]+-[A-Za-z0-9_.!+]+(-\d[A-Za-z0-9_.]*)?(-[A-Za-z0-9_.]+){3}\.whl\Z"
_FOR_MINOR: Final = re.compile(r"(?:py|cp)3(\d*)")
_SYSTEMS: Final = {"linux": ("linux", "manylinux", "musllinux"), "darwin": ("macosx",)}


class Wheel(Record, frozen=True, kw_only=True):
    """One file to be installed.

    Args:
        name: of the file, which tells project, version and where it can be used.
        digest: BLAKE3, as that of a blob.
        size: in bytes.
        sha256: as package indexes name it.
    """

    name: Annotated[str, msgspec.Meta(pattern=_WHEEL, max_length=255)]
    digest: DigestField
    size: Count
    sha256: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]

    @property
    def project(self) -> str:
        """The normal name of what it installs."""
        return normal(self.name.partition("-")[0])

    @property
    def release(self) -> str:
        """Which version of it."""
        return self.name.split("-")[1]

    def tags(self) -> tuple[list[str], list[str], list[str]]:
        """For which Pythons, ABIs and platforms it is."""
        python, abi, platform = self.name.removesuffix(".whl").rsplit("-", 3)[1:]
        return python.split("."), abi.split("."), platform.split(".")


class Lock(Record, frozen=True, kw_only=True):
    """All wheels of an environment.

    Args:
        python: for which Python it was resolved, such as "3.11".
        options: of an installer that has to look for them in an index: lines of a requirements file.
    """

    version: Count
    python: Short
    wheels: Annotated[tuple[Wheel, ...], msgspec.Meta(max_length=WHEELS_MAX)]
    options: tuple[Text, ...] = ()

    def encode(self) -> bytes:
        """The blob."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Lock:
        """From the blob.

        Raises:
            JobRejected: it is no lock that this version can read.
        """
        try:
            lock = msgspec.msgpack.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise JobRejected(f"The lock of the job's environment cannot be read: {error}.") from None
        if lock.version != LOCK_VERSION:
            raise JobRejected(f"The lock of the job's environment has version {lock.version}, not {LOCK_VERSION}.")
        return lock

    def packages(self) -> dict[str, str]:
        """What is installed in the environment, as nodes publish what they have."""
        return {wheel.project: wheel.release for wheel in self.wheels}

    def minor(self) -> str:
        """The one Python that it can be used with, such as "3.11"; "" where several will do."""
        return self.python if any(_is_tied(wheel) for wheel in self.wheels) else ""

    def unusable(self, *, minor: int, system: str, machine: str) -> str:
        """Why a node cannot make this environment, as half a sentence; "" where nothing speaks against it.

        Args:
            minor: of the node's Python 3.
            system: such as "Linux".
            machine: such as "x86_64".
        """
        for wheel in self.wheels:
            if not _fits(wheel, minor, system.lower(), machine.lower()):
                what = f"{wheel.project} {wheel.release}"
                return f"the wheel of {what} in the lock is not for Python 3.{minor} on {system} {machine}"
        return ""


def _is_tied(wheel: Wheel) -> bool:
    """Whether it is for one minor version of Python."""
    pythons, abis, _ = wheel.tags()
    return not any(
        python in ("py3", "py2") or (python.startswith("py3") and "none" in abis) or "abi3" in abis
        for python in pythons
    )


def _fits(wheel: Wheel, minor: int, system: str, machine: str) -> bool:
    pythons, abis, platforms = wheel.tags()
    return any(_fits_python(python, abis, minor) for python in pythons) and any(
        platform == "any" or _fits_platform(platform, system, machine) for platform in platforms
    )


def _fits_python(python: str, abis: list[str], minor: int) -> bool:
    tag = _FOR_MINOR.fullmatch(python)
    if tag is None:
        return False
    least = int(tag[1] or 0)
    if python.startswith("py") or "abi3" in abis:
        return least <= minor
    return least == minor


def _fits_platform(platform: str, system: str, machine: str) -> bool:
    if not platform.startswith(_SYSTEMS.get(system, (system,))):
        return False
    return platform.endswith((machine, "universal2")) or (system == "darwin" and platform.endswith("fat64"))
