"""The cluster as an `Executor` of the standard library.

A connected program is one job (kind "calls"), acknowledged once; calls are handed in on it, and their results are
facts in its ledger like any other. A ledger only grows: after `JOB_BYTES_MAX` the program goes on with another job, and
the first ends when its last call has. The program may run anywhere where a node answers; without one, a private node
is started for as long as the connection is open.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from p2premap.client import leftovers as _leftovers  # noqa: F401  (before `_at_exit`, which is to come before it)
from p2premap.client.callline import CallLine
from p2premap.client.connection import PATIENCE_S, Connection
from p2premap.client.future import Future
from p2premap.client.jobs import Connect, job_bytes
from p2premap.client.locals import bundle_of_program
from p2premap.client.mapping import Feed, Results
from p2premap.client.packs import Call, Mapped
from p2premap.client.references import LARGE_BYTES, Shared, dumps_referring, weight
from p2premap.client.session import hand_in, strength
from p2premap.client.submission import submission_of, with_blob
from p2premap.control.jobs import JobUpdate, Watch
from p2premap.errors import P2PRemapError
from p2premap.ids import JobId, NodeId
from p2premap.tasks.calls import KIND
from p2premap.tasks.job import JobOptions, Limits
from p2premap.worker.waiting import waiting

JOB_BYTES_MAX = 128 << 20
MINOR: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
"""What a script defines travels as bytecode, which only the same minor version of Python can run."""

if TYPE_CHECKING:
    from p2premap.client.handle import Job
    from p2premap.client.vertices import VertexResult
    from p2premap.tasks.job import JobView
    from p2premap.vertex.program import ArrayProgram, VertexProgram

T = TypeVar("T")


opened: Final[dict[Cluster, None]] = {}
"""Those that have not been shut down, in the order of their connections."""


@atexit.register
def _at_exit() -> None:
    """A program ends when its calls have, as with the executors of the standard library."""
    for cluster in list(opened):
        cluster.shutdown()


class Cluster(futures.Executor):
    """The cluster that a program is connected to. Make one with `connect`; it may be used by many threads.

    One that is not shut down is when the program ends.

    Args:
        connect: opens a connection to any daemon.
        name: of the job, for people.
        options: of the job.
        lock: of its environment, where it has one.
        say: hears what the program's user should know.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        name: str,
        options: JobOptions,
        lock: bytes = b"",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._private = contextlib.ExitStack()
        self._nodes_end = False
        self._jobs: list[Job] = []
        """Those of which the program may still be needed."""
        self._lock, self._say = lock, say
        self._connect, self._name, self._options = connect, name, options
        self._changing = threading.Lock()
        self._shut = False
        self._ending: dict[CallLine, threading.Thread] = {}
        """Lines that have become long, and who waits for their last calls."""
        self._line = self._new_line()
        opened[self] = None

    def own(self, private: contextlib.ExitStack) -> None:
        """These nodes end with this connection."""
        self._private, self._nodes_end = private, True

    def connection(self, *, patience_s: float = PATIENCE_S, tick: Callable[[], None] = lambda: None) -> Connection:
        """A line of its own to a node, for questions about the cluster; whoever asks for it closes it.

        Args:
            patience_s: so long a node that says nothing is asked again.
            tick: called about every second meanwhile; may raise to end the waiting.

        Raises:
            NodeUnavailable: no node answers.
        """
        return self._connect(patience_s=patience_s, tick=tick)

    @property
    def job_id(self) -> str:
        """The id of this program's job, as the command line shows and takes it, such as for `p2premap watch`."""
        return self._line.job.hex()

    def job(self, id: str) -> Job:
        """A job of the cluster, whoever handed it in, by its id or the first four or more digits of that.

        Raises:
            JobLost: no node that answers knows it, or several jobs begin so.
            ConfigError: it is no id.
        """
        from p2premap.client.handle import Job, known  # few programs ask for one

        wanted = job_bytes(str(id))
        with known(id), self._connect() as connection:
            view = connection.ask(lambda n: Watch(request=n, job=wanted, once=True), JobUpdate).view
        return Job(self._connect, JobId(view.job))

    def __reduce__(self) -> tuple[Callable[[], Cluster], tuple[()]]:
        """In a call it is the cluster that the call's process is connected to."""
        from p2premap.client.connecting import current  # which makes these

        return current, ()

    def __repr__(self) -> str:
        if self._shut:
            return f"<Cluster, shut down, job {self.job_id[:8]}>"
        waiting, under_way, answered = self._line.count()
        calls = f"{answered} calls done, {under_way} under way, {waiting} wait"
        return f"<Cluster of {self.slots} slots, job {self.job_id[:8]}: {calls}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        waiting, under_way, answered = self._line.count()
        every = max(waiting + under_way + answered, 1)
        bar = f'<progress max="{every}" value="{answered}"></progress>'
        calls = f"{answered} calls done, {under_way} under way, {waiting} wait"
        state = "shut down" if self._shut else f"{self.slots} slots"
        return f"<b>p2premap</b> {state}, job <code>{self.job_id[:8]}</code><br>{bar} {calls}"

    @property
    def slots(self) -> int:
        """How many calls can run side by side, on all nodes, as of a moment ago."""
        return self._line.slots

    @property
    def _max_workers(self) -> int:
        """The name under which Dask asks an executor for the same."""
        return self.slots

    def submit(self, fn: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` on some node.

        A future among the arguments, or within them, stands for its result: the call is made once that is there, and
        gets it from where it is. What cannot be sent is the future's exception.

        Raises:
            RuntimeError: after `shutdown`.
            JobError: the job of this program was cancelled, or lost.
        """
        return self._submit(None, fn, args, kwargs)

    def submit_to(self, node: NodeId, fn: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        """As `submit`, on one node: the call waits as long as that cannot run it.

        Raises:
            RuntimeError, JobError: as `submit`.
        """
        return self._submit(node, fn, args, kwargs)

    def _submit(
        self, node: NodeId | None, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[T]:
        line = self._current()
        future: Future[T] = Future()
        try:
            data, things = dumps_referring(_light(line, args, kwargs))
            call = Call(line.function(fn), data, future)
            call.node, call.alone = node, call.alone or node is not None
        except Exception as error:
            # the caller sees it where it would see what the call raises
            future.set_exception(error)
            return future
        future._call, future._line = call, line
        if things:
            line.submit_after(call, things)
        else:
            line.submit(call)
        return future

    def put(self, value: object) -> Shared:
        """Send a value once, as an argument for many calls: what is returned stands for it, there or within arguments.

        All calls of a worker process get the same object, with arrays that cannot be written to.

        Raises:
            Exception: it cannot be pickled, or kept.
        """
        return self._current().share(value)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[T]:
        """As the built-in `map`, with calls side by side on all nodes, begun at once.

        Inputs that cannot be counted, or are very many, are taken as results are: they may be endless.

        Args:
            timeout: seconds from now until the last result must be here.
            chunksize: calls in one task; None: as many as are quick.
            ordered: results come in the order of the inputs; else as they come.

        Raises:
            RuntimeError: after `shutdown`.
            TimeoutError: while iterating.
            Exception: while iterating: what a call raised, in its place. What cannot be pickled raises likewise.
        """
        results, feed, until, give_up = self._begin(fn, iterables, timeout, chunksize, ordered)
        return results.iterate(feed, until, give_up)

    def chunks(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], chunksize: int | None = None, ordered: bool = True
    ) -> tuple[Results, Iterator[list[Any]]]:
        """As `map`, with results as many at a time as come together; and what can have the waiting for them ended."""
        results, feed, until, give_up = self._begin(fn, iterables, None, chunksize, ordered)
        return results, results.chunks(feed, until, give_up)

    def _begin(
        self,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        chunksize: int | None,
        ordered: bool,
    ) -> tuple[Results, Feed, float | None, Callable[[], None]]:
        """Begin a `map`; returns what collects the results, and its arguments."""
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be at least 1.")
        self._current()
        until = None if timeout is None else time.monotonic() + timeout
        results = Results(ordered=ordered)
        handed_in: deque[tuple[CallLine, Mapped]] = deque()

        def hand_in(rows: list[Any], first: int) -> int:
            while handed_in and handed_in[0][1].over:
                handed_in.popleft()
            line = self._current()
            star = len(iterables) != 1
            number, chunk = line.function(fn), chunksize or 0
            mapped = Mapped(number, rows, star=star, chunk=chunk, sink=results.take, first=first)
            handed_in.append((line, mapped))
            return line.submit_map(mapped)

        def give_up() -> None:
            for line, mapped in handed_in:
                line.drop_map(mapped)

        feed = Feed(iterables, hand_in)
        if not feed.over:
            feed.fill(0)
        return results, feed, until, give_up

    def map_reduce(
        self,
        file: str | os.PathLike[str] | None = None,
        inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        *,
        output: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        partitions: int = 0,
        name: str = "",
        priority: int = 0,
        retries: int = 0,
        skip_failed: bool = False,
        time_limit: float = 0.0,
        memory_limit: int = 0,
        strict: bool = False,
        requires: str | Sequence[str] = (),
        **given: Any,  # noqa: ANN401  (functions and settings of a job file)
    ) -> Job:
        """Begin a map/reduce job, of a job file or of functions of this program::

            job = cluster.map_reduce("count.py", "texts/*.txt")
            job = cluster.map_reduce(inputs="texts/", map=words, reduce=total)
            for word, count in job: ...

        It is not waited for, and goes on without this program; but where its output goes to a directory of this
        machine, or the nodes are private, `shutdown` waits for it.

        Args:
            file: a job file (docs/job-files.md). Its results keep their types, unless it has a `writer`, or `output`
                is given.
            inputs: paths, patterns and URLs; none with a `datasource`.
            output: a directory for the parts, or a URL, which nodes write to; None: they stay on the nodes.
            overwrite: the parts of an earlier job there are replaced.
            partitions: output parts; 0: by size and slots.
            name: for people; "": the file's, or the function's.
            priority, retries, skip_failed, strict: as of `p2premap run`.
            time_limit, memory_limit: of one attempt, in seconds and bytes; 0: none.
            requires: what nodes must have, beside what the connection and the job file ask for.
            given: what a job file would define, where there is none: ``map=``, ``combine=``, ``reduce=``, ...,
                ``reader=``, ``sets=``, ``datasource=`` and the like. Functions go by value.

        Raises:
            JobRejected: something makes no sense; nothing was started.
            ConfigError: nothing can be written to `output`, or the parts of an earlier job are there.
        """
        from p2premap.client.mapreduce import begin  # few programs have such jobs

        options = msgspec.structs.replace(
            self._options_of_jobs(by_value=file is None, requires=requires),
            priority=priority,
            retries=retries,
            skip_failed=skip_failed,
            limits=Limits(time_s=time_limit, memory_bytes=memory_limit),
            strict=strict,
        )
        job = begin(
            self._connect,
            file,
            inputs,
            given=given,
            partitions=partitions,
            name=name,
            output=None if output is None else os.fspath(output),
            overwrite=overwrite,
            options=options,
            lock=self._lock,
        )
        if self._nodes_end or job._writes_here:
            with self._changing:
                self._jobs = [*(before for before in self._jobs if not before._settled), job]
        return job

    def run_vertex(
        self,
        program: str | os.PathLike[str] | type[VertexProgram] | type[ArrayProgram],
        inputs: Any,  # noqa: ANN401  (paths, edges, or a graph of networkx or scipy)
        *,
        partitions: int = 0,
        seen: Callable[[JobView], None] = lambda view: None,
        **options: Any,  # noqa: ANN401  (of the job and of the program)
    ) -> VertexResult:
        """Run a vertex job, and wait for what it comes to: a dict of ids and values.

        Args:
            program: the name of an algorithm, such as "pagerank"; the path of a job file; or a class derived from
                `p2premap.VertexProgram` or `p2premap.ArrayProgram`.
            inputs: a path or URL, or several; or edges as (source, target) in a list or an array; or a graph of
                networkx, or a square sparse matrix of scipy.
            partitions: of the graph; 0: two for each slot.
            seen: called with the job's view whenever that has changed.
            options: as on the command line, such as ``undirected=True`` or ``max_bad=3``, and the program's own, such
                as ``damping=0.9``. Of a graph of networkx, ``weights`` may name the attribute that is the weight.

        Raises:
            JobRejected: something makes no sense; nothing was started.
            JobFailed: with the remote traceback.
            JobCancelled: somebody ended it.
        """
        from p2premap.client.vertices import run_vertex  # few programs have graphs

        asked = self._options_of_jobs(by_value=False)
        return run_vertex(
            self._connect, program, inputs, partitions=partitions, options=asked, seen=seen, given=options
        )

    def _options_of_jobs(self, *, by_value: bool, requires: str | Sequence[str] = ()) -> JobOptions:
        """As of this program's calls.

        Args:
            by_value: functions of the program are in it; a job file runs in any minor version.
            requires: what nodes must have beside.
        """
        ours = (line for line in self._options.requires if by_value or line != f"python {MINOR}")
        return msgspec.structs.replace(self._options, requires=tuple(dict.fromkeys((*ours, *lines_of(requires)))))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the job end once every call has its result.

        Args:
            wait: return only then.
            cancel_futures: do not make calls that have not been sent to the cluster.
        """
        first = self._close()
        if cancel_futures:
            self._drop(running=False)
        if not first:
            return
        if wait:
            self._finish()
        else:
            threading.Thread(target=self._finish, name="p2premap-shutdown").start()

    def _close(self) -> bool:
        """Take no more calls; False: that was so already."""
        with self._changing:
            first, self._shut = not self._shut, True
            opened.pop(self, None)
        return first

    def _drop(self, *, running: bool) -> None:
        for line in (self._line, *list(self._ending)):
            line.drop(running=running)

    def _finish(self, *, jobs: bool = True) -> None:
        _end_line(self._line)
        if jobs:
            self._finish_jobs()
        with waiting():
            for thread in list(self._ending.values()):
                thread.join()
        self._private.close()

    def _finish_jobs(self) -> None:
        """See jobs through that could not go on without this program, or would leave their output elsewhere."""
        error: BaseException | None
        for job in (job for job in self._jobs if not job._settled):
            try:
                error = job.exception()
            except P2PRemapError as trouble:
                error = trouble
            if error is not None:
                self._say(str(error))

    def _current(self) -> CallLine:
        """The line for new calls.

        Raises:
            RuntimeError: after `shutdown`.
        """
        line = self._line
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if line.spent_bytes < JOB_BYTES_MAX:
            return line
        with self._changing:
            if self._line is line and not self._shut:
                self._line = self._new_line()
                thread = threading.Thread(target=_end_line, args=(line,), name="p2premap-line", daemon=True)
                self._ending[line] = thread
                thread.start()
                self._ending = {old: thread for old, thread in self._ending.items() if thread.is_alive()}
        return self._line

    def _new_line(self) -> CallLine:
        with self._connect() as connection:
            power = strength(connection)
        if power.pythons and MINOR not in power.pythons:
            there = ", ".join(sorted(power.pythons))
            self._say(
                f"No node here runs Python {MINOR}, as this program does and its functions need, but {there}: "
                "what it calls waits until one comes."
            )
        job = submission_of(KIND, self._options, name=self._name, code=bundle_of_program(), plan=b"")
        job = with_blob(job, self._lock) if self._lock else job
        return CallLine(self._connect, hand_in(self._connect, job), power.slots)

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        """As `shutdown`. Where an exception leaves the block, Ctrl-C too, nobody waits for calls: all are cancelled."""
        if kind is None:
            self.shutdown()
            return
        first = self._close()
        self._drop(running=True)
        if first:
            self._finish(jobs=False)


def _light(line: CallLine, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with large ones put by themselves, so that calls with the same do not each bring it along."""
    if any(weight(value) > LARGE_BYTES for value in (*args, *kwargs.values())):

        def light(value: Any) -> Any:  # noqa: ANN401  (what users pass)
            return line.share(value, own=True) if weight(value) > LARGE_BYTES else value

        return tuple(map(light, args)), {name: light(value) for name, value in kwargs.items()}
    return args, kwargs


def _end_line(line: CallLine) -> None:
    with waiting():
        line.await_idle()
    line.close()


def lines_of(requires: str | Sequence[str]) -> tuple[str, ...]:
    if not requires:
        return ()
    from p2premap.tasks import requirements  # few programs require anything

    return requirements.lines_of(requires)
