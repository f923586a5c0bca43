"""How pip is called, and what it says: by nodes that make environments, and by clients that resolve requirements.

pip and no other installer: every environment that `venv` makes has it, and users have told it about their indexes,
proxies and certificates. Only wheels are used: whatever has to be built runs code of its own when it is installed,
and makes something else on each machine. No trio here.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Final

from p2premap.tasks.environment import Wheel

NO_PIP: Final = "pip is not installed beside p2premap there: `python -m ensurepip`, or `python -m pip install pip`"
NOT_INSTALLED: Final = "p2premap is not installed by pip, but run from its source; `pip install` it"
_ERROR: Final = "ERROR: "
_CONFLICT: Final = "The conflict is caused by:"
_NO_WHEEL: Final = " (only wheels are used; nothing is built from source)"
_SENTENCE_MAX: Final = 600


def is_installed() -> bool:
    """Whether this Python has pip."""
    return importlib.util.find_spec("pip") is not None


def download(requirements: str, directory: str, *, locked: bool = False, constraints: str = "") -> list[str]:
    """The command that puts wheels into a directory.

    Args:
        requirements: a requirements file.
        locked: it is a lock: nothing but what it names, by its hashes.
        constraints: a file of versions that may be chosen, if anything of that name is.
    """
    how = ["--no-deps", "--require-hashes"] if locked else []
    bounds = ["--constraint", constraints] if constraints else []
    plain = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-color"]
    return [
        *(sys.executable, "-P", "-m", "pip", "download", *plain, "--only-binary", ":all:"),
        *("--dest", directory, *how, *bounds, "--requirement", requirements),
    ]


def pinned(wheels: Iterable[Wheel], options: Iterable[str]) -> str:
    """A requirements file that names exactly these wheels."""
    lines = [f"{wheel.project}=={wheel.release} --hash=sha256:{wheel.sha256.hex()}" for wheel in wheels]
    return "\n".join((*options, *lines, ""))


def without_configuration(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables with which pip does what it is told, whatever the user has configured."""
    kept = {name: value for name, value in environment.items() if not name.startswith("PIP_")}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def reason(output: str) -> str:
    """What went wrong, as one sentence, from all that was printed."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    if not errors:
        return _short(lines[-1].strip() if lines else "pip ended without a word")
    first = errors[0].strip()
    if _CONFLICT in lines:
        rest = lines[lines.index(_CONFLICT) + 1 :]
        causes = [line.strip() for line in rest if line.startswith("    ")]
        return _short(f"{first.removesuffix('.')}: {', '.join(causes)}" if causes else first)
    if first.startswith("Could not find a version"):
        return _short(first) + _NO_WHEEL
    return _short(first)


def _short(text: str) -> str:
    return text if len(text) <= _SENTENCE_MAX else text[: _SENTENCE_MAX - 3] + "..."
