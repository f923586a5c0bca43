"""What a user wants to see happen to a job in a virtual cluster, and what did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from p2premap.errors import ConfigError

NODES_MAX: Final = 50

DONE: Final = "done"


@dataclass(frozen=True, slots=True)
class JobDeed:
    """Something that happened, in a few words."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWishes:
    """What to simulate.

    Args:
        job: a map/reduce job file.
        inputs: paths, as for `p2premap run`.
        slots: worker processes of each node.
        task_s: what one task takes, in virtual seconds, on average.
        kill_leader: so many times, whoever leads the job loses power in the middle of it, and stays away.
        kill: so many other machines do.
        loss: of datagrams and packets, in percent.
    """

    job: str
    inputs: tuple[str, ...] = ()
    nodes: int = 7
    seed: int = 1
    slots: int = 2
    task_s: float = 0.5
    kill_leader: int = 0
    kill: int = 0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise ConfigError(f"--nodes is {self.nodes}; a job can be simulated on 1 to {NODES_MAX} nodes.")
        if (gone := self.kill_leader + self.kill) >= self.nodes:
            raise ConfigError(f"{gone} of {self.nodes} nodes are to go; at least one must stay.")

    def command(self) -> str:
        """The command line that asks for just this."""
        words = ["p2premap sim", self.job, *self.inputs, f"--nodes {self.nodes} --seed {self.seed}"]
        words += [f"--slots {self.slots}"] if self.slots != 2 else []
        words += [f"--task-s {self.task_s:g}"] if self.task_s != 0.5 else []
        words += ["--kill-leader"] * self.kill_leader
        words += [f"--kill {self.kill}"] if self.kill else []
        words += [f"--loss {self.loss:g}"] if self.loss else []
        return " ".join(words)


@dataclass(slots=True, kw_only=True)
class JobStory:
    """What happened.

    Args:
        redone: finished tasks, their results on a quorum of disks, that were run again although their bytes were there.
        lost: tasks that were run again since the only holder of their result was gone.
        repeated: attempts beyond one a task, for whatever reason.
        takeover_s: from each loss of a leader until its successor's first order.
        same: the answer is that of the plain run.
    """

    wishes: JobWishes
    deeds: list[JobDeed] = field(default_factory=list)
    timeline: list[str] = field(default_factory=list)
    svg: str = ""
    phase: str = ""
    error: str = ""
    tasks: int = 0
    takeovers: int = 0
    takeover_s: list[float] = field(default_factory=list)
    redone: int = 0
    lost: int = 0
    repeated: int = 0
    same: bool = False
    parts: int = 0
    size: int = 0
    virtual_s: float = 0.0
    plain_s: float = 0.0
    trace: str = ""

    @property
    def ok(self) -> bool:
        """Whether the job ended as if nothing had happened."""
        return self.phase == DONE and self.same and not self.redone
