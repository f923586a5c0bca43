"""Who answers which request: the module of the desk that does, loaded when the first such request comes.

A node starts without them: to load them all would take a twentieth of its start, and few nodes ever need them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from p2premap.control import CLIENT_MESSAGES, calls, data, jobs, membership, nodes, web
from p2premap.control.answers import Trouble
from p2premap.node.desk import Handler, RequestError
from p2premap.wire import Message

MODULES: Final[dict[str, tuple[type[Message], ...]]] = {
    "desk_jobs": (jobs.AcceptFork, data.PutBlob, data.LookForBlobs, jobs.Submit, jobs.ListJobs, jobs.Cancel),
    "desk_watch": (jobs.Watch, data.ReadPart, data.FindPart),
    "desk_logs": (data.ReadLog, data.Remember),
    "desk_calls": (calls.OpenCalls, calls.Calls),
    "desk_values": (data.StartFile, data.FileGrew, data.FinishFile, data.ReadBlob),
    "desk_control": (jobs.Restart, jobs.FindHome, jobs.CleanUp, nodes.Drain, nodes.CountSole),
    "desk_why": (jobs.Why,),
    "desk_node": (
        nodes.Announce,
        nodes.ListNodes,
        nodes.GetStatus,
        membership.MakeInvite,
        membership.Join,
        membership.LeaveCluster,
        nodes.Diagnose,
        nodes.Stop,
        nodes.TryAddresses,
    ),
    "desk_rotate": (
        membership.Rotate,
        membership.PrepareSecret,
        membership.SwitchSecret,
        membership.DropSecret,
    ),
    "desk_follow": (web.Follow,),
    "desk_web": (web.OpenWeb, web.SetNode, web.RemoveJob, web.ListTasks, web.LookAtJob),
}
"""Module below `p2premap.node` -> the requests that its `HANDLERS` answers: all that a client may say, each once."""

_PLACES: Final = {request: module for module, requests in MODULES.items() for request in requests}


class Handlers(Mapping[type[Message], Handler]):
    """The handler of each request."""

    def __init__(self) -> None:
        self._loaded: dict[type[Message], Handler] = {}

    def __getitem__(self, request: type[Message]) -> Handler:
        """Who answers it.

        Raises:
            KeyError: nobody: clients do not say that.
            RequestError: what answers it cannot be loaded now, such as where no descriptor is free.
        """
        if request not in self._loaded:
            module = _PLACES[request]
            try:
                self._loaded |= import_module(f"p2premap.node.{module}").HANDLERS
            except ImportError as error:
                raise RequestError(Trouble.REFUSED, f"The node could not do it: {error}.") from None
        return self._loaded[request]

    def __iter__(self) -> Iterator[type[Message]]:
        return iter(CLIENT_MESSAGES)

    def __len__(self) -> int:
        return len(CLIENT_MESSAGES)
