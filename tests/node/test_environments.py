"""Environments made from real wheels by a real installer, without an index: what is made, kept, shared and removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import trio
from blake3 import blake3

from p2premap.errors import PeerUnreachable
from p2premap.ids import Digest, NodeId
from p2premap.node import installing, pip
from p2premap.node.blobs import BlobStore
from p2premap.node.environments import Environments
from p2premap.node.paths import LINKS_NAME
from p2premap.node.staging import Stager
from p2premap.tasks.environment import LOCK_VERSION, Lock, Wheel
from p2premap.tasks.events import EnvironmentTold, MakeEnvironment
from p2premap.tasks.job import Source
from tests.node.slots_house import found, gone, until
from tests.wheels import wheel

ME = NodeId(b"m" * 16)
OTHER = NodeId(b"o" * 16)
SHOWN = """
import json, os, shutil, sys, tiny
import p2premap, msgspec, cloudpickle
try:
    import hypothesis
    others = True
except ImportError:
    others = False
print(json.dumps([tiny.VERSION, tiny.__file__, p2premap.__version__, others, sys.prefix, shutil.which("say-tiny")]))
"""


async def nobody(node: NodeId):
    raise PeerUnreachable("there is no network here")


class Made:
    """Environments of one node, and what was told of them."""

    def __init__(self, state: Path, *, neighbours: dict[NodeId, str] | None = None) -> None:
        self.blobs = BlobStore(state / "blobs")
        self.neighbours = neighbours or {}
        self.told: list[EnvironmentTold] = []
        self._news = trio.Event()
        stager = Stager(me=ME, blobs=self.blobs, open_bulk=nobody, neighbour_blobs=self.neighbours.get)
        self.environments = Environments(
            state=state, blobs=self.blobs, stager=stager, members=lambda: list(self.neighbours), deliver=self._deliver
        )

    def _deliver(self, told: EnvironmentTold) -> None:
        self.told.append(told)
        self._news.set()
        self._news = trio.Event()

    async def make(self, lock: Lock) -> EnvironmentTold:
        """Ask for it; how that ends."""
        ref = self.blobs.put(lock.encode())
        source = Source(digest=ref.digest, start=0, end=ref.size, holders=(ME,), blob=ref.digest)
        self.environments.perform(MakeEnvironment(lock=source))
        await self._news.wait()
        return self.told[-1]


@asynccontextmanager
async def made(state: Path, **options) -> AsyncIterator[Made]:
    one = Made(state, **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.environments.run)
        with trio.fail_after(200):
            yield one
        nursery.cancel_scope.cancel()


def lock_of(*files: Path, store: BlobStore | None = None, options: tuple[str, ...] = ()) -> Lock:
    wheels = []
    for file in files:
        data = file.read_bytes()
        if store is not None:
            store.put(data)
        digest, sha = blake3(data).digest(), sha256(data).digest()
        wheels.append(Wheel(name=file.name, digest=digest, size=len(data), sha256=sha))
    return Lock(version=LOCK_VERSION, python="3.11", wheels=tuple(wheels), options=options)


def test_a_kind_that_is_installed_for_editing_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, installed = tmp_path / "source" / "odd_kind", tmp_path / "installed" / "odd_kind-1.0.dist-info"
    for directory in (package, installed, tmp_path / "made" / "lib" / "python3.11" / "site-packages"):
        directory.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-kind\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[p2premap.modules]\nodd = odd_kind.director:Odd\n")
    (installed / "RECORD").write_text("__editable__.odd_kind.pth,,\nodd_kind-1.0.dist-info/METADATA,,\n")
    for directory in (package.parent, installed.parent):
        monkeypatch.syspath_prepend(directory)
    installing.link_own(tmp_path / "made")
    links = tmp_path / "made" / LINKS_NAME
    assert (links / "odd_kind").resolve() == package
    assert {"p2premap", "msgspec", "odd_kind-1.0.dist-info"} <= {link.name for link in links.iterdir()}


@pytest.mark.trio
async def test_workers_find_the_wheels_and_p2premap_and_nothing_else(tmp_path: Path) -> None:
    file = wheel(
        tmp_path, "tiny", "1.5", source="VERSION = '1.5'\ndef say(): print('tiny')\n", programs={"say-tiny": "tiny:say"}
    )
    async with made(tmp_path / "node") as node:
        lock = lock_of(file, store=node.blobs)
        told = await node.make(lock)
        assert told.ready, told.error
        python = node.environments.interpreter(told.digest)
        assert (await node.make(lock)).ready
        assert node.environments.made == 1, "the same lock is the same environment"
    path = {"PATH": os.path.dirname(python)}
    shown = await trio.run_process([python, "-P", "-c", SHOWN], env=os.environ | path, capture_stdout=True)
    version, place, ours, others, prefix, program = json.loads(shown.stdout)
    root = str(tmp_path / "node" / "environments" / told.digest.hex())
    assert (version, ours, others, prefix) == ("1.5", "0.1.0", False, root)
    assert place.startswith(root)
    assert program == f"{root}/bin/say-tiny"
    assert (await trio.run_process([program], capture_stdout=True)).stdout == b"tiny\n"


@pytest.mark.trio
async def test_wheels_come_from_members_and_what_a_node_that_died_had_begun_goes(tmp_path: Path) -> None:
    file = wheel(tmp_path, "tiny")
    other = BlobStore(tmp_path / "other" / "blobs")
    lock = lock_of(file, store=other)
    half = tmp_path / "node" / "environments" / blake3(lock.encode()).hexdigest()
    (half / "lib").mkdir(parents=True)
    (half / "lib" / "rubbish").touch()
    async with made(tmp_path / "node", neighbours={OTHER: other.directory}) as node:
        assert (await node.make(lock)).ready
        assert node.blobs.has(lock.wheels[0].digest), "others may have it from here"
        assert not (half / "lib" / "rubbish").exists()


@pytest.mark.trio
async def test_what_nobody_holds_comes_from_the_index_and_is_checked(tmp_path: Path) -> None:
    index = tmp_path / "index"
    file = wheel(index, "tiny", "1.0")
    lock = lock_of(file, options=("--no-index", f"--find-links {index}"))
    async with made(tmp_path / "node") as node:
        assert (await node.make(lock)).ready
        assert node.blobs.has(lock.wheels[0].digest)
    wheel(index, "tiny", "1.0", source="VERSION = 'changed'\n")
    async with made(tmp_path / "second") as node:
        told = await node.make(lock)
        assert not told.ready
        assert told.error.startswith("its environment cannot be made: THESE PACKAGES DO NOT MATCH THE HASHES")
    shutil.rmtree(index)
    index.mkdir()
    async with made(tmp_path / "third") as node:
        told = await node.make(lock)
        assert "tiny" in told.error
        assert "\n" not in told.error
        assert [p.name for p in (tmp_path / "third" / "environments").iterdir()] == []


@pytest.mark.trio
async def test_a_wheel_for_other_machines_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    lock = lock_of(wheel(tmp_path, "tiny", tag="cp39-cp39-win_amd64"))
    async with made(tmp_path / "node") as node:
        told = await node.make(lock)
    assert "the wheel of tiny 1.0 in the lock is not for Python 3." in told.error
    assert not (tmp_path / "node" / "environments").exists()


@pytest.mark.trio
async def test_what_pip_refuses_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    file = wheel(tmp_path, "tiny")
    file.write_bytes(b"no archive")
    async with made(tmp_path / "node") as node:
        told = await node.make(lock_of(file, store=node.blobs))
        assert "tiny-1.0-py3-none-any.whl" in told.error
        assert [p.name for p in (tmp_path / "node" / "environments").iterdir()] == []


@pytest.mark.trio
async def test_what_is_in_the_way_is_said(tmp_path: Path) -> None:
    file = wheel(tmp_path, "tiny")
    async with made(tmp_path / "node") as node:
        lock = lock_of(file, store=node.blobs)
        (tmp_path / "node" / "environments").write_text("in the way")
        told = await node.make(lock)
    assert told.error.startswith("its environment cannot be made: ")
    assert "Not a directory" in told.error or "File exists" in told.error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Where environments would be: half a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "node" / "environments"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(place)], check=False).returncode:
        pytest.skip("this system does not let us mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.trio
async def test_a_full_disk_is_said_and_the_space_is_given_back(tmp_path: Path, small_disk: Path) -> None:
    large = wheel(tmp_path, "tiny", source=f"DATA = {os.urandom(600_000).hex()!r}\n")
    async with made(tmp_path / "node") as node:
        told = await node.make(lock_of(large, store=node.blobs))
    assert "No space left on device" in told.error
    assert "\n" not in told.error
    assert found(small_disk, "*") == []


@pytest.mark.trio
async def test_cancelled_nothing_of_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is stopped while it installs leaves neither processes nor half an environment."""
    file = wheel(tmp_path, "tiny")
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nsleep 600 &\necho $! >> {tmp_path}/pid\nwait\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    one = Made(tmp_path / "node")
    ref = one.blobs.put(lock_of(file, store=one.blobs).encode())
    source = Source(digest=ref.digest, start=0, end=ref.size, holders=(ME,), blob=ref.digest)
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            await nursery.start(one.environments.run)
            one.environments.perform(MakeEnvironment(lock=source))
            await until(lambda: len(pids(tmp_path)) == 2)
            nursery.cancel_scope.cancel()
        for pid in pids(tmp_path):
            await gone(pid)
    assert [p.name for p in (tmp_path / "node" / "environments").iterdir()] == []


