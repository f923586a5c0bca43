"""What a walk over a job's cores checks: a model that knows messages and events, and nothing of how the cores work.

- an attempt is given out once, by any leader, to a node that is not lost or doubted, within the node's places;
- a meeting is handed out once, whole; and not while there is one whose results are known, and can be read, all of them;
- a task that is known to be finished is not given out again, unless nobody can read its result (P4); known means
  protected, where a new leader has taken the job over;
- a report is confirmed to its worker only when what was made of it is protected;
- what was proposed as a stage's manifest is proposed again by every later leader as it was;
- one result a task: what reducers read agrees, and the parts are those of one lineage;
- a job whose cancellation is protected ends CANCELLED, if its end was not proposed before; and only when none of its
  attempts runs on a node that its leader counts on;
- nothing is given out after the end, and the end is concluded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2premap.ids import Digest, NodeId
from p2premap.tasks import journal, messages
from p2premap.tasks.job import JobView, Outcome, Phase, StageId
from p2premap.tasks.ledger import FINAL_CELL
from p2premap.tasks.meeting import Meeting
from p2premap.wire import Message

if TYPE_CHECKING:
    from p2premap.sim.jobwalk import Node, Walk


class Violated(AssertionError):
    """The cores broke a promise."""


class _Finished:
    """A result that the leader has heard of.

    Args:
        serial: the batch of the present leader that is to be protected first; 0: it is already.
    """

    def __init__(self, node: NodeId, blobs: tuple[Digest, ...], serial: int, attempt: int) -> None:
        self.attempt = attempt
        self.node = node
        self.blobs = blobs
        self.serial = serial


class Model:
    """What must hold, from messages and events alone."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._given: dict[tuple[StageId, int, int], NodeId] = {}
        self._finished: dict[tuple[StageId, int], list[_Finished]] = {}
        self._seats: dict[bytes, set[int]] = {}
        self._missed: set[tuple[Digest, NodeId]] = set()
        self._reported: dict[NodeId, dict[int, int]] = {}
        self._cancelled_in = 0
        self._cancelled = False
        self._ended_first = False
        self._concluded = False
        self._lost_late: set[NodeId] = set()
        self._seen_late: set[NodeId] = set()
        self.reruns = 0

    def seen(self, node: Node) -> None:
        """The leader is told that a node is there."""
        if node.told == "lost" and FINAL_CELL in self._walk.quorum.proposals:
            self._seen_late.add(node.id)  # taken for dead when the end was put to the vote: it hears of it now

    # --- what the leader says -------------------------------------------------------------------------------------

    def ordered(self, node: Node, message: Message) -> None:
        """The leader sends an order."""
        if isinstance(message, messages.Assign | messages.Recount):
            self._check_heard(node, message.heard)
        if not isinstance(message, messages.Assign):
            return
        if self._walk.coordinator.over:
            raise Violated("work is given out after the end")
        if node.told != "seen":
            raise Violated(f"work is given to a node that is {node.told}")
        for spec in message.attempts:
            key = (message.stage, spec.task, spec.attempt)
            if key in self._given:
                raise Violated(f"attempt {key} is given out twice")
            self._given[key] = node.id
            if message.meeting is None:
                self._check_needed(message.stage, spec.task)
        if message.meeting is not None:
            self._check_meeting(message, message.meeting)

    def _check_heard(self, node: Node, heard: int) -> None:
        for serial, batch in self._reported.get(node.id, {}).items():
            if serial <= heard and batch > self._walk.quorum.protected:
                raise Violated(f"report {serial} of {node.id[:1]!r} is confirmed, and batch {batch} is not protected")

    def _check_meeting(self, message: messages.Assign, meeting: Meeting) -> None:
        if tuple(spec.task for spec in message.attempts) != meeting.seats[meeting.seat][1]:
            raise Violated("a seat is given other tasks than all others are told")
        taken = self._seats.setdefault(meeting.id, set())
        if meeting.seat in taken:
            raise Violated("a meeting is handed out twice")
        taken.add(meeting.seat)
        tasks = [task for _, tasks in meeting.seats for task in tasks]
        known = [self._finished.get((message.stage, task), []) for task in tasks]
        for attempt in {finished.attempt for finished in known[0]}:
            if all(self._is_readable_of(results, attempt) for results in known):
                raise Violated(f"{message.stage} runs again, and all that its meeting {attempt} yielded is there")
        self.reruns += any(known)

    def _is_readable_of(self, results: list[_Finished], attempt: int) -> bool:
        same = {finished.blobs for finished in results if finished.attempt == attempt}
        return any(finished.blobs in same and not self._is_gone(finished) for finished in results)

    def _is_gone(self, finished: _Finished) -> bool:
        lost = self._walk.is_silent(self._walk.node(finished.node))
        return lost or any((blob, finished.node) in self._missed for blob in finished.blobs)

    def _check_needed(self, stage: StageId, task: int) -> None:
        for finished in self._finished.get((stage, task), ()):
            if not finished.blobs or not self._is_gone(finished):
                holder = finished.node[:1]
                raise Violated(f"the finished task {task} of {stage} runs again; {holder!r} holds its result")
        self.reruns += (stage, task) in self._finished

    def appended(self, batch: bytes, serial: int) -> None:
        """The leader writes facts down."""
        if any(isinstance(fact, journal.Cancelled) for fact in journal.decode(batch).facts):
            self._cancelled_in = serial
            self._ended_first = FINAL_CELL in self._walk.quorum.proposals

    def protected(self, serial: int) -> None:
        """A quorum has everything up to this batch."""
        if 0 < self._cancelled_in <= serial:
            self._cancelled = True

    def took_over(self, protected: int, known: int) -> None:
        """A new leader begins; of the last one's stream so much is protected, and it has so much."""
        for key, results in list(self._finished.items()):
            kept = [r for r in results if r.serial <= known]
            for result in kept:
                result.serial = 0 if result.serial <= protected else 1  # protected with its first batch
            if kept:
                self._finished[key] = kept
            else:
                del self._finished[key]
        self._reported.clear()
        self._cancelled_in = 1 if self._cancelled_in <= known and self._cancelled_in else 0

    def shown(self, view: JobView) -> None:
        """The leader shows the job."""
        for stage in view.stages:
            if not 0 <= stage.done <= stage.tasks or stage.done + stage.running > stage.tasks + stage.running:
                raise Violated(f"impossible numbers: {stage}")
        if view.phase is Phase.DONE:
            self._check_parts(view)
        if view.phase is Phase.CANCELLED:
            for node in self._walk.nodes:
                running = [q for q in node.queues.values() if q]
                there = node.told in ("seen", "doubtful") and node.id not in self._seen_late
                if node.core is not None and there and running and not self._walk.gave_up():
                    raise Violated("CANCELLED while attempts run")

    def concluded(self) -> None:
        """The leader has nothing more to say."""
        if self._concluded:
            raise Violated("a job is concluded twice")
        self._concluded = True

    # --- what workers say -----------------------------------------------------------------------------------------

    def reported(self, node: Node, message: Message) -> None:
        """A report reaches the leader."""
        if not isinstance(message, messages.AttemptsEnded) or message.ballot.n != self._walk.term:
            return
        planned = self._walk.plans(message.stage)
        for end in message.ends:
            if end.outcome is Outcome.DONE and planned:
                blobs = tuple(b.digest for b in end.blobs)
                self._missed -= {(digest, node.id) for digest in blobs}
                serial = len(self._walk.quorum.stream) + 1
                known = self._finished.setdefault((message.stage, end.task), [])
                known.append(_Finished(node.id, blobs, serial, end.attempt))
            self._missed.update((digest, other.id) for digest in end.missing for other in self._walk.nodes)

    def taken(self, node: Node, message: Message) -> None:
        """The leader has made of the report what it wanted."""
        written = len(self._walk.quorum.stream)
        for results in self._finished.values():
            for result in results:  # known before; what the leader began with is protected with its first batch
                result.serial = min(result.serial, max(written, 1))
        if isinstance(message, messages.AttemptsEnded) and message.serial and message.ballot.n == self._walk.term:
            self._reported.setdefault(node.id, {}).setdefault(message.serial, written)

    def kept(self, node: Node, blobs: tuple[Digest, ...]) -> None:
        """The leader hears that the node has a copy of these."""
        for results in self._finished.values():
            if same := [result for result in results if result.blobs == blobs]:
                results.append(_Finished(node.id, blobs, len(self._walk.quorum.stream) + 1, same[0].attempt))

    def lost(self, node: Node) -> None:
        """The leader does not count on the node any more."""
        if FINAL_CELL in self._walk.quorum.proposals:
            self._lost_late.add(node.id)  # too late for the leader to do anything about it

    def booted(self, node: Node) -> None:
        """The node starts: it numbers its reports anew."""
        self._reported.pop(node.id, None)

    # --- the end --------------------------------------------------------------------------------------------------

    def check_end(self) -> None:
        """The job is over."""
        view = self._walk.view
        if view is None or not view.phase.over:
            raise Violated("the end was not shown")
        if not self._concluded:
            raise Violated("the job is not concluded")
        if view.phase is Phase.FAILED and "Task " not in view.error:
            raise Violated(f"the error names no task: {view.error}")
        if self._cancelled and not self._ended_first and view.phase is not Phase.CANCELLED:
            raise Violated(f"a cancelled job is {view.phase.value}")

    def _check_parts(self, view: JobView) -> None:
        shape = self._walk.shape
        if any(stage.done != stage.tasks for stage in view.stages):
            raise Violated(f"a job is done with tasks left: {view.stages}")
        if shape.inline:
            return
        numbers = [part.number for part in view.parts]
        if numbers != list(range(shape.reduces or shape.maps)):
            raise Violated(f"parts {numbers}")
        came = set()
        for part in view.parts:
            there = [n for n in self._walk.nodes if n.told in ("seen", "doubtful") or n.id in self._lost_late]
            contents = {n.disk[part.source.digest] for n in there if part.source.digest in n.disk}
            if not contents and self._walk.disks_lost:
                continue  # nobody has read it since, so nobody can know
            if len(contents) != 1:
                raise Violated(f"part {part.number} is nowhere")
            came.add(contents.pop().split(b"/")[2])
        if len(came) > 1:
            raise Violated(f"lineages are mixed: {sorted(came)}")
