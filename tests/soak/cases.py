"""The cases: which cluster, which fault, and what must hold beside what always must."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from p2premap.client.session import Collector, see_through
from p2premap.control.jobs import Jobs, ListJobs
from p2premap.ids import JobId
from p2premap.tasks.job import JobOptions, JobView, Phase
from tests.netns.netlab import why_not
from tests.soak.abuse import ABUSES, abuse, gibibyte
from tests.soak.freezer import Freezer
from tests.soak.nodes import Cluster, ManyMachines, Node, OneMachine
from tests.soak.trial import Parts, Trial
from tests.soak.vertices import strike_in_supersteps

AGREE_S = 45.0
"""From the job's end, or from the healing, until every node tells the same."""
STRICT_NOTE_S = 30.0
CLI_S = 60.0


@dataclass(frozen=True)
class Case:
    """One kind of trial.

    Args:
        name: on the command line and in the results.
        run: does it.
        nodes: how many.
        repeat: trials of a full run.
        machines: each node has a machine of its own; needs root.
        targets: figure -> (median, worst) in seconds.
        work: arguments of `tests.soak.work.Work`.
        limit_s: for one trial.
        standing: its nodes stay up for the next trial of any such case.
        deep: another case does most of it; no part of the default test run.
    """

    name: str
    run: Callable[[Trial], None]
    nodes: int = 3
    repeat: int = 20
    machines: bool = False
    targets: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    work: Mapping[str, float] = field(default_factory=dict)
    limit_s: float = 90.0
    standing: bool = False
    deep: bool = False

    def cluster(self) -> Cluster:
        """Its nodes, not yet started."""
        names = [f"n{number}" for number in range(1, self.nodes + 1)]
        return ManyMachines(names) if self.machines else OneMachine(names)

    def why_not(self) -> str:
        """Why it cannot run here, or ""."""
        return why_not() if self.machines else ""


# --- faults -------------------------------------------------------------------------------------------------------


def kill_leader(trial: Trial) -> None:
    """SIGKILL to the leader's daemon: its workers end with it."""
    trial.submit(trial.any_node())
    trial.await_moment()
    victim = trial.leader()
    trial.struck(victim.kill(), victim)
    trial.see_through()
    trial.judge()
    agree(trial)


def kill_other(trial: Trial) -> None:
    """SIGKILL to a node that works for the job and does not lead it."""
    trial.submit(trial.any_node())
    trial.await_moment()
    leader = trial.leader()
    victim = trial.any_node(but=[leader])
    trial.struck(victim.kill(), victim)
    trial.see_through()
    trial.judge()
    agree(trial)


def kill_vertex_leader(trial: Trial) -> None:
    """SIGKILL to the leader of a vertex job at a random superstep."""
    strike_in_supersteps(trial, lambda trial, leader: (leader.kill(), [leader]))
    agree(trial)


def kill_vertex_other(trial: Trial) -> None:
    """The same to a node that only works for it."""

    def strike(trial: Trial, leader: Node) -> tuple[float, list[Node]]:
        victim = trial.any_node(but=[leader])
        return victim.kill(), [victim]

    strike_in_supersteps(trial, strike)
    agree(trial)


def kill_vertex_all(trial: Trial) -> None:
    """The same to all nodes; then all start again."""

    def strike(trial: Trial, leader: Node) -> tuple[float, list[Node]]:
        at = _kill_everybody(trial)
        trial.cluster.restart(list(trial.cluster.nodes))
        return at, []

    strike_in_supersteps(trial, strike)
    agree(trial)


def kill_all(trial: Trial) -> None:
    """SIGKILL to all nodes at once; then all start again."""
    trial.submit(trial.any_node())
    trial.await_moment()
    at = _kill_everybody(trial)
    trial.struck(at)
    time.sleep(trial.rng.uniform(0.0, 0.5))
    trial.cluster.restart(list(trial.cluster.nodes))
    trial.facts["up_again_s"] = round(time.monotonic() - at, 3)
    trial.see_through()
    trial.judge()
    agree(trial)
    _still_there_after_restart(trial)


