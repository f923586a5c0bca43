"""The lines of `p2premap repl` that are no Python, and Python with `await` at its top level.

::

    (a blank line)               statistics of each node
    texts/*.txt                  the word count of these files, if they are there and it is no name of Python
    texts/*.txt @ lambda t: ...  what the function gives for the text of each file, on the nodes
    @ lambda _: ...              what the function gives on each node

The habits are mincemeat's. What such a line comes to is left in `_`, as with Python.
"""

from __future__ import annotations

import ast
import builtins
import code
import glob
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from itertools import repeat
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

import click
import trio

from p2premap.cli.show import clean, count, say, table
from p2premap.cli.words import count_words
from p2premap.client.amounts import size
from p2premap.client.everywhere import HostStatistics, evaluate, host_statistics, on_each_node
from p2premap.client.pickles import RemoteTraceback
from p2premap.errors import P2PRemapError

if TYPE_CHECKING:
    from p2premap.client.cluster import Cluster

SHOWN_MAX: Final = 20
TEXT_BYTES_MAX: Final = 64 << 20


class Habits:
    """Answers lines that are no Python.

    Args:
        cluster: that is asked.
        namespace: of the console: what is a name there is Python.
        show: prints an answer.
    """

    def __init__(self, cluster: Cluster, namespace: dict[str, Any], show: Callable[[object], None]) -> None:
        self._cluster, self._namespace, self._show = cluster, namespace, show

    def knows(self, line: str) -> bool:
        """Whether the line is such a one; an editor may ask at every key."""
        line = line.strip()
        files, at, function = _parts(line)
        if at:
            return _is_lambda(function) and (not files or bool(_matching(files)))
        return not line or (not self._is_python(line) and bool(_matching(line)))

    def answer(self, line: str) -> None:
        """Do what a line says that is known.

        Raises:
            Exception: what comes of it.
        """
        files, at, function = _parts(line.strip())
        if at and files:
            names = _matching(files)
            results = self._cluster.map(evaluate, repeat(function, len(names)), map(_text, names))
            found: object = dict(zip(names, results, strict=True))
        elif at:
            found = on_each_node(self._cluster, evaluate, repeat((function, "")))
        elif files:
            found = count_words(self._cluster.connection, _matching(files))
        else:
            found = on_each_node(self._cluster, host_statistics)
        # Python's console keeps its last answer there, which a variable of this name would hide from then on
        kept = self._namespace if "_" in self._namespace else vars(builtins)
        kept["_"] = found
        self._show(found)

    def _is_python(self, line: str) -> bool:
        """Whether it can be run: a pattern of files can be Python's syntax, but its names mean nothing."""
        try:
            tree = ast.parse(line)
        except (SyntaxError, ValueError):
            return False
        first = next((node for node in ast.walk(tree) if isinstance(node, ast.Name)), None)
        stored = first is not None and isinstance(first.ctx, ast.Store)
        return first is None or stored or first.id in self._namespace or hasattr(builtins, first.id)


class Awaits:
    """Runs coroutines of trio, one after the other, in one loop of its own: what they leave open stays open."""

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._ready, self._ending = threading.Event(), trio.Event()

    def run(self, coroutine: Coroutine[Any, Any, object]) -> object:
        """To its end, while this thread waits. Ctrl-C cancels it.

        Raises:
            Exception: what it raises.
        """
        if self._token is None:
            threading.Thread(target=trio.run, args=(self._serve,), name="p2premap-repl", daemon=True).start()
            self._ready.wait()
        assert self._token is not None
        scope = trio.CancelScope()

        async def within() -> object:
            found = None
            with scope:
                found = await coroutine
            return found

        try:
            return trio.from_thread.run(within, trio_token=self._token)
        except KeyboardInterrupt:
            self._token.run_sync_soon(scope.cancel)
            raise

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ready.set()
        await self._ending.wait()

    def close(self) -> None:
        """End the loop."""
        if self._token is not None:
            self._token.run_sync_soon(self._ending.set)


class Console(code.InteractiveConsole):
    """Python's own console with these habits, for where IPython is not installed."""

    def __init__(self, namespace: dict[str, Any], habits: Habits) -> None:
        super().__init__(namespace, filename="<p2premap>")
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._habits = habits
        self._awaits = Awaits()

    def push(self, line: str, *args: Any, **more: Any) -> bool:  # noqa: ANN401  (differs between Pythons)
        """Take a line."""
        try:
            if not self.buffer and self._habits.knows(line):
                self._habits.answer(line)
                return False
        except P2PRemapError as error:
            say(clean(str(error), lines=True))
            return False
        except Exception as error:
            if isinstance(error.__cause__, RemoteTraceback):
                say(clean(str(error.__cause__).strip(), lines=True))  # how the answer came here is nobody's question
            else:
                self.showtraceback()
            return False
        return super().push(line, *args, **more)

    def runcode(self, code: CodeType) -> None:
        """Run a statement; one that awaits is a coroutine."""
        if not code.co_flags & inspect.CO_COROUTINE:
            super().runcode(code)
            return
        try:
            self._awaits.run(eval(code, self.locals))  # noqa: S307  (a console)
        except SystemExit:
            raise
        except BaseException:
            self.showtraceback()

    def close(self) -> None:
        """Let go of what awaits."""
        self._awaits.close()


def shown(found: object) -> str:
    """An answer for people."""
    if isinstance(found, Counter):
        rows = [(str(number), word) for word, number in sorted(found.items(), key=lambda p: (-p[1], p[0]))[:SHOWN_MAX]]
        total = f"{count(found.total(), 'word')}, {len(found)} different"
        return f"{table(('COUNT', 'WORD'), rows)}\n{total}"
    if isinstance(found, dict) and found and all(isinstance(one, HostStatistics) for one in found.values()):
        head = ("NODE", "HOST", "CPUS", "LOAD", "FREE", "MEMORY", "PYTHON", "SYSTEM")
        return table(head, [_row(name, one) for name, one in sorted(found.items())], spare=("SYSTEM", "MEMORY"))
    if isinstance(found, dict):
        return "\n".join(f"{clean(str(name))}: {clean(repr(one))}" for name, one in found.items())
    return repr(found)


def shape(found: object) -> object:
    """An answer for programs."""
    if isinstance(found, dict):
        return {str(name): one._asdict() if isinstance(one, HostStatistics) else one for name, one in found.items()}
    return found


def _row(name: str, one: HostStatistics) -> Sequence[str]:
    memory = (size(one.memory_free), size(one.memory))
    return (clean(name), clean(one.host), str(one.cpus), f"{one.load:.1f}", *memory, one.python, clean(one.system))


def _parts(line: str) -> tuple[str, str, str]:
    """Pattern, "@", and function."""
    files, at, function = line.partition("@")
    return files.strip(), at, function.strip()


def _matching(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True)) if pattern else []


def _text(name: str) -> str:
    with open(name, errors="replace") as file:
        text = file.read(TEXT_BYTES_MAX + 1)
    if len(text) > TEXT_BYTES_MAX:
        raise click.UsageError(f"{name} is larger than {size(TEXT_BYTES_MAX)}; write a job file for it.")
    return text


def _is_lambda(text: str) -> bool:
    try:
        return isinstance(ast.parse(text, mode="eval").body, ast.Lambda)
    except (SyntaxError, ValueError):
        return False
