"""Dialogues of whole cores: what a job's home, its successor and its client see."""

from __future__ import annotations

from p2premap.config import ElectionConfig
from p2premap.election import events, messages
from p2premap.ids import JOB_ID_BYTES, Ballot, JobId
from tests.election.world import JOB, World


def test_a_job_of_one_node_is_created_led_and_protected_by_its_own_disk():
    world = World("a")
    world.create("a", "a")
    assert [e.copies for _, e in world.heard(events.Created)] == [1]
    [(_, lead)] = world.heard(events.Lead)
    assert (lead.ballot, lead.history, lead.decided) == (Ballot(0, 0, world.ids["a"]), (), {})
    world.put("a", events.Append(job=JOB, batch=b"one"))
    world.put("a", events.Append(job=JOB, batch=b"two"))
    assert [e.serial for _, e in world.heard(events.Protected)] == [0, 1, 2]
    world.put("a", events.Propose(job=JOB, cell="final", value=b"v"))
    assert [(e.cell, e.value) for _, e in world.heard(events.Decided)] == [("final", b"v")]
    world.put("a", events.Propose(job=JOB, cell="final", value=b"other"))
    assert {e.value for _, e in world.heard(events.Decided)} == {b"v"}


def test_created_tells_the_copies_that_there_are():
    world = World("abc")
    world.deaf.add("c")
    world.create("a", "abc")
    assert world.heard(events.Created) == [], "c may yet answer"
    world.run(1.5)
    assert [e.copies for _, e in world.heard(events.Created)] == [2]
    world.deaf.clear()
    world.run(1.0)
    state = world.cores["a"].job(JOB)
    assert state is not None
    assert state.copies == 3, "it has caught up"


def test_a_full_disk_refuses_a_job_and_nobody_keeps_it():
    world = World("ab")
    world.full.add("a")
    world.create("a", "ab")
    assert [e.text for _, e in world.heard(events.CreateFailed)] == ["The disk is full."]
    assert world.cores["a"].jobs() == world.cores["b"].jobs() == []
    world.full.clear()
    world.run(1.0)
    world.create("a", "ab")
    assert [e.copies for _, e in world.heard(events.Created)] == [2]


def test_a_successor_begins_with_all_facts_in_order_and_all_cells():
    world = World("abc")
    world.create("a", "abc")
    for n in range(20):
        world.put("a", events.Append(job=JOB, batch=b"%d" % n))
    world.put("a", events.Propose(job=JOB, cell="manifest/0/0", value=b"m"))
    world.crash("a")
    world.run(0.5)
    assert world.leader() == "b"
    name, lead = world.heard(events.Lead)[-1]
    assert (name, lead.ballot) == ("b", Ballot(0, 1, world.ids["b"]))
    assert lead.history == tuple(b"%d" % n for n in range(20))
    assert lead.decided == {"manifest/0/0": b"m"}
    assert world.cores["c"].leader_of(JOB) == world.ids["b"]


def test_a_leader_that_was_cut_off_is_deposed_when_it_hears_of_its_successor():
    world = World("abc")
    world.create("a", "abc")
    world.deaf.update("a")
    for other in "bc":
        world.put(other, events.PeerGone(node=world.ids["a"]))
    world.run(0.5)
    assert world.heard(events.Deposed) == []
    world.deaf.clear()
    for other in "bc":
        world.put(other, events.PeerSeen(node=world.ids["a"], boot=world.cores["a"]._context.boot))
    world.run(0.5)
    assert [name for name, _ in world.heard(events.Deposed)] == ["a"]
    assert world.leader() == "b"


def test_a_leader_whose_process_restarts_unnoticed_is_succeeded_at_once():
    world = World("abc")
    world.create("a", "abc")
    world.run(1.0)
    del world.cores["a"]
    world.start("a")
    world.run(0.1)
    assert world.leader() == "b"


def test_of_what_is_over_only_so_much_is_kept():
    world = World("a", config=ElectionConfig(concluded_max=3))
    for n in range(1, 6):
        job = JobId(bytes([n]) * JOB_ID_BYTES)
        world.create("a", "a", job=job, key=b"%d" % n)
        world.put("a", events.Conclude(job=job, view=b"done"))
    assert [job[0] for job in world.cores["a"].jobs()] == [3, 4, 5]
    world.put("a", events.Tick())
    assert sorted(job[0] for job in world.disks["a"].jobs) == [3, 4, 5]


def test_all_nodes_may_die_at_once():
    world = World("abc")
    world.create("a", "abc")
    world.put("a", events.Append(job=JOB, batch=b"fact"))
    for name in "abc":
        world.crash(name)
    for name in "abc":
        world.start(name)
    world.run(5.0)
    assert world.leader()
    assert world.heard(events.Lead)[-1][1].history == (b"fact",)


