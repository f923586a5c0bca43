"""What a replica needs of a job beside its ledger: its plan, its code, and small inputs, in its own store.

::

    core --Bring(job, source)--> plan, code --> Brought(copying)      a new replica: the job can be led from here
                              and inputs -----> Brought               nothing of it is left to the source
    core --ReadPlan(job)-------> plan ----------------> PlanRead      a replica is about to lead
    core --KeepBlobs(order)----> results -------------> BlobsKept     a second holder of what a task made

Which inputs a job has only its kind knows: the plan is opaque here, and the director made from it is asked
(`p2premap.tasks.inputs`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
import trio

from p2premap.election.events import Bring, Brought
from p2premap.election.records import JobRecord
from p2premap.errors import P2PRemapError
from p2premap.ids import Digest, JobId, NodeId
from p2premap.node.blobs import BlobError, BlobStore
from p2premap.node.charter import Charter
from p2premap.node.events import BlobsKept, KeepBlobs, PlanRead, ReadPlan
from p2premap.node.jobs import MakeDirector
from p2premap.node.staging import Stager
from p2premap.tasks.director import Director
from p2premap.tasks.inputs import ReadsInputs, to_copy
from p2premap.tasks.job import BlobRef, JobSpec, Source
from p2premap.tasks.messages import Kept

Asked: TypeAlias = Bring | ReadPlan | KeepBlobs
Answer: TypeAlias = Brought | PlanRead | BlobsKept

SIDE_BY_SIDE: Final = 8
"""Orders that are carried out at a time, jobs whose inputs are copied, and inputs of one of these; the others wait."""

COPY_AGAIN_S: Final = 5.0
"""Inputs that could not be copied are tried again after so long: the machine that has them was asleep, say."""

log = logging.getLogger(__name__)


class Bringer:
    """Carries out `Bring`, `ReadPlan` and `KeepBlobs`.

    Args:
        me: this node.
        blobs: its store.
        stager: fetches what is not there.
        directors: kinds of jobs by name.
        share: lets members read these files of this machine for a job (`p2premap.node.bulk.AllowedFiles.allow_files`).
        deliver: takes each answer.
    """

    def __init__(
        self,
        *,
        me: NodeId,
        blobs: BlobStore,
        stager: Stager,
        directors: Mapping[str, MakeDirector],
        share: Callable[[JobId, Sequence[str]], None],
        deliver: Callable[[Answer], None],
    ) -> None:
        self._me = me
        self._blobs = blobs
        self._stager = stager
        self._directors = directors
        self._share = share
        self._deliver = deliver
        self._sources: dict[JobId, tuple[NodeId, ...]] = {}
        self._copied: dict[JobId, tuple[Digest, ...]] = {}
        self._limit = trio.CapacityLimiter(SIDE_BY_SIDE)
        self._copies = trio.CapacityLimiter(SIDE_BY_SIDE)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery  # each order is a background task of its own
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def perform(self, asked: Asked) -> None:
        """Begin what the core asks for; answered through `deliver`. Only while `run` runs."""
        assert self._nursery is not None, "perform() needs run()"
        self._nursery.start_soon(self._carry_out, asked)

    def blobs_in_use(self) -> set[Digest]:
        """Copies of inputs of jobs that are not over: they may be asked for however old they are."""
        return {digest for digests in self._copied.values() for digest in digests}

    def forget(self, job: JobId) -> None:
        """The job is over, or this node is not a replica of it any more: the copies of its inputs go."""
        self._sources.pop(job, None)
        self.remove(self._copied.pop(job, ()))

    def remove(self, digests: Iterable[Digest]) -> None:
        """These blobs go, except what jobs need that are not over."""
        free = set(digests) - self.blobs_in_use()
        if free and self._nursery is not None:
            self._nursery.start_soon(self._remove, free)

    async def _remove(self, digests: set[Digest]) -> None:
        await trio.to_thread.run_sync(lambda: [self._blobs.delete(digest) for digest in digests])

    async def resume(self, records: Iterable[JobRecord]) -> None:
        """After a start: files of this machine that jobs read may be read again, and copies count as in use."""
        for record in records:
            if record.view or record.gone:
                continue
            job = JobId(record.job)
            try:
                charter = Charter.decode(record.spec)
                self._sources[job] = tuple(NodeId(node) for node in record.members if node != self._me)
                director = await self._director(job, charter, holders=())
            except (P2PRemapError, msgspec.DecodeError) as error:
                log.warning("the job %s cannot be led here now: %s", job.hex()[:8], error)
                continue
            sources = to_copy(director, charter.spec.options)
            copied = {digest for source in sources if self._blobs.has(digest := Digest(source.digest))}
            self._note(job, director, copied, share=charter.home == self._me)
            left = [source for source in sources if source.digest not in copied]
            if left and charter.home != self._me and self._nursery is not None:
                self._nursery.start_soon(self._copy_rest, job, left, charter.home)

    async def _carry_out(self, asked: Asked) -> None:
        async with self._limit:
            match asked:
                case Bring():
                    answer: Answer = await self._bring(asked)
                case ReadPlan():
                    answer = await self._read_plan(asked)
                case KeepBlobs():
                    answer = await self._keep(asked)
        self._deliver(answer)

    async def _bring(self, asked: Bring) -> Brought:
        try:
            charter = Charter.decode(asked.spec)
            self._sources[asked.job] = holders = tuple(dict.fromkeys((asked.source, charter.home)))
            for blob in charter.spec.blobs():
                if blob != charter.spec.plan:
                    await self._stager.keep(_whole(blob, holders), durable=True)
            director = await self._director(asked.job, charter, holders)
        except (P2PRemapError, msgspec.DecodeError) as error:
            return Brought(job=asked.job, error=str(error))
        # on the machine of the home its files are at hand, and gone with the machine
        near = self._stager.is_neighbour(charter.home)
        sources = () if near else to_copy(director, charter.spec.options)
        copied = [Digest(source.digest) for source in sources]
        self._note(asked.job, director, copied, share=near or charter.home == self._me)
        # replicas begin at different places: together they have all of it sooner, should its machine go
        first = int.from_bytes(self._me[:4], "big") % max(len(sources), 1)
        if sources:
            assert self._nursery is not None, "perform() needs run()"
            left = (*sources[first:], *sources[:first])
            self._nursery.start_soon(self._copy_all, asked.job, left, asked.source)
        return Brought(job=asked.job, copying=bool(sources))

    async def _copy_rest(self, job: JobId, left: Sequence[Source], home: NodeId) -> None:
        """What this node had not copied when it ended, once it is known who is on its machine."""
        await trio.sleep(COPY_AGAIN_S)
        if job in self._copied and not self._stager.is_neighbour(home):
            self._copied[job] = (*self._copied[job], *(Digest(source.digest) for source in left))
            self._deliver(Brought(job=job, copying=True))
            await self._copy_all(job, left, home)

    async def _copy_all(self, job: JobId, left: Sequence[Source], holder: NodeId) -> None:
        """Until all are here or the job is over. Meanwhile it can be led from here: its tasks wait for the files."""
        async with self._copies:
            left = await self._copy(left, holder)
        while left and job in self._copied:
            await trio.sleep(COPY_AGAIN_S)
            async with self._copies:
                left = await self._copy(left, holder)
        if job in self._copied:
            self._deliver(Brought(job=job))

    async def _copy(self, sources: Iterable[Source], holder: NodeId) -> Sequence[Source]:
        """Those that could not be had now, and those that were not tried, which come first."""
        waiting, failed = deque(sources), list[Source]()

        async def copy_some() -> None:
            while waiting:
                source = waiting.popleft()
                holders = tuple(dict.fromkeys((*source.holders, holder)))
                try:
                    await self._stager.keep(msgspec.structs.replace(source, holders=holders))
                except P2PRemapError as error:
                    log.warning("an input cannot be copied now: %s", error)
                    failed.append(source)
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(SIDE_BY_SIDE):
                nursery.start_soon(copy_some)
        return [*waiting, *failed]

    async def _read_plan(self, asked: ReadPlan) -> PlanRead:
        try:
            plan = await self._plan(asked.plan, self._sources.get(asked.job, ()))
        except P2PRemapError as error:
            return PlanRead(job=asked.job, error=str(error))
        return PlanRead(job=asked.job, plan=plan)

    async def _keep(self, asked: KeepBlobs) -> BlobsKept:
        order, error = asked.order, ""
        try:
            for source in order.sources:
                await self._stager.keep(source)
        except P2PRemapError as trouble:
            error = str(trouble)
        kept = Kept(job=order.job, ballot=order.ballot, number=order.number, error=error)
        return BlobsKept(node=asked.node, kept=kept)

    async def _director(self, job: JobId, charter: Charter, holders: tuple[NodeId, ...]) -> Director:
        """Raises: P2PRemapError: there is no plan, or no module for it, here."""
        spec: JobSpec = charter.spec
        plan = await self._plan(spec.plan, holders)
        make = self._directors.get(spec.kind)
        if make is None:
            raise P2PRemapError(f"No module for jobs of kind {spec.kind!r} is installed here.")
        try:
            return make(job=job, home=charter.home, plan=plan)
        except P2PRemapError:
            raise
        except Exception as error:  # a plug-in's fault is that job's trouble, not the node's
            log.exception("the module for jobs of kind %r failed", spec.kind)
            raise P2PRemapError(f"The module for jobs of kind {spec.kind!r} cannot read its plan: {error!r}.") from None

    async def _plan(self, ref: BlobRef, holders: tuple[NodeId, ...]) -> bytes:
        """Raises: SourceLost, StoreUnwritable, BlobError: it is not here and cannot be had."""
        try:
            return await trio.to_thread.run_sync(self._blobs.get, Digest(ref.digest))
        except BlobError:
            if not holders:
                raise
        await self._stager.keep(_whole(ref, holders), durable=True)
        return await trio.to_thread.run_sync(self._blobs.get, Digest(ref.digest))

    def _note(self, job: JobId, director: Director, copied: Iterable[Digest], *, share: bool) -> None:
        self._copied[job] = tuple(copied)
        if share and isinstance(director, ReadsInputs):
            self._share(job, list(director.input_files()))


def _whole(ref: BlobRef, holders: tuple[NodeId, ...]) -> Source:
    return Source(digest=ref.digest, start=0, end=ref.size, holders=holders, blob=ref.digest)