def _kill_everybody(trial: Trial) -> float:
    """SIGKILL to all nodes at once; returns when."""
    nodes = list(trial.cluster.nodes.values())
    at = time.monotonic()
    for node in nodes:
        assert node.process is not None
        assert node.process.poll() is None, f"{node.name} had ended by itself"
        node.process.send_signal(signal.SIGKILL)
    for node in nodes:
        assert node.process is not None
        assert node.process.wait(30.0) == -signal.SIGKILL
    return at


def _still_there_after_restart(trial: Trial) -> None:
    """What is over stays readable everywhere, whoever has died since."""
    nodes = list(trial.cluster.nodes.values())
    for node in nodes:
        node.kill()
    trial.cluster.restart([node.name for node in nodes])
    agree(trial)
    _readable(trial)


def lose_two(trial: Trial) -> None:
    """SIGKILL to two of three nodes, for good: the third ends the job, as a fork of it."""
    _lose_two(trial, JobOptions())
    trial.see_through()
    trial.judge(both_holders=True)


def lose_two_strict(trial: Trial) -> None:
    """The same under a strict job: it says what it waits for, and goes on when one comes back."""
    victims = _lose_two(trial, JobOptions(strict=True))
    third = next(node for node in trial.cluster.nodes.values() if node not in victims)
    notes: list[str] = []

    def told() -> bool:
        with third.connect() as line:
            view = trial.view(line)
        notes.append(view.note)
        return "replicas are needed" in view.note and not view.phase.over

    trial.facts["said_after_s"] = trial.wait(told, STRICT_NOTE_S, "the third does not say what the job waits for")
    trial.facts["note"] = notes[-1]
    trial.cluster.restart([victims[0].name])
    trial.victims.remove(victims[0])
    trial.see_through()
    trial.judge(both_holders=True)


def _lose_two(trial: Trial, options: JobOptions) -> list[Node]:
    trial.submit(trial.any_node(), options)
    trial.await_moment()
    nodes = list(trial.cluster.nodes.values())
    victims = trial.rng.sample(nodes, 2)
    trial.facts["leader_lost"] = trial.leader() in victims
    ats = [node.kill() for node in victims]
    trial.struck(ats[0], *victims)
    return victims


def cut_leader(trial: Trial) -> None:
    """The leader's machine loses the network in mid-job, and has it again when the job is over."""
    _apart(trial, _cut, lead=True)


def cut_other(trial: Trial) -> None:
    """The same of a machine that works for the job and does not lead it."""
    _apart(trial, _cut, lead=False)


def freeze_leader(trial: Trial) -> None:
    """The leader's machine stands still in mid-job, and goes on when the job is over."""
    _apart(trial, _freeze, lead=True)


def freeze_other(trial: Trial) -> None:
    """The same of a machine that works for the job and does not lead it."""
    _apart(trial, _freeze, lead=False)


def _apart(trial: Trial, strike: Callable[[Trial, Node], float], *, lead: bool) -> None:
    trial.submit(trial.cluster.nodes["n1"])
    trial.await_moment(copies=3)  # the inputs are on the first machine only, until they are copied
    leader = trial.leader()
    victim = leader if lead else trial.any_node(but=[leader])
    trial.struck(strike(trial, victim), victim)
    assert victim.runs
    winner = trial.see_through(but=[victim])
    trial.judge()
    if victim.freezer is not None:
        victim.freezer.thaw()
    else:
        trial.cluster.heal()
    returned(trial, victim, winner)


def _cut(trial: Trial, victim: Node) -> float:
    at = time.monotonic()
    trial.cluster.isolate(victim)
    return at


def _freeze(trial: Trial, victim: Node) -> float:
    victim.freezer = Freezer(victim.pid)
    trial.facts["frozen_by"] = victim.freezer.how
    return victim.freezer.freeze()


def kill_two_leaders(trial: Trial) -> None:
    """SIGKILL to the leader, and to its successor once the lost replica has been replaced."""
    trial.submit(trial.any_node())
    trial.await_moment(most=0.3)
    first = trial.leader()
    first_at = first.kill()
    views: list[JobView] = []

    def replaced() -> bool:
        with trial.cluster.connect() as line:
            views.append(trial.view(line))
        others = {node.id for node in trial.cluster.nodes.values() if node is not first}
        return views[-1].leader.hex() in others and views[-1].copies == 3

    trial.facts["copies_again_s"] = trial.wait(replaced, 20.0, "the lost replica is not replaced")
    trial.facts["first_next_assigned_s"] = trial.first_of_next_term(first_at)
    second = trial.cluster.by_id(views[-1].leader)
    trial.look_at(second)
    trial.struck(second.kill(), first, second)
    trial.see_through()
    trial.judge()
    agree(trial)


