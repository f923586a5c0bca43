"""Locks, and what a worker core does while the environment of a job is being made. This is node `C`; `A` leads."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3

from p2premap.errors import JobRejected
from p2premap.ids import Digest
from p2premap.tasks import events
from p2premap.tasks.environment import LOCK_VERSION, Lock, Wheel
from p2premap.tasks.readiness import AGAIN_S
from tests.tasks.working import B, Working

LOCK = Digest(blake3(b"lock").digest())


def wheel(name: str) -> Wheel:
    data = name.encode()
    return Wheel(name=name, digest=blake3(data).digest(), size=len(data), sha256=hashlib.sha256(data).digest())


def lock(*names: str, python: str = "3.11") -> Lock:
    return Lock(version=LOCK_VERSION, python=python, wheels=tuple(map(wheel, names)))


def usable(name: str, *, minor: int = 11, system: str = "Linux", machine: str = "x86_64") -> bool:
    return not lock(name).unusable(minor=minor, system=system, machine=machine)


@pytest.mark.parametrize(
    ("tag", "where"),
    [
        ("py3-none-any", "linux 3.11, linux 3.12, mac 3.11, arm 3.11"),
        ("py2.py3-none-any", "linux 3.11, linux 3.12, mac 3.11, arm 3.11"),
        ("py312-none-any", "linux 3.12"),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", "linux 3.11"),
        ("cp39-abi3-manylinux_2_28_x86_64", "linux 3.11, linux 3.12"),
        ("cp312-abi3-musllinux_1_2_x86_64", "linux 3.12"),
        ("py3-none-manylinux2014_aarch64", "arm 3.11"),
        ("cp311-cp311-macosx_11_0_arm64", "mac 3.11"),
        ("cp311-cp311-macosx_10_9_universal2", "mac 3.11"),
        ("cp311-cp311-win_amd64", ""),
        ("jy27-none-any", ""),
    ],
)
def test_where_a_wheel_can_be_used_is_told_by_its_name(tag: str, where: str) -> None:
    nodes = {
        "linux 3.11": {},
        "linux 3.12": {"minor": 12},
        "mac 3.11": {"system": "Darwin", "machine": "arm64"},
        "arm 3.11": {"machine": "aarch64"},
    }
    name = f"some_project-1.5.0-{tag}.whl"
    assert ", ".join(node for node, what in nodes.items() if usable(name, **what)) == where


def test_an_unusable_wheel_is_named() -> None:
    made = lock("good-1.0-py3-none-any.whl", "Num_Py-2.1-3-cp311-cp311-manylinux2014_x86_64.whl")
    why = made.unusable(minor=12, system="Linux", machine="x86_64")
    assert why == "the wheel of num-py 2.1 in the lock is not for Python 3.12 on Linux x86_64"
    assert made.packages() == {"good": "1.0", "num-py": "2.1"}


def test_a_lock_is_for_one_minor_only_where_a_wheel_is() -> None:
    assert lock("a-1-py3-none-any.whl", "b-1-cp37-abi3-linux_x86_64.whl").minor() == ""
    assert lock("a-1-py3-none-any.whl", "b-1-cp312-cp312-linux_x86_64.whl", python="3.12").minor() == "3.12"


@pytest.mark.parametrize(
    "name", ["../a-1-py3-none-any.whl", "a-1-py3-none-any.whl/x", "a-1.tar.gz", "a-py3-none-any.whl"]
)
def test_what_a_member_sends_as_a_lock_is_checked(name: str) -> None:
    assert Lock.decode(lock("a-1-py3-none-any.whl").encode()).packages() == {"a": "1"}
    with pytest.raises(JobRejected, match="lock of the job's environment cannot be read"):
        Lock.decode(lock(name).encode())
    with pytest.raises(JobRejected, match="cannot be read"):
        Lock.decode(b"\xc1")
    with pytest.raises(JobRejected, match=r"has version 2, not 1"):
        Lock.decode(Lock(version=2, python="3.11", wheels=()).encode())


# --- the worker core ------------------------------------------------------------------------------------------------

MAKE, IN = f"make {LOCK.hex()[:4]}", f"in {LOCK.hex()[:4]}"
READY = events.EnvironmentTold(digest=LOCK, ready=True)


def reason(node: Working) -> str:
    """With which it has just refused something."""
    (busy,) = [e.message for e in node.effects if isinstance(e, events.ToLeader)]
    return busy.reason


def test_a_job_waits_for_its_environment_and_is_invited_when_it_is_there() -> None:
    node = Working(slots=1)
    assert node.assign(0, environment=LOCK) == [MAKE, "A: busy j 0 free 0"]
    assert reason(node) == "making its environment"
    assert node.assign(1, environment=LOCK) == ["A: busy j 1 free 0"]
    assert node.assign(0, job="k", leader=B) == ["slot 0: run k 0"], "no slot is kept for it meanwhile"
    node.report(0, 0)
    assert node.hear(READY) == ["A: busy j  free 1"], "the rest is held for k"
    assert node.assign(0, environment=LOCK) == [f"slot 0: run j 0 {IN}"]
    assert node.assign(0, job="l", environment=LOCK) == [f"slot 0: run l 0 {IN}"]


def test_an_environment_that_cannot_be_made_is_told_at_once_and_tried_again_later() -> None:
    node = Working(slots=1)
    node.assign(0, environment=LOCK)
    error = "its environment cannot be made: no room"
    assert node.hear(events.EnvironmentTold(digest=LOCK, error=error)) == ["A: busy j  free 0"]
    assert reason(node) == error
    node.now += AGAIN_S / 2
    assert node.assign(0, environment=LOCK) == ["A: busy j 0 free 0"]
    assert reason(node) == error
    node.now += AGAIN_S / 2
    assert node.assign(0, environment=LOCK) == [MAKE, "A: busy j 0 free 0"]
    assert reason(node) == "making its environment"


def test_one_that_was_removed_is_made_again() -> None:
    node = Working(slots=1)
    node.assign(0, environment=LOCK)
    node.hear(READY)
    assert node.hear(events.EnvironmentTold(digest=LOCK)) == []
    assert node.assign(0, environment=LOCK)[0] == MAKE


def test_nobody_is_told_who_does_not_wait_for_it() -> None:
    node = Working(slots=1)
    node.assign(0, environment=LOCK)
    node.forget()
    assert node.hear(READY) == []
