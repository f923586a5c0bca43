"""The kinds of jobs that are installed: plug-ins by entry point, the built-in ones among them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from p2premap.node.jobs import MakeDirector

log = logging.getLogger(__name__)


class Kinds(Mapping[str, MakeDirector]):
    """The installed kinds of jobs (entry point group ``p2premap.modules``), each looked up when first asked for.

    Reading what is installed takes tens of milliseconds, which a node that leads no job need not pay. A plug-in that
    cannot be imported is as good as none, with a line in the log.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, MakeDirector | None] = {}

    def __getitem__(self, kind: str) -> MakeDirector:
        if kind not in self._loaded:
            self._loaded[kind] = self._load(kind)
        found = self._loaded[kind]
        if found is None:
            raise KeyError(kind)
        return found

    @staticmethod
    def _load(kind: str) -> MakeDirector | None:
        from importlib.metadata import entry_points

        for point in entry_points(group="p2premap.modules", name=kind):
            try:
                director: MakeDirector = point.load()
            except Exception:
                log.exception("the module for jobs of kind %r cannot be loaded", kind)
            else:
                return director
        return None

    def __iter__(self) -> Iterator[str]:
        from importlib.metadata import entry_points

        return iter(sorted(point.name for point in entry_points(group="p2premap.modules")))

    def __len__(self) -> int:
        return sum(1 for _ in self)
