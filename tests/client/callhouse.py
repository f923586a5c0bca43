"""A scripted daemon that makes calls: the real director and the real runtime, in its own thread, without a cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from p2premap.control.answers import Chunk, Done
from p2premap.control.calls import Calls, CallsEnded, CallsOpened, OpenCalls
from p2premap.control.data import BlobHere, BlobKept, FileGrew, FileStarted, FinishFile, PutBlob, ReadBlob, StartFile
from p2premap.control.jobs import Submit, Submitted
from p2premap.control.nodes import ListNodes, Nodes, NodeView
from p2premap.ids import Digest, JobId, NodeId
from p2premap.node.blobs import BlobStore, Writer
from p2premap.node.paths import Paths
from p2premap.tasks.bundle import JOB_MODULE, Module, pack_bundle
from p2premap.tasks.calls import Calls as Director
from p2premap.tasks.calls_results import EndsOfNode, pack_ends
from p2premap.tasks.director import Pinned
from p2premap.tasks.job import AttemptEnd, AttemptKey, Outcome, Source, StageId
from p2premap.wire import Message
from p2premap.worker.calls import CallsRuntime
from p2premap.worker.context import AttemptContext
from p2premap.worker.runtime import Segment
from tests.fakedaemon import NODE, Answer, FakeDaemon

STAGE = StageId(0, b"")
EMPTY = pack_bundle([Module(name=JOB_MODULE, path="", source="")])


class _Job:
    """One job of calls."""

    def __init__(self, job: JobId) -> None:
        self.job = job
        self.director = Director(job=job, home=NODE, plan=b"")
        self.ends: dict[int, AttemptEnd] = {}
        self.after: dict[int, tuple[int, ...]] = {}
        self.tasks = 0
        self.cancelled: set[int] = set()


def _pinned(end: AttemptEnd) -> Pinned:
    failed = end.outcome is not Outcome.DONE
    return Pinned(value=end.value, blobs=end.blobs, holders=(NODE,), failed=failed)


class CallHouse:
    """What several scripted daemons share: the jobs, and one worker for all of them."""

    def __init__(self, directory: Path) -> None:
        self.blobs = BlobStore(directory / "blobs")
        self.jobs: dict[JobId, _Job] = {}
        self.runtime: CallsRuntime | None = None
        self.ran: list[tuple[JobId, int]] = []
        self.cancelled: set[int] = set()
        self.closed = 0
        """So many jobs were ended in good order."""
        self.crashing = 0
        """So many of the next tasks end as a dead worker process does."""
        self.deaf = False
        """Nothing is run: what is handed in stays known only."""
        self.only: set[int] | None = None
        """The packs that are run; None: all."""
        self.lock = threading.Lock()
        self._directory = directory
        self._uploads: dict[bytes, bytes] = {}
        self._files: dict[int, Writer] = {}
        self.hides_files = False
        """Clients are told of files that are not theirs to open, as in a container."""

    def close(self) -> None:
        """What clients have begun and not finished goes, as when they hang up."""
        for writer in self._files.values():
            writer.discard()

    def daemon(self, paths: Paths, *, node: NodeId = NODE, name: str = "pi1") -> FakeDaemon:
        """One more that serves these jobs."""
        return FakeDaemon(paths, self.script, node=node, name=name)

    def script(self, message: Message, payload: bytes) -> Iterable[Answer]:
        """Answers of a daemon."""
        with self.lock:
            yield from self._answer(message, payload)

    def _answer(self, message: Message, payload: bytes) -> Iterable[Answer]:
        match message:
            case ListNodes(request=request):
                view = NodeView(node=NODE, name="pi1", state="alive", pid=1, boot=1, slots=2)
                yield Nodes(request=request, views=(view,))
            case PutBlob() | StartFile() | FileGrew() | FinishFile() | ReadBlob():
                yield from self._blob(message, payload)
            case Submit(request=request):
                job = JobId(len(self.jobs).to_bytes(16))
                self.jobs[job] = _Job(job)
                yield Submitted(request=request, job=job, copies=1)
            case OpenCalls(request=request, job=job, first=first):
                led = self.jobs.setdefault(job, _Job(job))
                yield CallsOpened(request=request, known=led.tasks, slots=2)
                told = tuple(end for number, end in sorted(led.ends.items()) if number >= first)
                yield CallsEnded(request=request, slots=2), pack_ends([EndsOfNode(node=NODE, ends=told)])
            case Calls(request=request, job=job):
                led = self.jobs[job]
                extension = led.director.extend(payload)
                led.after.update((led.tasks + index, before) for index, before in extension.after)
                led.tasks += extension.tasks
                led.cancelled.update(extension.cancelled)
                self.cancelled.update(extension.cancelled)
                if extension.closed:
                    self.closed += 1
                    yield Done(request=request)
                elif not self.deaf:
                    ends = self._run(led)
                    yield CallsEnded(request=request, slots=2), pack_ends([EndsOfNode(node=NODE, ends=ends)])
            case _:
                raise AssertionError(message)

    def _blob(self, message: Message, payload: bytes) -> Iterable[Answer]:
        match message:
            case PutBlob(request=request, digest=digest, last=last):
                data = self._uploads.pop(digest, b"") + payload
                if last:
                    self.blobs.put(data)
                else:
                    self._uploads[digest] = data
                yield Done(request=request)
            case StartFile(request=request, digest=digest, size=size):
                if digest is not None and self.blobs.size(digest) == size:
                    yield BlobKept(request=request, digest=digest)
                else:
                    if begun := self._files.pop(request, None):
                        begun.discard()  # of a connection that has gone
                    self._files[request] = writer = self.blobs.writer()
                    yield FileStarted(request=request, path=writer.path + ("-hidden" if self.hides_files else ""))
            case FileGrew(file=file, size=size):
                self._files[file].read_ahead(size)
            case FinishFile(request=request, file=file, size=size):
                yield BlobKept(request=request, digest=self._files.pop(file).take_in(size).digest)
            case ReadBlob(request=request, source=source, here=True) if not self.hides_files:
                yield Chunk(request=request)
                path = self.blobs.path(Digest(source.digest))
                yield BlobHere(request=request, path=path, start=0, end=source.size, checked=False)
            case ReadBlob(request=request, source=source, here=True):
                yield BlobHere(request=request, path="/nowhere", start=0, end=source.size, checked=False)
            case ReadBlob(request=request, source=source):
                yield Chunk(request=request, last=True), self.blobs.get(source.digest)

    def _run(self, led: _Job) -> tuple[AttemptEnd, ...]:
        """Run every task that has no end."""
        fresh = []
        for task in range(led.tasks):
            if task not in led.ends and (self.only is None or task in self.only):
                self.ran.append((led.job, task))
                led.ends[task] = self._attempt(led, task)
                fresh.append(led.ends[task])
        return tuple(fresh)

    def _attempt(self, led: _Job, task: int) -> AttemptEnd:
        if task in led.cancelled:
            return AttemptEnd(task=task, attempt=0, outcome=Outcome.STOPPED, error="cancelled")
        if self.crashing:
            self.crashing -= 1
            return AttemptEnd(task=task, attempt=0, outcome=Outcome.CRASHED, error="The worker process died.")
        if self.runtime is None:
            # not the program's bundle: this process has its modules, and other tests need them
            self.runtime = CallsRuntime(EMPTY, str(self._directory))
        given = led.director.task_after(task, [_pinned(led.ends[before]) for before in led.after.get(task, ())])
        context = AttemptContext(AttemptKey(led.job, STAGE, task, 0), str(self._directory), self.blobs)
        result = self.runtime.run("calls", given.params, [self._segment(s) for s in given.sources], context)
        context.close()
        return AttemptEnd(task=task, attempt=0, outcome=Outcome.DONE, value=result.value, blobs=result.blobs)

    def _segment(self, source: Source) -> Segment:
        return Segment(self.blobs.path(Digest(source.digest)), source.start, source.end, source.digest, False, "")
