"""Real daemons on a real network of namespaces: forming, strangers, and a node that nobody can dial."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import eventually
from tests.netns.conftest import REPOSITORY
from tests.netns.netlab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.slow]

P2PREMAP = (sys.executable, "-m", "p2premap")
# each machine has an id of its own, as labs that share home directories are told apart by it
AS_MACHINE = 'if [ -e /etc/machine-id ]; then mount --bind "$P2PREMAP_HOME/machine-id" /etc/machine-id; fi; exec "$@"'
NOBODY_CAN_DIAL = """
add table inet nat; add chain inet nat door { type filter hook input priority 0; };
add rule inet nat door iifname "eth0" ct state established,related accept;
add rule inet nat door iifname "eth0" udp dport 5353 accept;
add rule inet nat door iifname "eth0" meta l4proto { tcp, udp } drop
"""

WAITS = """
import pathlib, time

def map(key, line):
    while not pathlib.Path({go!r}).exists():
        time.sleep(0.02)
    yield line, 1
"""


class Machine:
    """A node of the lab as a machine with a user: a home, a daemon, a shell."""

    def __init__(self, lab: Lab, number: int) -> None:
        self.lab, self.number, self.name = lab, number, f"n{number}"
        # short: Unix sockets are below it
        self.home = Path(tempfile.mkdtemp(prefix="p2p-", dir="/tmp"))
        (self.home / "machine-id").write_text(f"{number:032x}\n")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("P2PREMAP_", "XDG_"))}
        self.environment = {**kept, "P2PREMAP_HOME": str(self.home), "TERM": "dumb", "PYTHONPATH": str(REPOSITORY)}
        self.daemon: subprocess.Popen[Any] | None = None

    def _argv(self, *args: str) -> tuple[str, ...]:
        return ("sh", "-c", AS_MACHINE, "sh", *P2PREMAP, *args)

    def start(self, *options: str) -> None:
        """Start the daemon, with two slots however many CPUs there are; returns once it says that it is up."""
        argv = self._argv("node", "--name", self.name, "--slots", "2", *options)
        self.daemon = self.lab.popen(self.number, argv, env=self.environment, stderr=subprocess.PIPE)
        assert self.daemon.stderr is not None
        line = self.daemon.stderr.readline()
        assert b"is up" in line, line

    def tried(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, however that is."""
        return self.lab.run(self.number, *self._argv(*args), env=self.environment, check=False, timeout=120)

    def run(self, *args: str, code: int = 0) -> str:
        """A command to its end; its output."""
        done = self.tried(*args)
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done.stdout + done.stderr if args[-1] != "--json" else done.stdout

    def ask(self, *args: str, code: int = 0) -> Any:
        """What a command tells with --json."""
        return json.loads(self.run(*args, "--json", code=code))

    def findings(self) -> list[dict[str, Any]]:
        """What the doctor says; a busy machine may hear some of its probes too late."""
        done = self.tried("doctor", "--json")
        found: list[dict[str, Any]] = json.loads(done.stdout)
        assert done.returncode == (0 if all(finding["ok"] for finding in found) else 1)
        return found

    def members(self) -> set[str]:
        """Names of the members that are alive, as this one sees it."""
        return {view["name"] for view in self.ask("nodes") if view["state"] == "alive"}


@pytest.fixture
def machines(make_lab: Callable[..., Lab]) -> Any:
    """Three machines on one network, nothing running."""
    lab = make_lab(3)
    made = [Machine(lab, number) for number in lab.nodes()]
    yield made
    lab.down()
    for machine in made:
        shutil.rmtree(machine.home, ignore_errors=True)


def everybody(machines: list[Machine]) -> bool:
    names = {machine.name for machine in machines}
    return all(machine.members() == names for machine in machines)


def form(machines: list[Machine]) -> None:
    """Start all, invite at the first, join at the others: no address is typed."""
    for machine in machines:
        machine.start()
    first, *others = machines
    token = first.ask("invite", "--uses", str(len(others)))["token"]
    for machine in others:
        machine.run("join", token)


def test_three_machines_form_after_one_join_each(machines):
    form(machines)
    eventually(lambda: everybody(machines))

    def everything_works() -> bool:
        done = machines[2].tried("doctor")
        return done.returncode == 0 and done.stdout.strip().endswith("Everything works.")

    eventually(everything_works)


def test_machines_with_one_secret_find_each_other_by_mdns_alone(machines):
    """As after a power cut, when no address is as it was."""
    first, *others = machines
    first.start()
    first.ask("invite")  # opens it to the network
    for machine in others:
        shutil.copytree(first.home / "config", machine.home / "config")
        assert not (machine.home / "config" / "network").read_text(), "an address is known"
        machine.start()
    eventually(lambda: everybody(machines))