def pids(directory: Path) -> list[int]:
    file = directory / "pid"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.mark.trio
async def test_what_is_not_used_for_long_goes(tmp_path: Path) -> None:
    node = Made(tmp_path / "node")
    environments, root = node.environments, tmp_path / "node" / "environments"
    digest = Digest(blake3(b"lock").digest())
    marker, unfinished = root / f"{digest.hex()}.ready", root / ("ab" * 32)
    for directory in (root / digest.hex(), unfinished):
        (directory / "bin").mkdir(parents=True)
    marker.touch()
    assert environments.sweep(older_s=3600.0) == ()
    os.utime(marker, (0, 0))
    assert environments.sweep(older_s=3600.0, in_use=[digest]) == ()
    assert environments.interpreter(digest) == f"{root}/{digest.hex()}/bin/python", "and that is a use"
    assert environments.sweep(older_s=3600.0) == ()
    os.utime(marker, (0, 0))
    assert environments.sweep(older_s=3600.0) == (digest,)
    assert list(root.iterdir()) == [unfinished], "it may be being made"
    os.utime(unfinished, (0, 0))
    assert environments.sweep(older_s=3600.0) == ()
    assert list(root.iterdir()) == []
    assert environments.interpreter(digest) == ""
    assert node.told == [EnvironmentTold(digest=digest)]