def kill_at_submission(trial: Trial) -> None:
    """SIGKILL to the node that a client hands its job to, somewhere about then: there is one job, and it ends."""
    home = trial.any_node()
    delay_s = trial.rng.uniform(0.0, 0.25)
    trial.facts["killed_after_s"] = round(delay_s, 3)
    killed: list[float] = []
    timer = threading.Timer(delay_s, lambda: killed.append(home.kill()))
    timer.start()
    try:
        trial.submit(home, elsewhere=True)
    finally:
        timer.join()
    trial.struck(killed[0], home)
    trial.see_through()
    trial.judge()
    agree(trial)


def terminate_leader(trial: Trial) -> None:
    """SIGTERM to the leader: it hands over before it ends."""
    _end_leader(trial, lambda node: node.signal(signal.SIGTERM))


def drain_leader(trial: Trial) -> None:
    """`p2premap drain` of the leader."""
    _end_leader(trial, lambda node: _command(node, "drain"))


def _end_leader(trial: Trial, tell: Callable[[Node], object]) -> None:
    trial.submit(trial.any_node())
    trial.await_moment()
    victim = trial.leader()
    process = victim.process
    assert process is not None
    at = time.monotonic()
    tell(victim)
    try:
        code = process.wait(20.0)
        trial.check(code == 0, f"the node that was told to end ended with {code}")
    except subprocess.TimeoutExpired:
        trial.violations.append("the node that was told to end did not within 20 s")
        process.kill()
        process.wait()
    trial.facts["ended_after_s"] = round(time.monotonic() - at, 3)
    trial.struck(at, victim, gentle=True)
    trial.see_through()
    trial.judge()
    trial.check(
        not trial.facts["again"], f"{trial.facts['again']} ended tasks ran again although it ended in good order"
    )
    agree(trial)


