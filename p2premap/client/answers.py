"""The receiving half of a program's line to its job: from the ends of packs to the results of futures."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, InvalidStateError, ThreadPoolExecutor
from typing import Final

from p2premap.client.callstate import CallState, Held, set_exception
from p2premap.client.dependents import Dependents
from p2premap.client.future import Future
from p2premap.client.packs import Pack
from p2premap.client.pickles import exception, loads
from p2premap.client.puts import fetch
from p2premap.client.sending import Sender
from p2premap.errors import CallFailed, ClusterError, RemoteProtocolError
from p2premap.ids import NodeId
from p2premap.tasks.calls import BLOB, RAISED, VALUES, VOID
from p2premap.tasks.calls_refs import ANSWER, RESULT, BlobAt, Ref
from p2premap.tasks.calls_results import Done, unpack_answers, unpack_done, unpack_ends
from p2premap.tasks.job import AttemptEnd, Outcome
from p2premap.worker.values import unpack_value, unpack_values

FETCHERS: Final = 2
AGAIN_S: Final = 0.1
AGAIN_MAX_S: Final = 1.0

TROUBLE: Final = (ClusterError, RemoteProtocolError)
"""What may go wrong with one node, and not with another."""


class Answers:
    """Takes in how packs ended.

    Args:
        state: of the line.
        sender: what waits may go once something has ended.
        dependents: likewise.
    """

    def __init__(self, state: CallState, sender: Sender, dependents: Dependents) -> None:
        self._state = state
        self._sender = sender
        self._dependents = dependents
        self._fetchers: ThreadPoolExecutor | None = None
        self.spent_bytes = 0
        """What the job's ledger has taken in of answers, about."""

    def hear(self, slots: int, payload: bytes) -> None:
        """Take in a frame of ends.

        Raises:
            RemoteProtocolError: it is none.
        """
        self.spent_bytes += len(payload)
        for group in unpack_ends(payload) if payload else ():
            for end in group.ends:
                self._on_end(group.node, end)
        self._go_on(slots)

    def close(self) -> None:
        """Nothing more is fetched."""
        if self._fetchers is not None:
            self._fetchers.shutdown(wait=False)

    def _go_on(self, slots: int = 0) -> None:
        state = self._state
        self._dependents.go_on()
        with state.lock:
            state.packer.slots = slots or state.packer.slots
            flush = self._sender.may_flush()
            if state.packer.idle:
                state.idle.notify_all()
        if flush:
            self._sender.flush()

    def _on_end(self, node: NodeId, end: AttemptEnd) -> None:
        with self._state.lock:
            pack = self._state.packer.under_way.get(end.task)
        if pack is None:
            return
        if end.outcome is not Outcome.DONE:
            self._without_answer(pack, end)
            return
        done = unpack_done(end.value)
        if done.flags & BLOB and end.blobs:
            blob = end.blobs[0]
            at = BlobAt(blob.digest, blob.size, node)
            for position, call in enumerate(pack.calls[: done.calls]):
                if isinstance(call.future, Future):
                    kind = RESULT if done.flags & VALUES else ANSWER
                    call.future.found(Ref(kind, at, position=position, calls=done.calls))
            if self._fetchers is None:
                self._fetchers = ThreadPoolExecutor(FETCHERS, "p2premap-fetch")
            self._fetchers.submit(self._fetch, pack, done, at)
        else:
            self._answered(pack, done)

    def _answered(self, pack: Pack, done: Done) -> None:
        """The pack's answers are here."""
        if done.flags & VOID and pack.mapped is None:
            self._given_back(pack)
            return
        packer = self._state.packer
        with self._state.lock:
            if packer.ended(pack.number) is None:
                return
            packer.learn(pack, done.calls, done.seconds, len(done.data))
            if pack.mapped is not None:
                pack.mapped.answered += done.calls
            if pack.mapped is None or not done.flags & RAISED:
                packer.rest(pack, done.calls)
        if pack.mapped is None:
            self._set_results(pack, done)
        elif not done.flags & VOID:
            pack.mapped.tell(pack.start, done)

    def _given_back(self, pack: Pack) -> None:
        """What the pack named was not to be had."""
        with self._state.lock:
            if self._state.packer.ended(pack.number) is None:
                return
            for call in pack.calls:
                self._state.held[call] = Held(going=True)
        for call in pack.calls:
            self._dependents.again(call)

    def _set_results(self, pack: Pack, done: Done) -> None:
        for call, (piece, is_exception) in zip(pack.calls, _pieces(done), strict=False):
            future = call.future
            try:
                if pack.early and any(isinstance(thing, Future) and thing.cancelled() for thing in call.things):
                    set_exception(future, CancelledError())
                elif is_exception:
                    set_exception(future, exception(piece))
                else:
                    future.set_result(unpack_value(piece) if done.flags & VALUES else loads(piece))
            except InvalidStateError:
                continue  # it was cancelled
            except BaseException as error:
                # the answer cannot be made here: its class is not known, or refuses
                set_exception(future, error)
            finally:
                call.answered()

    def _without_answer(self, pack: Pack, end: AttemptEnd) -> None:
        """The pack's worker process died, or went over a limit; or it was cancelled."""
        many = (pack.stop - pack.start if pack.mapped is not None else len(pack.calls)) > 1
        with self._state.lock:
            if self._state.packer.ended(pack.number) is None:
                return
            if many and not pack.cancelled:
                self._state.packer.apart(pack)
                return
        error = CallFailed(end.error or "It was stopped.", job=self._state.job.hex(), detail=end.detail)
        if pack.mapped is not None and not pack.mapped.dropped:
            pack.mapped.tell(pack.start, error)
        for call in pack.calls:
            set_exception(call.future, error)
            call.answered()

    def _fetch(self, pack: Pack, done: Done, blob: BlobAt) -> None:
        """Get a large answer. Where that is impossible its pack stays under way: if the blob is lost it is made again,
        and told of again."""
        again_s = AGAIN_S
        while not (self._state.over.is_set() or pack.over):
            try:
                with self._state.connect(patience_s=0.0) as connection:
                    data = fetch(connection, blob)
            except TROUBLE:
                time.sleep(again_s)
                again_s = min(2 * again_s, AGAIN_MAX_S)
                continue
            try:
                self._answered(pack, done._replace(data=data))
            except BaseException as error:
                # a thread of a pool tells nobody: whoever waits shall know
                self._state.end(error)
            self._go_on()
            return


def _pieces(done: Done) -> list[tuple[memoryview, bool]]:
    """The results of calls one by one, and which are exceptions.

    Raises:
        RemoteProtocolError: they are no such results.
    """
    if done.flags & VALUES:
        return unpack_values(done.data)
    pieces, raised = unpack_answers(done.data, done.calls)
    return [(piece, position in raised) for position, piece in enumerate(pieces)]