@pytest.mark.parametrize(
    ("printed", "sentence"),
    [
        (
            "Looking: x\nERROR: Could not find a version that satisfies the requirement a==9 (from versions: 1)\n"
            "ERROR: No matching distribution found for a==9\n",
            "Could not find a version that satisfies the requirement a==9 (from versions: 1) "
            "(only wheels are used; nothing is built from source)",
        ),
        (
            "ERROR: Cannot install a==1 and b because these package versions have conflicting dependencies.\n"
            "ERROR: ResolutionImpossible: for help visit ...\n\nThe conflict is caused by:\n"
            "    The user requested a==1\n    b 2 depends on a>=2\n\nTo fix this you could try to:\n1. loosen it\n",
            "Cannot install a==1 and b because these package versions have conflicting dependencies: "
            "The user requested a==1, b 2 depends on a>=2",
        ),
        (
            "ERROR: Invalid requirement: 'a==': Expected end\n    a==\n     ^\n",
            "Invalid requirement: 'a==': Expected end",
        ),
        ("Traceback (most recent call last):\n  x\nMemoryError\n", "MemoryError"),
        ("", "pip ended without a word"),
    ],
)
def test_what_pip_says_is_one_sentence(printed: str, sentence: str) -> None:
    assert pip.reason(printed) == sentence
