"""What the replicas keep of a job from its first moment, and the id that is bound to it."""

from collections.abc import Iterable
from typing import Final, Self

import cbor2
import msgspec
from blake3 import blake3

from p2premap.ids import JOB_ID_BYTES, JobId, NodeId
from p2premap.tasks.job import JobOptions, JobSpec
from p2premap.wire import NodeIdField, Record, Seconds

OPTIONS_FIRST: Final = 10
"""Options that every node knows. Of later ones a job's id depends only where they are given."""


class Charter(Record, frozen=True, kw_only=True):
    """What the replicas keep of a job from its first moment: what was submitted, and where.

    Args:
        home: the node that took it, on whose machine its inputs are.
        submitted: when, by the home's clock, in seconds since 1970: for people and for sorting, nothing else.
    """

    spec: JobSpec
    home: NodeIdField
    submitted: Seconds = 0.0

    def encode(self) -> bytes:
        """As `p2premap.election.events.CreateJob.spec`."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From a replica's record, which a member wrote."""
        return msgspec.msgpack.decode(data, type=cls)


def job_id(spec: JobSpec, replicas: Iterable[NodeId]) -> JobId:
    """The job's id: a digest over (submission key, spec digest, first replica set), so that no id can have two."""
    fields = msgspec.to_builtins(spec, builtin_types=(bytes,))
    options, usual = fields[-1], msgspec.to_builtins(JobOptions())
    while len(options) > OPTIONS_FIRST and options[-1] == usual[len(options) - 1]:
        options.pop()
    spec_digest = blake3(cbor2.dumps(fields)).digest()
    bound = cbor2.dumps((spec.submission_key, spec_digest, tuple(replicas)))
    return JobId(blake3(bound).digest(JOB_ID_BYTES))
