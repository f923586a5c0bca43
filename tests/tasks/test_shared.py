"""A stage whose tasks share slots and talk to each other: what it yields is of one meeting, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Sequence

from p2premap.sim.workloads import Shape
from p2premap.tasks import messages
from p2premap.tasks.job import AttemptEnd, JobOptions, Outcome, Phase, StageId
from tests.tasks.dialogue import Led, blob

EPOCHS = Shape(4, epochs=2)
PATIENCE_S = 0.5


class Gang(Led):
    """A leader whose map stage is done: the first epoch is about to begin. Nodes A to C, of one slot each."""

    def __init__(self, shape: Shape = EPOCHS, *, on: str = "ABC", **options: object) -> None:
        super().__init__(shape, on=on, **options)  # type: ignore[arg-type]
        if not self.history:
            for task in range(shape.maps):
                self.done(chr(self.given[StageId(0, b""), task][0][0]), task, blobs="m")
            self.kept()

    @property
    def stage(self) -> StageId:
        """The last one that was handed out."""
        return [message.stage for _, message in self.said if isinstance(message, messages.Assign)][-1]

    @property
    def assigned(self) -> list[messages.Assign]:
        """What was handed out last, at once."""
        orders = [message for _, message in self.said if isinstance(message, messages.Assign)]
        return [order for order in orders if order.meeting and order.meeting.id == orders[-1].meeting.id]  # type: ignore[union-attr]

    @property
    def seats(self) -> list[tuple[str, tuple[int, ...]]]:
        """Who was to meet the last time."""
        meeting = self.assigned[-1].meeting
        assert meeting is not None
        return [(chr(node[0]), tasks) for node, tasks in meeting.seats]

    def gather(self, letters: str = "ABC") -> list[str]:
        """These keep a slot each."""
        return [line for letter in letters for line in self.reserved(letter, 1)]

    def yields(self, letter: str, *tasks: int, name: str = "e") -> list[str]:
        """The node's tasks end with results."""
        return self.done(letter, *tasks, stage=self.stage, blobs=name)

    def stopped(self, letter: str, *tasks: int) -> list[str]:
        """The node's tasks were stopped."""
        ends = [self.end(task, stage=self.stage, outcome=Outcome.STOPPED) for task in tasks]
        return self.ended(letter, ends, stage=self.stage)

    def done_of(self, number: int) -> int:
        """Tasks of this stage that are done."""
        return self.view.stages[number].done


def seated(led: Gang, letters: str = "ABC") -> Gang:
    """The first epoch runs."""
    led.gather(letters)
    return led


def test_tasks_are_dealt_out_over_all_slots_that_are_kept_once_everybody_has_answered() -> None:
    led = Gang()
    assert [m.slots for _, m in led.said if isinstance(m, messages.Reserve)] == [1, 1, 1]
    assert led.reserved("A", 1) == []
    assert led.reserved("C", 1) == []
    lines = led.reserved("B", 1)
    assert sorted(line.split(":")[0] for line in lines if "epoch1" in line) == ["A", "B", "C"]
    assert sorted(line for line in lines if "reserve" in line) == ["A: reserve 0", "B: reserve 0", "C: reserve 0"]
    assert sorted(task for _, tasks in led.seats for task in tasks) == [0, 1, 2, 3]
    assert [order.meeting.seat for order in led.assigned if order.meeting] == [0, 1, 2]
    assert {order.meeting.seats for order in led.assigned if order.meeting} == {led.assigned[0].meeting.seats}  # type: ignore[union-attr]


def test_one_slot_is_enough() -> None:
    led = Gang(on="A")
    assert [line for line in led.reserved("A", 1) if "epoch1" in line] != []
    assert led.seats == [("A", (0, 1, 2, 3))]
    led.yields("A", 0, 1, 2, 3)
    led.reserved("A", 1)
    led.yields("A", 0, 1, 2, 3, name="f")
    assert led.view.phase is Phase.DONE


def test_who_keeps_nothing_for_long_is_left_out() -> None:
    led = Gang()
    led.gather("AB")
    led.reserved("C", 0)
    lines = led.tick(PATIENCE_S)
    assert sum("epoch1" in line for line in lines) == 2
    assert [letter for letter, _ in led.seats] in (["A", "B"], ["B", "A"])


