"""The desk of a real node: what it refuses to whom, and that a visitor's trouble is the visitor's alone."""

from __future__ import annotations

import socket

import pytest

from p2premap.client.connection import Connection, RequestRefused, local
from p2premap.client.private import PrivateCluster
from p2premap.control.answers import Done, Trouble
from p2premap.control.data import PutBlob, ReadPart
from p2premap.control.jobs import Cancel, Submit, Watch
from p2premap.control.membership import Join, LeaveCluster, MakeInvite
from p2premap.control.nodes import GetStatus, Status, Stop
from p2premap.ids import Address, Digest, JobId
from p2premap.node import remote, secret
from p2premap.tasks.job import BlobRef, JobSpec
from p2premap.wire import Message
from tests.cluster import eventually


def from_another_machine(cluster: PrivateCluster) -> Connection:
    """A client that holds the secret and comes over TLS."""
    known = secret.load(cluster.paths.config)
    assert known is not None
    with local(paths=cluster.paths) as line:
        address = line.ask(lambda n: GetStatus(request=n), Status).me.addresses[0]
    host, _, port = address.rpartition(":")
    stream, _ = remote.connect_member(known, Address(host, int(port)), name="laptop", version="test", timeout_s=60.0)
    return Connection(stream, address)


def serves_on(line: Connection) -> None:
    """All is as before; a member that has not run for seconds is in doubt for a moment."""
    eventually(lambda: line.ask(lambda n: GetStatus(request=n), Status).members == 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: Stop(request=n),
        lambda n: LeaveCluster(request=n),
        lambda n: Join(request=n, token="p2pm"),
        lambda n: MakeInvite(request=n),
    ],
)
def test_what_a_machine_belongs_to_is_decided_on_that_machine(three_nodes: PrivateCluster, make: object) -> None:
    with from_another_machine(three_nodes) as line:
        with pytest.raises(RequestRefused, match="machine"):
            line.ask(make, Done)  # type: ignore[arg-type]
        serves_on(line)


def request_that_is_wrong(number: int) -> list[Message]:
    spec = JobSpec(
        submission_key=b"k",
        kind="mapreduce",
        name="x",
        code=BlobRef(digest=Digest(b"c" * 32), size=1),
        plan=BlobRef(digest=Digest(b"p" * 32), size=1),
    )
    return [
        Watch(request=number, job=b"\x01"),
        Watch(request=number, job=b"\xfe" * 16),
        Cancel(request=number, job=b"\xfe" * 16),
        ReadPart(request=number, job=JobId(b"\xfe" * 16), part=0),
        Submit(request=number, spec=spec),
    ]


@pytest.mark.parametrize("place", range(5))
def test_a_wrong_request_has_a_sentence_for_an_answer(three_nodes: PrivateCluster, place: int) -> None:
    with local(paths=three_nodes.paths) as line:

        def refused() -> RequestRefused | None:
            with pytest.raises(RequestRefused) as refusal:
                line.ask(lambda n: request_that_is_wrong(n)[place], Done)
            # another node that has no time to answer may know of it: then nobody says that there is none
            return refusal.value if refusal.value.trouble is not Trouble.UNREACHABLE else None

        refusal = eventually(refused)
        assert refusal.trouble in (Trouble.USAGE, Trouble.NOT_FOUND)
        assert str(refusal).endswith(".") or "`" in str(refusal)
        serves_on(line)


def test_a_blob_that_is_not_what_was_announced_is_not_kept(three_nodes: PrivateCluster) -> None:
    with local(paths=three_nodes.paths) as line:
        with pytest.raises(RequestRefused, match="not what was announced"):
            line.ask(lambda n: PutBlob(request=n, digest=Digest(b"d" * 32)), Done, payload=b"something else")
        serves_on(line)


def test_a_visitor_that_sends_garbage_is_dropped_alone(three_nodes: PrivateCluster) -> None:
    from p2premap.node.sockets import listed

    directory = next(three_nodes.paths.runtime.iterdir())
    with local(paths=three_nodes.paths) as other, socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(listed(directory)[0]))
        stream.sendall(b"\x01\xff\xff\xff\xff" * 100)
        stream.settimeout(60)
        while stream.recv(65536):
            pass
        serves_on(other)