def kill_clients_daemon(trial: Trial) -> None:
    """SIGKILL to the daemon that `p2premap run` talks to: the command goes on, exits with 0, and its output right."""
    home = trial.cluster.nodes["n1"]
    out = trial.cluster.work_dir / "out"
    argv = ["run", str(trial.work.file), str(trial.work.text), "-o", str(out), "--partitions", str(trial.work.reduces)]
    client = subprocess.Popen(
        [*home.prefix, sys.executable, "-m", "p2premap", "--node", "n1", *argv],
        env=home.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        trial.wait(lambda: _found_job(trial, home), 20.0, "`p2premap run` submitted nothing")
        trial.await_moment(most=0.8, copies=3)
        victim = trial.leader()
        trial.check(victim is home, "the job was not led where it was submitted")
        trial.struck(home.kill(), home)
        assert client.poll() is None, "the client had ended before the fault"
        told, _ = client.communicate(timeout=max(trial.until - time.monotonic(), 1.0))
    except subprocess.TimeoutExpired:
        client.kill()
        trial.violations.append(f"HANG: `p2premap run` did not end: {client.communicate()[0][-1000:]}")
        return
    finally:
        if client.poll() is None:
            client.kill()
            client.communicate()
    trial.facts["seconds_after_fault"] = round(time.monotonic() - trial.fault_at, 3)
    trial.check(client.returncode == 0, f"`p2premap run` exited with {client.returncode}: {told[-1000:]}")
    wrong = trial.work.wrong(_parts_in(out))
    trial.check(not wrong, f"wrong output: {wrong}")
    trial.see_through()
    trial.judge()


def _found_job(trial: Trial, home: Node) -> bool:
    with home.connect() as line:
        views = line.ask(lambda n: ListJobs(request=n), Jobs, timeout_s=5.0).views
    if not views or not views[0].stages:
        return False
    trial.job, trial.home = views[0].job, home
    trial.facts["tasks"] = views[0].stages[0].tasks + trial.work.reduces
    return True


def _parts_in(out: Path) -> dict[int, bytes]:
    return {int(path.name.removeprefix("part-")): path.read_bytes() for path in out.glob("part-*")}


def _command(node: Node, *args: str) -> None:
    done = subprocess.run(
        [*node.prefix, sys.executable, "-m", "p2premap", "--node", node.name, *args],
        env=node.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CLI_S,
    )
    assert done.returncode == 0, f"p2premap {' '.join(args)}: {done.stdout}{done.stderr}"


# --- afterwards ---------------------------------------------------------------------------------------------------


def agree(trial: Trial) -> None:
    """Soon every node that lives tells the same end of the job, and knows of no other job."""
    assert trial.last is not None
    end = trial.last
    for node in trial.cluster.nodes.values():
        if node.runs:
            trial.wait(partial(_tells, trial, node, end), AGREE_S, f"{node.name} does not tell the end that others do")


def returned(trial: Trial, victim: Node, winner: JobView) -> None:
    """The old leader is back: it steps down, tells the one final result, and what it adds changes nothing."""
    agree_s = trial.wait(
        lambda: _tells(trial, victim, winner), AGREE_S, "the old leader does not tell the end that the others decided"
    )
    trial.facts["stepped_down_s"] = round(agree_s, 3)
    time.sleep(1.0)  # for late results to arrive: nothing tells when there are none to come
    agree(trial)
    _readable(trial)
    marks = trial.work.told()
    trial.facts["late_starts"] = sum(m.what == "start" and m.at > trial.over_at for m in marks)
    trial.facts["late_ends"] = sum(m.what == "end" and m.at > trial.over_at for m in marks)


def _readable(trial: Trial) -> None:
    """The same right result can be read at every node."""
    for node in trial.cluster.nodes.values():
        parts = Parts()
        view = see_through(
            node.connect, JobId(trial.job), Collector(node.connect, parts), lambda _: None, trial.tick, known=True
        )
        wrong = trial.work.wrong(parts.parts)
        trial.check(view.phase is Phase.DONE and not wrong, f"read at {node.name}: {view.phase.value}, {wrong}")


def _tells(trial: Trial, node: Node, end: JobView) -> bool:
    with node.connect() as line:
        view = trial.view(line)
        jobs = line.ask(lambda n: ListJobs(request=n), Jobs, timeout_s=5.0).views
    same = (view.phase, view.part_count, [s.done for s in view.stages]) == (
        end.phase,
        end.part_count,
        [s.done for s in end.stages],
    )
    if end.fork:  # the fork has a line of its own
        return same and {job.phase for job in jobs} == {end.phase}
    return same and {(job.job, job.phase) for job in jobs} == {(end.job, end.phase)}


FAST = {"next_assigned_s": (0.5, 3.0)}
SLOW = {"next_assigned_s": (2.5, 6.0)}
CLI_WORK = {"least_s": 0.15, "most_s": 0.4}

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("leader-3", kill_leader, repeat=50, targets=FAST),
        Case("leader-5", kill_leader, nodes=5, repeat=50, targets=FAST),
        Case("two-first", kill_leader, nodes=2, repeat=50),
        Case("two-second", kill_other, nodes=2, repeat=50),
        Case("other-3", kill_other, repeat=20),
        Case("vertex-leader", kill_vertex_leader, repeat=25),
        Case("vertex-other", kill_vertex_other, repeat=25, deep=True),
        Case("vertex-restart", kill_vertex_all, repeat=10, deep=True),
        Case("cut-3", cut_leader, machines=True, targets=SLOW),
        Case("frozen-3", freeze_leader, machines=True, targets=SLOW),
        Case("cut-other", cut_other, machines=True),
        Case("frozen-other", freeze_other, machines=True),
        Case("again-5", kill_two_leaders, nodes=5, work={"least_s": 0.2, "most_s": 0.6}),
        Case("submit-3", kill_at_submission),
        Case("restart-3", kill_all),
        Case("lost-two", lose_two, repeat=20),
        Case("lost-two-strict", lose_two_strict, repeat=20),
        Case("client-3", kill_clients_daemon, work=CLI_WORK),
        Case("client-machines", kill_clients_daemon, machines=True, work=CLI_WORK),
        Case("sigterm-3", terminate_leader),
        Case("drain-3", drain_leader),
        *(Case(f"abuse-{name}", partial(abuse, name=name), nodes=2, standing=True) for name in ABUSES),
        Case("abuse-gibibyte", gibibyte, nodes=2, standing=True, limit_s=220.0),
    )
}
