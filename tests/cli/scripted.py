"""A daemon that plays a small cluster with a job in it, and the commands against it."""

from __future__ import annotations

from collections.abc import Iterable

from click.testing import CliRunner, Result

from p2premap.cli.app import cli
from p2premap.control.answers import Chunk, Done, Refused, Trouble
from p2premap.control.data import ReadLog, ReadPart
from p2premap.control.jobs import Cancel, Jobs, JobUpdate, ListJobs, Watch
from p2premap.control.membership import Invited, Join, LeaveCluster, MakeInvite
from p2premap.control.nodes import (
    Diagnose,
    Diagnosis,
    Finding,
    Foreign,
    GetStatus,
    ListNodes,
    Nodes,
    NodeView,
    Status,
    Stop,
)
from p2premap.ids import Digest, NodeId, RequestId
from p2premap.tasks.job import JobView, Part, Phase, Source, StageView
from p2premap.wire import Message
from tests.fakedaemon import NODE, Answer

JOB = bytes.fromhex("89abcdef") * 4
ME = NodeView(
    node=NODE,
    name="pi1",
    state="alive",
    pid=4242,
    boot=1,
    addresses=("192.168.1.20:7321",),
    version="0.1.0",
    python="3.11.7",
    cpus=4,
    slots=4,
    busy=1,
    load=0.25,
    memory_bytes=8_000_000_000,
    memory_free_bytes=2_500_000_000,
    me=True,
)
GONE = NodeView(node=NodeId(b"another node, 16"), name="pi2", state="dead", pid=1, boot=2)


def view(phase: Phase = Phase.DONE, **changes: object) -> JobView:
    part = Part(number=0, source=Source(digest=Digest(bytes(32)), start=0, end=6, holders=(NODE,)))
    fields: dict[str, object] = {
        "job": JOB,
        "name": "wordcount",
        "kind": "mapreduce",
        "phase": phase,
        "leader": NODE,
        "leader_name": "pi1",
        "leader_pid": 4242,
        "age_s": 2.5,
        "stages": (StageView(number=0, name="map", tasks=4, done=4 if phase is Phase.DONE else 1, running=2),),
        "parts": (part,) if phase is Phase.DONE else (),
        "nodes": (("pi1", 3), ("pi2", 1)),
        "part_count": 1 if phase is Phase.DONE else 0,
    }
    return JobView(**{**fields, **changes})  # type: ignore[arg-type]


def script(message: Message, payload: bytes) -> Iterable[Answer]:
    request = message.request
    match message:
        case ListNodes():
            return [Nodes(request=request, views=(ME, GONE))]
        case GetStatus():
            foreign = Foreign(address="192.168.1.99:7321", cluster="beef", hint="ask its owner for a token")
            return [
                Status(
                    request=request,
                    me=ME,
                    cluster="c0ffee",
                    scope="network",
                    open_name="",
                    members=1,
                    dead=1,
                    state_dir="/home/me/.local/state/p2premap",
                    foreign=(foreign,),
                    warnings=("The disk is nearly full.",),
                    counters={"pings": 7},
                )
            ]
        case ListJobs():
            return [Jobs(request=request, views=(view(Phase.RUNNING), view()), silent=("pi3",))]
        case Watch():
            return [JobUpdate(request=request, view=view(Phase.RUNNING)), JobUpdate(request=request, view=view())]
        case ReadPart():
            return [(Chunk(request=request), b"a\t1\n"), (Chunk(request=request, last=True), b"b\t2\n")]
        case ReadLog():
            return [(Chunk(request=request, last=True), b"hello from a task\n")]
        case Cancel() | Stop():
            return [Done(request=request)]
        case LeaveCluster():
            return [Done(request=request), None]
        case Join(token=token):
            return admit(request, token)
        case MakeInvite(uses=uses, valid_s=valid_s):
            return [Invited(request=request, token="p2p1-abc", uses=uses, valid_s=valid_s)]
        case Diagnose():
            good = Finding(ok=True, about="eth0", text="multicast works")
            bad = Finding(ok=False, about="firewall", text="port 7321 is closed", remedy="sudo ufw allow 7321")
            return [Diagnosis(request=request, findings=(good, bad))]
        case _:
            raise AssertionError(message)


def admit(request: RequestId, token: str) -> Iterable[Answer]:
    if token == "good":
        return [Done(request=request, text="Joined cluster beef with 3 nodes."), None]
    if token == "same":
        text = "This machine is already a member of that cluster."
        return [Done(request=request, text=text, changed=False)]
    return [Refused(request=request, trouble=Trouble.REFUSED, text="The token has expired; ask for a new one.")]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="p2premap")