def test_who_does_not_answer_is_waited_for_longer() -> None:
    led = Gang()
    led.gather("AB")
    assert led.tick(PATIENCE_S) == ["A: reserve 1", "B: reserve 1", "C: reserve 1"]
    lines = [line for _ in range(3) for line in led.tick(PATIENCE_S)]
    assert sum("epoch1" in line for line in lines) == 2


def test_a_node_in_doubt_is_waited_for_a_while() -> None:
    led = Gang()
    led.doubt("C")
    assert led.gather("AB") == []
    assert led.seen("C") == []
    assert sum("epoch1" in line for line in led.reserved("C", 1)) == 3
    led = Gang()
    led.doubt("C")
    led.gather("AB")
    assert sum("epoch1" in line for line in led.tick(PATIENCE_S)) == 2


def test_an_epoch_is_pinned_once_every_result_has_two_holders() -> None:
    led = seated(Gang())
    for letter, tasks in led.seats:
        led.yields(letter, *tasks)
    assert (led.done_of(1), len(led.view.stages)) == (4, 2), "nobody has a copy yet"
    led.kept()
    assert [stage.name for stage in led.view.stages] == ["map", "epoch1", "epoch2"]


def test_where_nobody_makes_copies_it_is_pinned_after_a_while() -> None:
    led = seated(Gang())
    for letter, tasks in led.seats:
        led.yields(letter, *tasks)
    led.tick(10.0)
    assert len(led.view.stages) == 3


def test_without_copies_an_epoch_ends_at_once() -> None:
    led = seated(Gang(options=JobOptions(copies=1)))
    for letter, tasks in led.seats:
        led.yields(letter, *tasks)
    assert len(led.view.stages) == 3


def test_the_seats_of_the_next_epoch_are_those_of_the_last() -> None:
    led = seated(Gang())
    first = led.seats
    for letter, tasks in first:
        led.yields(letter, *tasks)
    led.kept()
    led.gather()
    assert led.view.stages[2].running == 4
    assert led.seats == first


def test_a_new_node_has_tasks_in_the_next_epoch_and_one_that_is_lost_has_none() -> None:
    led = seated(Gang(Shape(6, epochs=3)))
    led.seen("D")
    for letter, tasks in led.seats:
        led.yields(letter, *tasks)
    led.kept()
    led.gather("ABCD")
    assert sorted(len(tasks) for letter, tasks in led.seats) == [1, 1, 2, 2]
    for letter, tasks in led.seats:
        led.yields(letter, *tasks, name="f")
    led.kept()
    led.lost("B")
    led.kept()
    led.gather("ACD")
    assert sorted((letter, len(tasks)) for letter, tasks in led.seats) == [("A", 2), ("C", 2), ("D", 2)]


def others(led: Gang, letter: str) -> list[tuple[str, tuple[int, ...]]]:
    """The seats of all other nodes."""
    return [(other, tasks) for other, tasks in led.seats if other != letter]


def test_one_that_is_lost_stops_the_others_and_all_begin_anew_also_who_had_ended() -> None:
    led = seated(Gang())
    (early, early_tasks), (late, late_tasks) = others(led, "B")
    before = led.assigned[0].meeting
    led.yields(early, *early_tasks)
    assert led.done_of(1) == len(early_tasks)
    lines = led.lost("B")
    assert f"{late}: stop {' '.join(map(str, late_tasks))}" in lines
    assert led.done_of(1) == 0, "what the meeting had yielded belongs to nothing"
    led.stopped(late, *late_tasks)
    led.gather("AC")
    assert sorted(task for _, tasks in led.seats for task in tasks) == [0, 1, 2, 3]
    after = led.assigned[0].meeting
    assert before is not None
    assert after is not None
    assert before.id != after.id
    assert {spec.attempt for order in led.assigned for spec in order.attempts} == {1}


