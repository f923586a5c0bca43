"""A small real network of Linux namespaces with faults, on one machine.

::

    with Lab(3) as lab:                      # nodes 1..3, 10.77.0.1 .. 10.77.0.3, one Ethernet segment
        process = lab.popen(1, [sys.executable, "-m", "p2premap", "node"])
        lab.cut(1, 2, one_way=True)          # frames 1 -> 2 are dropped, 2 -> 1 pass
        lab.partition([1], [2, 3])
        lab.loss(20)
        lab.heal()
        lab.unplug(3)                        # the cable: the carrier goes
        lab.plug(3)

Two fabrics. "bridge" is the kernel's own, with drops by nftables: fast, but without delay, which needs an option that
many kernels lack. "tap" is a switch in Python (`tapswitch.py`): delay, jitter, reordering, duplicates, corruption,
loss, cuts, a slow link, at 10,000 to 20,000 frames a second.

Needs root and iproute2; `why_not` says in a sentence what is missing. Everything lives in namespaces named NAME-sw (the
switch) and NAME-n1, NAME-n2, ...: the machine's own gets no interface, no route, no rule. `down` deletes exactly these,
and ends exactly the processes that this lab started.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def sh(*argv: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; raises RuntimeError with what it said where it fails and `check` is set."""
    done = subprocess.run([str(word) for word in argv], text=True, capture_output=True, check=False, **options)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def why_not(fabric: str = "bridge") -> str:
    """ "" when a lab can be built here, else one sentence that says why not."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "the program `ip` is missing (Debian: apt-get install -y iproute2)"
    if fabric == "bridge" and not shutil.which("nft"):
        return "the program `nft` is missing (Debian: apt-get install -y nftables)"
    if fabric == "tap" and not Path("/dev/net/tun").exists():
        return "no /dev/net/tun here (the kernel needs CONFIG_TUN)"
    probe = f"nl{os.getpid()}-probe"
    made = sh("ip", "netns", "add", probe, check=False)
    if made.returncode:
        return f"root may not make a namespace here: {made.stderr.strip()}"
    bridge = sh("ip", "-n", probe, "link", "add", "b0", "type", "bridge", check=False)
    sh("ip", "netns", "del", probe, check=False)
    return f"this kernel has no bridge: {bridge.stderr.strip()}" if bridge.returncode else ""


class Lab:
    """One Ethernet segment with a namespace for each node.

    Args:
        nodes: how many, numbered from 1.
        fabric: "bridge" or "tap".
        addressed: the nodes that get an address at the start; all by default.
    """

    def __init__(self, nodes: int, *, fabric: str = "bridge", addressed: Sequence[int] | None = None) -> None:
        self.count, self.fabric = nodes, fabric
        # a run that was killed may have left namespaces, and this process may have its number
        self.name = f"nl{os.getpid()}-{os.urandom(2).hex()}"
        self.switch_namespace = f"{self.name}-sw"
        self.processes: list[subprocess.Popen[Any]] = []
        self.faults: dict[str, Any] = {}
        self._addressed = set(self.nodes() if addressed is None else addressed)
        self._switch: subprocess.Popen[str] | None = None
        self._control: Path | None = None

    def namespace(self, node: int) -> str:
        """The name of a node's namespace."""
        return f"{self.name}-n{node}"

    def ip(self, node: int) -> str:
        """A node's IPv4 address."""
        return f"10.77.0.{node}"

    def nodes(self) -> range:
        """All nodes' numbers."""
        return range(1, self.count + 1)

    # --- build and remove -------------------------------------------------------------------------------------------

    def __enter__(self) -> Lab:
        taken = set(sh("ip", "netns", "list").stdout.split())
        if taken & {self.switch_namespace, *map(self.namespace, self.nodes())}:
            raise RuntimeError(f"a lab named {self.name} is up already")
        try:
            sh("ip", "netns", "add", self.switch_namespace)
            for node in self.nodes():
                sh("ip", "netns", "add", self.namespace(node))
                sh("ip", "-n", self.namespace(node), "link", "set", "lo", "up")
            (self._up_bridge if self.fabric == "bridge" else self._up_tap)()
            for node in self.nodes():
                sh("ip", "-n", self.namespace(node), "link", "set", "eth0", "up")
                if node in self._addressed:
                    self.give_address(node)
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def give_address(self, node: int) -> None:
        """One IPv4 address, and a default route, as a machine on a LAN has."""
        namespace = self.namespace(node)
        sh("ip", "-n", namespace, "addr", "add", f"{self.ip(node)}/24", "brd", "+", "dev", "eth0")
        sh("ip", "-n", namespace, "route", "replace", "default", "dev", "eth0")

    def _up_bridge(self) -> None:
        ip = ("ip", "-n", self.switch_namespace)
        # without snooping, multicast is flooded as on a plain switch
        sh(*ip, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0")
        sh(*ip, "link", "set", "br0", "up")
        for node in self.nodes():
            veth = ("type", "veth", "peer", "name", "eth0", "netns", self.namespace(node))
            sh(*ip, "link", "add", f"p{node}", *veth)
            sh(*ip, "link", "set", f"p{node}", "master", "br0", "up")
        self.nft("add table bridge lab; add chain bridge lab cuts { type filter hook forward priority 0; }")

    def _up_tap(self) -> None:
        descriptor, control = tempfile.mkstemp(prefix=self.name, suffix=".json")
        os.close(descriptor)
        self._control = Path(control)
        self._write_faults()
        command = [sys.executable, str(HERE / "tapswitch.py"), self.name, str(self.count), control]
        self._switch = subprocess.Popen(
            ["ip", "netns", "exec", self.switch_namespace, *command], stdout=subprocess.PIPE, text=True
        )
        assert self._switch.stdout is not None
        if self._switch.stdout.readline().strip() != "ready":
            raise RuntimeError("the tap switch did not start")

    def down(self) -> None:
        """End this lab's processes and delete its namespaces."""
        for process in [*self.processes, *([self._switch] if self._switch else [])]:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        self.processes, self._switch = [], None
        there = set(sh("ip", "netns", "list", check=False).stdout.split())
        for namespace in (*map(self.namespace, self.nodes()), self.switch_namespace):
            if namespace in there:
                sh("ip", "netns", "del", namespace, check=False)
        if self._control is not None:
            self._control.unlink(missing_ok=True)

    # --- processes --------------------------------------------------------------------------------------------------

    def popen(self, node: int, argv: Sequence[object], **options: Any) -> subprocess.Popen[Any]:
        """Start a process on a node; it ends with the lab at the latest."""
        command = ["ip", "netns", "exec", self.namespace(node), *map(str, argv)]
        process = subprocess.Popen(command, **options)
        self.processes.append(process)
        return process

    def run(self, node: int, *argv: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on a node to its end."""
        return sh("ip", "netns", "exec", self.namespace(node), *argv, check=check, **options)

    # --- faults -----------------------------------------------------------------------------------------------------

    def nft(self, text: str, node: int | None = None) -> None:
        """Add rules in the switch, or in a node's own namespace."""
        namespace = self.switch_namespace if node is None else self.namespace(node)
        sh("ip", "netns", "exec", namespace, "nft", "-f", "-", input=text)

    def cut(self, first: int, second: int, *, one_way: bool = False) -> None:
        """Drop every frame first -> second, and second -> first unless `one_way`."""
        for source, target in [(first, second), *([] if one_way else [(second, first)])]:
            if self.fabric == "bridge":
                self.nft(f'add rule bridge lab cuts iifname "p{source}" oifname "p{target}" counter drop')
            else:
                self.faults.setdefault("cut", []).append([source, target])
        self._write_faults()

    def partition(self, *groups: Sequence[int]) -> None:
        """No frame passes between two groups."""
        for first in groups:
            for second in groups:
                if first is not second:
                    for source in first:
                        for target in second:
                            self.cut(source, target, one_way=True)

    def loss(self, percent: float, node: int | None = None) -> None:
        """Lose this share of the frames; of those that `node` sends, if one is named (bridge only)."""
        if self.fabric == "bridge":
            source = f'iifname "p{node}" ' if node else ""
            share = round(percent * 10)
            self.nft(f"add rule bridge lab cuts {source}numgen random mod 1000 < {share} counter drop")
        else:
            self.link(loss=percent / 100)

    def link(self, **faults: float) -> None:
        """tap only: delay, jitter (seconds), loss, dup, reorder, corrupt (0 to 1), rate (bytes/s)."""
        assert self.fabric == "tap", "delay and the like need the tap fabric"
        self.faults.update(faults)
        self._write_faults()

    def heal(self) -> None:
        """No faults any more."""
        if self.fabric == "bridge":
            self.nft("flush chain bridge lab cuts")
        self.faults = {}
        self._write_faults()

    def _write_faults(self) -> None:
        if self._control is not None:
            new = self._control.with_suffix(".new")
            new.write_text(json.dumps(self.faults))
            new.replace(self._control)
            time.sleep(0.05)  # the switch looks every 20 ms

    def unplug(self, node: int) -> None:
        """Pull the cable."""
        self._set_link(node, "down")

    def plug(self, node: int) -> None:
        """Put it in again."""
        self._set_link(node, "up")

    def _set_link(self, node: int, state: str) -> None:
        if self.fabric == "bridge":
            sh("ip", "-n", self.switch_namespace, "link", "set", f"p{node}", state)
            return
        sh("ip", "-n", self.namespace(node), "link", "set", "eth0", state)
        if state == "up":
            sh("ip", "-n", self.namespace(node), "route", "replace", "default", "dev", "eth0")
