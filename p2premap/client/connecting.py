"""`p2premap.connect()`: from a program to its `Cluster`."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from p2premap.client.cluster import MINOR, Cluster, lines_of, opened
from p2premap.client.connection import NodeSilent, local
from p2premap.client.jobs import Connect
from p2premap.client.private import PrivateCluster
from p2premap.client.reach import anywhere
from p2premap.errors import NodeUnavailable
from p2premap.node.paths import LOCK_NAME
from p2premap.tasks.job import JobOptions

BEGIN_S: Final = 30.0
"""A node that is there is waited for so long where a program begins. That its machine is overloaded is no reason to
begin a cluster of one's own: the program may even run on a slot of that node."""
_choosing: Final = threading.Lock()


def current() -> Cluster:
    """The cluster that this program connected to last, and is connected to still; connects if there is none.

    Raises:
        ClusterError, JobRejected: as `connect` does.
    """
    with _choosing:
        return next(reversed(opened)) if opened else connect()


def connect(
    node: str = "",
    *,
    name: str = "",
    copies: int = 3,
    slots: int = 0,
    requires: str | Sequence[str] = (),
    parallel: int = 0,
    with_requirements: str = "",
    told: Callable[[str], None] | None = None,
) -> Cluster:
    """Connect this program to the cluster.

    Its calls run on nodes with the same minor version of Python: functions of a script travel as bytecode.

    Args:
        node: the name of a node of this machine to prefer; "": the first that answers.
        name: of the job that this program becomes, for people; "": the script's.
        copies: how many nodes should hold its ledger.
        slots: worker processes of the private node that is started where none answers; 0: one a CPU.
        requires: what a node must have to run any of its calls, such as "gpu" or "package numpy >=2".
        parallel: calls side by side in the whole cluster, at most; 0: as many as there are slots.
        with_requirements: a requirements file; all of it is installed where calls run, for this program alone.
        told: hears sentences such as that one was started; by default they are printed to stderr.

    Raises:
        ClusterError: the node that was named does not answer, or none can be started.
        JobRejected: the cluster does not take the job, one of `requires` is no requirement, or `with_requirements`
            cannot be resolved.
    """
    say = told if told is not None else lambda text: print(text, file=sys.stderr, flush=True)
    options = JobOptions(copies=copies, requires=(*lines_of(requires), f"python {MINOR}"), parallel_max=parallel)
    title = name or _own_name()
    with contextlib.ExitStack() as stack:
        preferred: Connect = partial(anywhere, node, insist=False)
        reach = preferred
        try:
            anywhere(node, insist=bool(node), patience_s=BEGIN_S).close()
        except NodeUnavailable as error:
            if node or isinstance(error, NodeSilent):
                raise
            own = stack.enter_context(PrivateCluster(["private"], slots=slots or os.cpu_count() or 1))
            say("No p2premap node runs on this machine: a private one runs for as long as this program is connected.")
            reach = partial(local, paths=own.paths)
        options, lock = _environment(reach, with_requirements, options, say)
        cluster = Cluster(reach, name=title, options=options, lock=lock, say=say)
        private = stack.pop_all()
        if reach is not preferred:
            cluster.own(private)
        return cluster


def _own_name() -> str:
    """What this program is called in lists of jobs."""
    main = sys.modules["__main__"]
    if getattr(main, "__package__", "") == "p2premap.worker":
        return "calls within calls"
    return os.path.basename(getattr(main, "__file__", None) or "interactive")


def _environment(
    reach: Connect, file: str, options: JobOptions, say: Callable[[str], None]
) -> tuple[JobOptions, bytes]:
    """What is to be installed for the calls, put to a node; for those that a call makes, what it has itself."""
    if not file and not os.path.exists(own := os.path.join(sys.prefix, LOCK_NAME)):
        return options, b""
    from p2premap.client import environment  # few programs ask for one

    if file:
        with reach() as connection:
            made = environment.prepare(connection, file, told=say)
    else:
        made = environment.read(own)
    return made.of(options), made.blob