def test_a_result_whose_only_holder_dies_before_all_have_ended_has_all_begin_anew() -> None:
    led = seated(Gang())
    tasks = dict(led.seats)
    led.yields("A", *tasks["A"])
    lines = led.lost("A")
    assert sorted(line for line in lines if "stop" in line) == [
        f"{letter}: stop {' '.join(map(str, tasks[letter]))}" for letter in "BC"
    ]


def test_a_result_that_has_a_copy_is_not_lost() -> None:
    led = seated(Gang())
    tasks = dict(led.seats)
    led.yields("A", *tasks["A"])
    led.kept()
    lines = led.lost("A")
    assert [line for line in lines if "stop" in line] == []
    for letter in "BC":
        led.yields(letter, *tasks[letter])
    led.kept()
    assert len(led.view.stages) == 3


def test_results_of_two_meetings_are_never_mixed_and_a_late_one_may_make_a_former_meeting_whole() -> None:
    led = seated(Gang())
    first, tasks = led.stage, dict(led.seats)
    old = {task: led.given[first, task][1] for task in range(4)}
    for letter in "AC":
        led.yields(letter, *tasks[letter], name="old")
    led.lost("B")  # by mistake
    led.kept()
    led.gather("AC")
    new = dict(led.seats)
    led.yields("A", *new["A"], name="new")
    assert led.done_of(1) == len(new["A"])
    late = [AttemptEnd(task=t, attempt=old[t], outcome=Outcome.DONE, blobs=(blob(f"old{t}"),)) for t in tasks["B"]]
    led.seen("B")
    lines = led.ended("B", late, stage=first)
    assert led.done_of(1) == 4
    assert f"C: stop {' '.join(map(str, new['C']))}" in lines
    pinned = [led.core._phase.state.by_id[first].facts.pinned(task).blobs[0] for task in range(4)]  # type: ignore[union-attr]
    assert pinned == [blob(f"old{task}") for task in range(4)]


def test_what_crashes_has_all_begin_anew_and_is_counted_and_who_was_stopped_is_not() -> None:
    led = seated(Gang())
    tasks = dict(led.seats)
    ends = [led.end(task, stage=led.stage, outcome=Outcome.CRASHED) for task in tasks["B"]]
    lines = led.ended("B", ends, stage=led.stage)
    assert sum("stop" in line for line in lines) == 2
    for letter in "AC":
        led.stopped(letter, *tasks[letter])
    led.gather("AC")
    assert led.view.stages[1].failed_attempts == len(tasks["B"])
    assert [letter for letter, _ in led.seats] == ["A", "C"], "another node may do better"


def test_what_user_code_raises_ends_the_job() -> None:
    led = seated(Gang())
    tasks = dict(led.seats)
    led.ended("B", [led.end(t, stage=led.stage, outcome=Outcome.RAISED) for t in tasks["B"]], stage=led.stage)
    assert led.view.phase is Phase.FAILED
    assert led.view.error.startswith(f"Task {tasks['B'][0]} of stage epoch1 raised")


def test_who_is_busy_after_all_has_all_begin_anew() -> None:
    led = seated(Gang())
    tasks = dict(led.seats)
    lines = led.busy("B", *tasks["B"], stage=led.stage)
    assert sum("stop" in line for line in lines) == 2


# --- another leader -----------------------------------------------------------------------------------------------


def heir_of(led: Gang, on: str = "BC") -> Gang:
    """B leads, and sees these."""
    heir = Gang(
        led.shape,
        leader="B",
        term=1,
        history=led.batches,
        decided=led.replica.decided,
        on=on,
    )
    heir.given.update(led.given)
    return heir


def attempts(led: Gang, tasks: Sequence[int]) -> list[tuple[int, int]]:
    return [(task, led.given[led.stage, task][1]) for task in tasks]


def test_a_gang_goes_on_under_another_leader_and_what_it_yields_counts() -> None:
    led = Gang()
    led.gather("BC")
    led.reserved("A", 0)
    led.tick(PATIENCE_S)
    stage, tasks = led.stage, dict(led.seats)
    assert set(tasks) == {"B", "C"}
    led.yields("B", *tasks["B"])
    heir = heir_of(led)
    said = [*heir.holding("B", stage=stage), *heir.holding("C", *attempts(led, tasks["C"]), stage=stage)]
    assert [line for line in said if "stop" in line] == []
    heir.tick(0.5)
    assert heir.done_of(1) == len(tasks["B"])
    heir.ended("C", [led.end(t, stage=stage, blobs=(blob(f"e{t}"),)) for t in tasks["C"]], stage=stage)
    heir.kept()
    assert [s.name for s in heir.view.stages] == ["map", "epoch1", "epoch2"]