def test_a_dead_member_is_replaced_and_the_job_keeps_its_facts():
    world = World("abcd", config=ElectionConfig(replace_s=1.0))
    world.create("a", "abc")
    world.put("a", events.Append(job=JOB, batch=b"fact"))
    world.crash("c")
    world.run(5.0)
    record = world.disks["a"].jobs[JOB]
    assert set(record.members) == {world.ids[name] for name in "abd"}
    assert record.promised.epoch == 1
    world.start("c")
    world.run(5.0)
    assert [name for name, _ in world.heard(events.Dropped)] == ["c"]
    world.crash("a")
    world.run(3.0)
    assert world.heard(events.Lead)[-1][1].history == (b"fact",)


def test_a_job_that_has_one_copy_gets_more_when_nodes_come():
    world = World("a")
    ids = (world.ids["a"],)
    world.put("a", events.CreateJob(request=1, job=JOB, members=ids, key=b"k", spec=b"s", strict=False, copies=2))
    world.put("a", events.Append(job=JOB, batch=b"fact"))
    world.ids["b"], world.disks["b"], world.lives["b"] = b"b" * 16, type(world.disks["a"])(), ()
    world.names[world.ids["b"]] = "b"
    world.start("b")
    world.run(3.0)
    state = world.cores["a"].job(JOB)
    assert state is not None
    assert (state.copies, len(state.record.members)) == (2, 2)
    assert world.disks["b"].batches[JOB]


def test_of_two_the_second_forks_when_the_first_is_gone_for_certain_and_the_fork_comes_home():
    world = World("ab")
    world.create("a", "ab")
    world.put("a", events.Append(job=JOB, batch=b"before"))
    world.crash("a")
    world.run(0.5)
    [(name, forked)] = world.heard(events.Forked)
    assert (name, forked.origin) == ("b", JOB)
    assert world.heard(events.Lead)[-1][1].history == (b"before",)
    world.put("b", events.Append(job=forked.job, batch=b"meanwhile"))
    world.put("b", events.Propose(job=forked.job, cell="m", value=b"v"))
    world.start("a")
    world.run(10.0)
    lead = world.heard(events.Lead)[-1][1]
    assert (lead.job, lead.history) == (JOB, (b"before", b"meanwhile"))
    assert ("m", b"v") in {(e.cell, e.value) for _, e in world.heard(events.Decided) if e.job == JOB}
    assert {e.job for _, e in world.heard(events.Dropped)} == {forked.job}


def test_a_strict_job_says_what_it_waits_for():
    world = World("abc")
    world.create("a", "abc", strict=True)
    world.crash("a")
    world.crash("b")
    world.run(20.0)
    assert world.heard(events.Forked) == []
    state = world.cores["c"].job(JOB)
    assert state is not None
    assert state.note.startswith("2 of 3 replicas are needed; no answer from ")
    known = [e for name, e in world.heard(events.LeaderKnown) if name == "c"][-1]
    assert (known.leader, known.note) == (None, state.note)


def test_a_job_that_is_over_keeps_its_last_view_in_place_of_its_facts():
    world = World("abc")
    world.create("a", "abc")
    world.put("a", events.Append(job=JOB, batch=b"fact"))
    world.crash("c")
    world.put("a", events.Conclude(job=JOB, view=b"done"))
    assert [name for name, _ in world.heard(events.Concluded)] == ["a", "b"]
    assert JOB not in world.disks["a"].batches
    world.start("c")
    world.run(5.0)
    assert world.disks["c"].jobs[JOB].view == b"done", "it hears of that when it stands"
    world.put("a", events.Forget(job=JOB))
    world.run(1.0)
    assert world.cores["a"].job(JOB) is None


def test_a_key_is_found_at_any_member():
    world = World("abc")
    world.create("a", "ab", key=b"mine")
    assert world.cores["b"].find(b"mine") == JOB
    assert world.cores["c"].find(b"mine") is None
    world.put("c", events.FindJob(request=7, key=b"mine"))
    world.put("c", events.FindJob(request=8, key=b"another"))
    (found, none) = [e for _, e in world.heard(events.KeyAnswer)]
    assert (found.request, found.job) == (7, JOB)
    assert found.spec == world.cores["a"].job(JOB).record.spec != b"", "with what was submitted as that job"
    assert (none.request, none.job, none.spec) == (8, None, b"")
    world.deaf.update("ab")
    world.put("c", events.FindJob(request=9, key=b"mine"))
    world.run(2.0)
    assert world.heard(events.KeyAnswer)[-1][1].job is None, "nobody answered within a round"


def test_a_job_that_nobody_was_told_of_gives_way_to_the_one_that_its_client_was_told_of():
    world = World("ab")
    world.deaf.update("ab")
    world.create("a", "ab", key=b"mine")
    world.crash("a")
    assert world.heard(events.Created) == []
    assert not world.disks["a"].jobs[JOB].acknowledged
    world.deaf.clear()
    other = JobId(b"o" * JOB_ID_BYTES)
    world.create("b", "b", job=other, key=b"mine")
    world.start("a")
    world.run(5.0)
    assert JOB not in world.disks["a"].jobs
    assert [e.job for _, e in world.heard(events.Dropped)] == [JOB]
    assert world.leader(other) == "b"


