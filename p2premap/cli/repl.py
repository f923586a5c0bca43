"""A console on the cluster: `repl`."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from p2premap.cli.show import json_option, print_json, say

BANNER = (
    "`cluster` is connected: cluster.submit(fn, ...), cluster.map(fn, items); await works. "
    "A pattern such as *.txt counts words, a blank line shows each node; exit() ends."
)

HOSTS = "%hosts"
"""A blank line, where IPython would not hand one on."""
ANSWER = "_p2premap_answer"


@click.command()
@json_option
@click.pass_obj
def repl(node: str, as_json: bool) -> None:
    """Talk to the cluster in Python.

    `cluster` is connected. Beside Python: a pattern of files counts their words, PATTERN @ lambda text: ... calls a
    function for each file on the nodes, @ lambda _: ... once on each node, and a blank line shows each node's
    statistics. IPython is used where it is installed.
    """
    import p2premap
    from p2premap.cli.console import Console, Habits, shape, shown  # with trio and cloudpickle

    def show(found: object) -> None:
        print_json(shape(found), line=True) if as_json else click.echo(shown(found))

    with p2premap.connect(node, name="repl") as cluster:
        namespace: dict[str, Any] = {"__name__": "__main__", "cluster": cluster, "p2premap": p2premap}
        habits = Habits(cluster, namespace, show)
        if sys.stdin.isatty() and _with_ipython(namespace, habits):
            return
        console = Console(namespace, habits)
        _complete(namespace)
        sys.ps1, sys.ps2 = (">>> ", "... ") if sys.stdin.isatty() else ("", "")
        try:
            console.interact(banner=BANNER if sys.stdin.isatty() else "", exitmsg="")
        finally:
            console.close()


def _complete(namespace: dict[str, Any]) -> None:
    """The tabulator completes names, and the arrow keys bring back lines, where the system has readline."""
    with contextlib.suppress(ImportError):
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(namespace).complete)
        readline.parse_and_bind("tab: complete")


def _with_ipython(namespace: dict[str, Any], habits: Any) -> bool:  # noqa: ANN401  (imported when needed)
    """Whether it is installed; then it has been run to its end."""
    try:
        from IPython.terminal.embed import InteractiveShellEmbed
    except ImportError:
        return False
    shell: Any = InteractiveShellEmbed(banner1=BANNER, user_ns=namespace, loop_runner="trio")
    shell.run_line_magic("autoawait", "trio")

    def transform(lines: list[str]) -> list[str]:
        """Our lines as calls: this is asked at every key, too."""
        line = "".join(lines).strip()
        if not line or not (line == HOSTS or habits.knows(line)):
            return lines
        return [f"{ANSWER}({('' if line == HOSTS else line)!r})\n"]

    namespace[ANSWER] = habits.answer
    shell.input_transformers_cleanup.append(transform)
    say(f"{HOSTS} shows each node, where a blank line would without IPython.")
    shell()
    return True