def test_a_gang_of_which_a_part_died_with_the_leader_begins_anew() -> None:
    led = seated(Gang())
    stage, tasks = led.stage, dict(led.seats)
    heir = heir_of(led)
    heir.holding("B", *attempts(led, tasks["B"]), stage=stage)
    lines = [*heir.holding("C", *attempts(led, tasks["C"]), stage=stage), *heir.tick(0.5)]
    assert sorted(line for line in lines if "stop" in line) == [
        f"{letter}: stop {' '.join(map(str, tasks[letter]))}" for letter in "BC"
    ]
    for letter in "BC":
        ends = [led.end(t, stage=stage, outcome=Outcome.STOPPED) for t in tasks[letter]]
        heir.ended(letter, ends, stage=stage)
    heir.gather("BC")
    assert sorted(task for _, given in heir.seats for task in given) == [0, 1, 2, 3]
    assert {spec.attempt for order in heir.assigned for spec in order.attempts} == {1_000}


def test_a_whole_meeting_that_was_not_pinned_is_pinned_by_the_next_leader() -> None:
    led = seated(Gang())
    for letter, tasks in led.seats:
        led.yields(letter, *tasks)
    heir = heir_of(led, on="ABC")
    for letter in "ABC":
        heir.holding(letter)
    heir.tick(0.5)
    heir.kept()
    assert [s.name for s in heir.view.stages] == ["map", "epoch1", "epoch2"]


# --- after it has been pinned -------------------------------------------------------------------------------------


def lost_after_pinning(led: Gang) -> tuple[StageId, list[tuple[str, tuple[int, ...]]]]:
    """The results of the first epoch are pinned; then A is lost, which alone had its own, in the second."""
    for letter, tasks in led.seats:
        led.yields(letter, *tasks)
    first, seats = led.stage, led.seats
    led.gather()
    assert led.view.stages[2].running == 4
    lines = led.lost("A")
    for letter, tasks in others(led, "A"):
        assert f"{letter}: stop {' '.join(map(str, tasks))}" in lines
        led.stopped(letter, *tasks)
    led.gather("BC")
    for (stage, task), (where, attempt) in list(led.given.items()):
        if stage.number == 0 and attempt == 1:  # what A had read is lost as well
            led.done(chr(where[0]), task, blobs="m")
    led.gather("BC")
    return first, seats


def test_an_epoch_whose_pinned_results_are_lost_runs_again_as_a_whole() -> None:
    led = seated(Gang(options=JobOptions(copies=1)))
    first, _ = lost_after_pinning(led)
    assert led.stage == first, "the second epoch found a result missing, so the first comes first"
    assert sorted(task for _, tasks in led.seats for task in tasks) == [0, 1, 2, 3]
    second = next(s for s, _ in led.given if s.number == 2)
    for letter, tasks in led.seats:
        led.yields(letter, *tasks)
    led.gather("BC")
    assert led.stage.number == 2
    assert led.stage.lineage == second.lineage, "the same results: nothing lost"


def test_an_epoch_that_yields_something_else_the_second_time_is_pinned_anew_with_all_of_it() -> None:
    led = seated(Gang(options=JobOptions(copies=1)))
    first, _ = lost_after_pinning(led)
    second = next(s for s, _ in led.given if s.number == 2)
    for letter, tasks in led.seats:
        led.yields(letter, *tasks, name="other")
    led.gather("BC")
    assert led.stage.number == 2
    assert led.stage.lineage != second.lineage
    facts = led.core._phase.state.by_id[first].facts  # type: ignore[union-attr]
    assert [facts.pinned(task).blobs[0] for task in range(4)] == [blob(f"other{task}") for task in range(4)]
