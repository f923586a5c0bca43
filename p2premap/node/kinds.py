"""The kinds of jobs: those that are installed, and what of a job this node does not run.

A kind has three halves, all found by its name in the entry point group ``p2premap.modules``: the director, for whoever
leads a job (`p2premap.tasks.director.Director`), and what the director names: the planner, for whoever hands one in
(`p2premap.client.planning`), and the runtime, for the worker processes (`p2premap.worker.runtime.Runtime`). The
built-in kinds are found in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from p2premap import plugins

if TYPE_CHECKING:
    from p2premap.node.jobs import MakeDirector

log = logging.getLogger(__name__)

OWN = "p2premap"


class Kinds(Mapping[str, "MakeDirector"]):
    """The installed kinds of jobs, each looked up and imported when first asked for.

    A module that cannot be imported is as good as none, with a line in the log.
    """

    def __init__(self) -> None:
        self._installed: dict[str, plugins.Plugin] | None = None
        self._loaded: dict[str, MakeDirector | None] = {}

    def __getitem__(self, kind: str) -> MakeDirector:
        if kind not in self._loaded:
            self._loaded[kind] = self._load(kind)
        found = self._loaded[kind]
        if found is None:
            raise KeyError(kind)
        return found

    def _load(self, kind: str) -> MakeDirector | None:
        plugin = self._all().get(kind)
        made = None if plugin is None else _load(plugin)
        if plugin is None or made is None:
            return None
        director = cast("MakeDirector", made)
        if plugin.target.partition(".")[0] == OWN:
            return director
        from p2premap.node.foreign import make_director  # rarely needed

        return partial(make_director, kind, director)

    def _all(self) -> dict[str, plugins.Plugin]:
        if self._installed is None:
            self._installed = plugins.find(plugins.MODULES)
        return self._installed

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def planner_of(kind: str) -> str | None:
    """Where the planner of this kind is, "package.module:function"; "": it has none; None: there is no such kind."""
    plugin = plugins.find(plugins.MODULES).get(kind)
    made = None if plugin is None else _load(plugin)
    return None if made is None else str(getattr(made, "planner", ""))


def _load(plugin: plugins.Plugin) -> object:
    """The director's class; None, with a line in the log, where it cannot be imported."""
    try:
        return plugin.load()
    except Exception:
        # a package of somebody else
        log.exception("the module for jobs of kind %r cannot be loaded", plugin.name)
        return None


class Unfit:
    """Why this node does not run an attempt, if so.

    Args:
        actions: names of actions that its owner refuses.
    """

    def __init__(self, actions: tuple[str, ...] = ()) -> None:
        self._actions = frozenset(actions)
        self._lacking: dict[str, bool] = {}

    def refuse(self, actions: tuple[str, ...]) -> None:
        """The owner refuses these now."""
        self._actions = frozenset(actions)

    def __call__(self, runtime: str, function: str) -> str:
        """Half a sentence; "" where it does.

        Args:
            runtime: of the job's kind, "package.module:Class".
            function: of the stage; an action's begins with its name (`p2premap.tasks.action`).
        """
        package = runtime.partition(":")[0].partition(".")[0]
        if package != OWN and self._lacks(package):
            return f"the package {package}, which runs jobs of this kind, is not installed there"
        if self._actions and (name := function.rpartition("/")[0]) in self._actions:
            return f"its owner refuses the action {name}"
        return ""

    def _lacks(self, package: str) -> bool:
        if package not in self._lacking:
            try:
                self._lacking[package] = find_spec(package) is None  # imports nothing
            except (ImportError, ValueError):
                self._lacking[package] = True
        return self._lacking[package]