def test_a_late_machine_and_one_that_comes_back_are_taken_in(machines):
    form(machines[:2])
    eventually(lambda: everybody(machines[:2]))
    machines[2].start()
    machines[2].run("join", machines[0].ask("invite")["token"])
    eventually(lambda: everybody(machines))
    machines[1].daemon.terminate()
    machines[1].daemon.wait()
    eventually(lambda: machines[0].members() == {"n1", "n3"})
    machines[1].start()
    eventually(lambda: everybody(machines))


def test_another_cluster_is_shown_and_never_joined(machines):
    ours, friend, theirs = machines
    form([ours, friend])
    eventually(lambda: everybody([ours, friend]))
    theirs.start()
    theirs.ask("invite")
    tags = {machine.name: machine.ask("status")["cluster"] for machine in machines}
    assert tags["n1"] == tags["n2"] != tags["n3"]
    eventually(lambda: [f["cluster"] for f in ours.ask("status")["foreign"]] == [tags["n3"]])
    eventually(lambda: [f["cluster"] for f in theirs.ask("status")["foreign"]] == [tags["n1"]])
    assert "p2premap join TOKEN" in theirs.ask("status")["foreign"][0]["hint"]
    alone = [f for f in theirs.findings() if f["about"] == "other clusters"]
    assert "This node is alone in its own." in alone[0]["text"]
    assert ours.members() == {"n1", "n2"}
    assert theirs.members() == {"n3"}


def test_a_node_that_nobody_can_dial_is_a_full_member(machines, tmp_path):
    first, second, hidden = machines
    hidden.lab.nft(NOBODY_CAN_DIAL, node=hidden.number)
    form(machines)
    eventually(lambda: everybody(machines))

    def the_only_trouble() -> dict[str, Any] | None:
        wrong = [finding for finding in hidden.findings() if not finding["ok"]]
        return wrong[0] if len(wrong) == 1 and "n1, n2 got no answer from port" in wrong[0]["text"] else None

    told = eventually(the_only_trouble)
    assert told is not None
    assert told["remedy"].startswith("sudo nft 'insert rule inet nat door")
    # it leads a job whose work and result are elsewhere, and works for one that another leads
    text = tmp_path / "text"
    text.write_text("so it goes\n" * 200_000)
    example = str(REPOSITORY / "examples" / "wordcount.py")
    for number, machine in enumerate((hidden, first)):
        machine.run("run", example, str(text), "-o", str(tmp_path / f"out{number}"))
        written = b"".join(part.read_bytes() for part in sorted((tmp_path / f"out{number}").iterdir()))
        assert written.count(b"200000") == 3
    eventually(lambda: [view["name"] for view in second.ask("jobs")] == ["wordcount"] * 2)
    eventually(lambda: "No answer in time" not in second.run("jobs"))
    eventually(lambda: everybody(machines))


def test_a_command_in_an_open_cluster_outlives_the_node_of_its_machine(machines, tmp_path):
    """Nothing on the disk says which cluster that was: who has talked to the node knows."""
    first, second, _ = machines
    for machine in (first, second):
        machine.start("--open", "class")
    eventually(lambda: everybody([first, second]))
    text, job, go = tmp_path / "text", tmp_path / "job.py", tmp_path / "go"
    text.write_text("so it goes\n" * 1_000)
    job.write_text(WAITS.format(go=str(go)))
    argv = ("run", str(job), str(text), "-o", str(tmp_path / "out"), "--json")
    running = first.lab.popen(1, first._argv(*argv), env=first.environment, stdout=subprocess.PIPE)
    eventually(lambda: [(view["phase"], view["copies"]) for view in second.ask("jobs")] == [("running", 2)])
    eventually(lambda: "copied" not in second.ask("jobs")[0]["note"])  # the input is on the second machine, too
    first.daemon.kill()
    go.touch()
    out, _ = running.communicate(timeout=60)
    assert (running.returncode, json.loads(out)["phase"]) == (0, "done")


def test_an_evicted_machine_is_out_until_it_joins_anew_and_is_who_it_was(machines):
    first, second, third = machines
    form(machines)
    eventually(lambda: everybody(machines))
    before = third.ask("status")
    done = first.ask("rotate", "--evict", "n3")
    assert (done["switched"], done["evicted"]) == (["n1", "n2"], ["n3"])
    eventually(lambda: first.members() == second.members() == {"n1", "n2"})
    eventually(lambda: "secret was rotated" in " ".join(third.ask("status")["warnings"]))
    assert "before a rotation" in " ".join(first.ask("status")["warnings"])
    # it was told to join, and is not kept from it by members that it only suspects to be gone
    third.run("join", first.ask("invite")["token"])
    eventually(lambda: everybody(machines))
    after = third.ask("status")
    assert (after["node"]["id"], after["key_epoch"], after["cluster"]) == (
        before["node"]["id"],
        2,
        first.ask("status")["cluster"],
    )
    eventually(lambda: not third.ask("status")["warnings"])