def test_a_job_that_nobody_was_told_of_goes_on_where_no_other_has_its_key():
    world = World("ab")
    world.deaf.update("ab")
    world.create("a", "ab", key=b"mine")
    world.crash("a")
    world.deaf.clear()
    world.start("a")
    world.run(5.0)
    assert world.leader() == "a"
    assert world.disks["a"].jobs[JOB].acknowledged


def test_who_is_about_to_go_has_another_lead():
    world = World("abc")
    world.create("a", "abc")
    world.put("a", events.Append(job=JOB, batch=b"fact"))
    world.put("a", events.HandOver())
    world.run(0.1)
    assert world.leader() in ("b", "c")
    assert [name for name, _ in world.heard(events.Deposed)] == ["a"]


def test_heartbeats_of_all_jobs_share_a_message():
    world = World("ab")
    jobs = [JobId(bytes([n]) * JOB_ID_BYTES) for n in range(1, 6)]
    for n, job in enumerate(jobs):
        world.create("a", "ab", job=job, key=b"%d" % n)
    sent: list[messages.Beats] = []
    core = world.cores["a"]
    for _ in range(4):
        world.now = core.deadline()
        for effect in core.step(world.now, events.Tick()):
            if isinstance(effect, events.ToReplica) and isinstance(effect.message, messages.Beats):
                sent.append(effect.message)
    assert sent
    assert all(len(beats.beats) == len(jobs) for beats in sent)


def test_what_every_living_member_has_does_not_stay_in_memory():
    world = World("abc")
    world.create("a", "abc")
    for _ in range(1_000):
        world.put("a", events.Append(job=JOB, batch=b"x" * 100))
    leadership = world.cores["a"]._table.all[JOB].leadership
    assert leadership is not None
    assert leadership.protected == 1_000
    assert len(leadership._recent) == 0


def test_a_leader_that_stays_leader_keeps_its_tasks_when_the_replica_set_changes():
    world = World("abcd")
    world.create("a", "abc")
    for batch in (b"one", b"two"):
        world.put("a", events.Append(job=JOB, batch=batch))
    leads = len(world.heard(events.Lead))
    world.crash("c")
    world.run(6.0)
    state = world.cores["a"].job(JOB)
    assert state is not None
    assert (state.ballot.epoch, state.leads) == (1, True)
    assert world.ids["d"] in state.record.members
    assert (len(world.heard(events.Lead)), world.heard(events.Deposed)) == (leads, [])
    world.put("a", events.Append(job=JOB, batch=b"three"))
    world.put("a", events.Propose(job=JOB, cell="m", value=b"v"))
    assert [e.serial for _, e in world.heard(events.Protected)][-1] == 3, "serials count on"
    assert [(e.cell, e.value) for name, e in world.heard(events.Decided) if name == "a"] == [("m", b"v")]
    world.crash("a")
    world.run(3.0)
    assert world.leader()
    lead = world.heard(events.Lead)[-1][1]
    assert lead.history == (b"one", b"two", b"three")
    assert lead.decided == {"m": b"v"}


class SlowToPromise(World):
    """Node d is asked for a promise in the second replica set, and does not hear it."""

    def _perform(self, name: str, effect: events.ElectionEffect) -> None:
        asked = effect.message if isinstance(effect, events.ToReplica) and self.names[effect.node] == "d" else None
        if not (isinstance(asked, messages.Prepare) and asked.ballot.epoch):
            super()._perform(name, effect)


def test_tasks_are_given_up_where_the_new_replica_set_brings_facts_that_they_do_not_have():
    world = SlowToPromise("abcd", config=ElectionConfig(replace_s=3.0))
    world.create("a", "abc")
    world.put("a", events.Append(job=JOB, batch=b"one"))
    world.crash("a")
    world.run(0.5)
    assert world.leader() == "b"
    world.deaf.add("c")
    world.put("b", events.Append(job=JOB, batch=b"only b's"))
    world.crash("b")
    world.deaf.clear()
    world.start("a")
    world.run(2.5)
    [leader] = {"a", "c"} & {world.leader()}
    assert world.heard(events.Lead)[-1][1].history == (b"one",)
    world.put(leader, events.Append(job=JOB, batch=b"two"))
    world.start("b")
    world.run(0.5)
    world.crash(next(iter({"a", "c"} - {leader})))
    world.run(6.0)
    assert world.leader() == leader
    assert world.disks[leader].jobs[JOB].promised.epoch == 1
    lead = world.heard(events.Lead)[-1][1]
    assert lead.ballot.epoch == 1, "whoever leads next takes b's before anything that is new"
    assert sorted(lead.history) == [b"one", b"only b's", b"two"]
