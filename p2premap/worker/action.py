"""`p2premap.Action`: what the author of an action derives from, and what the methods of an action may use."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from p2premap.errors import P2PRemapError
from p2premap.worker.places import UrlError
from p2premap.worker.urls import fetch, is_url, name_of, send

SAVED: Final = re.compile(r"p2premap:([0-9a-f]{64})/(\d+)/(.+)")
"""What `Action.save` returns: digest, size in bytes, name."""

_TAIL_CHARACTERS: Final = 2_000


class ActionError(P2PRemapError):
    """The code of an action did what an action must not do. Definite: elsewhere it would end the same."""


class CommandFailed(P2PRemapError):
    """A command ended with another exit code than 0.

    Args:
        message: one sentence.
        code: its exit code; negative: the signal that ended it.
        errors: the end of what it wrote to its standard error.
    """

    def __init__(self, message: str, code: int, errors: str) -> None:
        super().__init__(message)
        self.code, self.errors = code, errors


class Completed(NamedTuple):
    """A command that has ended.

    Args:
        code: its exit code; negative: the signal that ended it.
        output, errors: what it wrote to standard output and standard error.
    """

    code: int
    output: str
    errors: str


class Tools(NamedTuple):
    """What the runtime lends to an action.

    Args:
        local: brings a file that is an input, or that was saved, into a directory of the attempt's own.
        store: keeps a file as a part of the result, under this name.
        add: takes a further input.
    """

    local: Callable[[str], str]
    store: Callable[[str, str], str]
    add: Callable[[Any], None]


class Action:
    """Work on one input. Derive from it, and define at least `process`.

    ::

        class Lengths(p2premap.Action):
            def process(self):
                return len(self.input_path.read_text())

            def merge(self):
                return max(self.input)

    Each call has an object of its own, on some node, in a process that runs nothing else meanwhile.

    Attributes:
        input: a URL, the name of a file, or a JSON value; in `merge` the list of results.
        options: what ``--option NAME=VALUE`` said, each a JSON value.
        work_dir: a directory of this attempt's own, the current one too, removed after it.
        attempt: names this attempt: "job-stage.task.attempt".
    """

    unordered: bool = False
    """`merge` takes results in any order, a hundred at a time, and then results of its own: for very many of them."""

    input: Any
    options: dict[str, Any]
    work_dir: Path
    attempt: str

    def __init__(self, input: object, options: dict[str, Any], work_dir: Path, attempt: str, tools: Tools) -> None:
        self.input = input
        self.options = options
        self.work_dir = work_dir
        self.attempt = attempt
        self._tools = tools
        self._path: Path | None = None

    # --- what an action defines -----------------------------------------------------------------------------------

    def process(self) -> object:
        """Work on `input`; what it returns is the result: a JSON value, or None for none."""
        raise NotImplementedError

    def split(self) -> Iterable[Any]:
        """Optional: the inputs to process in place of `input`. They may be begun as soon as it returns."""
        raise NotImplementedError

    def merge(self) -> object:
        """Optional: the result of all results, which are in `input`, in the order of their inputs."""
        raise NotImplementedError

    # --- what it may use ------------------------------------------------------------------------------------------

    @property
    def input_path(self) -> Path:
        """The input as a local file of this attempt's own, fetched first where it is a URL.

        Raises:
            ActionError: the input is neither a file nor a URL, or cannot be fetched.
        """
        if self._path is None:
            if not isinstance(self.input, str):
                raise ActionError(f"The input is no file and no URL, but the value {str(self.input)[:100]!r}.")
            self._path = self.local(self.input)
        return self._path

    def local(self, name: str) -> Path:
        """What `save` returned, a URL, or the input's name, as a local file of this attempt's own.

        Raises:
            ActionError: it is none of these, or cannot be fetched.
        """
        if is_url(name):
            return self.download(name)
        return Path(self._tools.local(name))

    def download(self, url: str, path: str | os.PathLike[str] = "") -> Path:
        """Fetch a URL into a file, by default one of its own name in `work_dir`.

        Raises:
            ActionError: it cannot be fetched.
        """
        target = self.work_dir / (path or name_of(url))
        try:
            fetch(url, target)
        except UrlError as error:
            raise ActionError(str(error)) from None
        return target

    def save(self, path: str | os.PathLike[str], *, name: str = "", to: str = "") -> str:
        """Keep a file.

        Args:
            path: of the file; relative to `work_dir`.
            name: what it is to be called; by default as it is.
            to: a URL to write it to; by default it is a part of the job's output, and kept by the cluster.

        Returns:
            Text that may be a part of results and inputs: `local` makes it a file again. With `to`, that URL.

        Raises:
            ActionError: there is no such file, or it cannot be written there.
        """
        file = self.work_dir / path
        if not file.is_file():
            raise ActionError(f"There is no file {os.fspath(path)} to save.")
        if not to:
            return self._tools.store(os.fspath(file), _plain_name(name or file.name))
        try:
            send(file, to)
        except UrlError as error:
            raise ActionError(str(error)) from None
        return to

    def add(self, input: object) -> None:
        """Have a further input processed: it is seen to once this attempt has ended well.

        Raises:
            ActionError: while merging.
        """
        self._tools.add(input)

    def run_command(
        self, command: str | Sequence[str | os.PathLike[str]], *, check: bool = True, input: str = ""
    ) -> Completed:
        """Run a program in `work_dir` to its end.

        Args:
            command: program and arguments; as text it is a line for the shell.
            check: another exit code than 0 raises.
            input: its standard input.

        Raises:
            CommandFailed: with the exit code.
            ActionError: there is no such program.
        """
        shown = command if isinstance(command, str) else " ".join(map(str, command))
        try:
            done = subprocess.run(
                command,
                shell=isinstance(command, str),  # a line for the shell, when the author wrote one
                cwd=self.work_dir,
                input=input,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise ActionError(f"The command {shown!r} cannot be run: {error.strerror}.") from None
        if check and done.returncode:
            tail = done.stderr[-_TAIL_CHARACTERS:]
            ended = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
            said = f": {tail.strip()}" if tail.strip() else "."
            raise CommandFailed(f"The command {shown!r} ended with {ended}{said}", done.returncode, tail)
        return Completed(done.returncode, done.stdout, done.stderr)


def _plain_name(name: str) -> str:
    if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ActionError(f"{name!r} is no name for a file: it may have no directories.")
    return name
