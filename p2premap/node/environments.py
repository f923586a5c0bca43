"""Environments of jobs on this node: one directory for each lock, made when a job first asks for it.

::

    core --MakeEnvironment(lock)--> lock and wheels as blobs, from whoever holds them --> venv, pip --> EnvironmentTold
                                    what nobody holds: from the package index ----'

    environments/<digest>/          the virtual environment
    environments/<digest>.ready     it is whole; its age is the time since it was last used

What is made without this second file is left over from a node that died, and is begun anew. Installing runs in a
process of its own (`p2premap.node.installing`), with nothing of the wheels executed and nothing looked for elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Final

import trio
from blake3 import blake3

from p2premap.errors import P2PRemapError
from p2premap.ids import Digest, NodeId
from p2premap.node.blobs import BlobStore, StoreUnwritable
from p2premap.node.paths import LOCK_NAME
from p2premap.node.staging import SourceLost, Stager
from p2premap.tasks.events import EnvironmentTold, MakeEnvironment
from p2premap.tasks.job import Source

if TYPE_CHECKING:  # few jobs ask for an environment: a node starts without these
    from p2premap.tasks.environment import Lock, Wheel

SIDE_BY_SIDE: Final = 2
"""Environments that are made at a time."""
HOLDERS_MAX: Final = 16
"""Members that are asked for a wheel, beside those that should have it."""
UNFINISHED_S: Final = 86_400.0
"""What was begun so long ago and is not whole is left over from a node that died."""
_READY: Final = ".ready"

log = logging.getLogger(__name__)


class EnvironmentFailed(P2PRemapError):
    """An environment cannot be made here. Its text is half a sentence, and nothing is left of it."""


class Environments:
    """Makes and removes them.

    Args:
        state: the node's state directory; ``environments`` is made in it when first needed.
        blobs, stager: of this node.
        members: other nodes that live.
        deliver: is told what becomes of each.
    """

    def __init__(
        self,
        *,
        state: Path,
        blobs: BlobStore,
        stager: Stager,
        members: Callable[[], Sequence[NodeId]],
        deliver: Callable[[EnvironmentTold], None],
    ) -> None:
        self._root = str(state / "environments")
        self._blobs = blobs
        self._stager = stager
        self._members = members
        self._deliver = deliver
        self._limit = trio.CapacityLimiter(SIDE_BY_SIDE)
        self._nursery: trio.Nursery | None = None
        self.made = 0
        """So many have been made since this node started."""
        self.making = 0
        """So many are being made, or wait for that."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery  # each is made by a background task of its own
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def perform(self, effect: MakeEnvironment) -> None:
        """Begin what the core asks for; answered through `deliver`. Only while `run` runs."""
        assert self._nursery is not None, "perform() needs run()"
        self._nursery.start_soon(self._answer, effect.lock)

    def interpreter(self, digest: Digest) -> str:
        """The environment's Python, which is about to be used; "" where it has been removed: the core is told so."""
        path = self._path(digest)
        try:
            os.utime(path + _READY)
        except OSError:
            self._deliver(EnvironmentTold(digest=digest))
            return ""
        return f"{path}/bin/python"

    def sweep(self, *, older_s: float, in_use: Iterable[Digest] = ()) -> tuple[Digest, ...]:
        """Remove those that have not been used for so many seconds, and what is left over; which these were.

        Blocks; the caller tells the core (`EnvironmentTold`).
        """
        kept = {digest.hex() for digest in in_use}
        oldest, gone = time() - older_s, []
        names = _names(self._root)
        markers = {name for name in names if name.endswith(_READY)}
        whole = markers | {name.removesuffix(_READY) for name in markers}
        for name in names:
            path, digest = f"{self._root}/{name}", name.removesuffix(_READY)
            with contextlib.suppress(OSError, ValueError):
                if name.endswith(_READY) and digest not in kept and os.stat(path).st_mtime <= oldest:
                    os.unlink(path)
                    shutil.rmtree(f"{self._root}/{digest}", ignore_errors=True)
                    gone.append(Digest(bytes.fromhex(digest)))
                elif name not in whole and os.stat(path).st_mtime <= time() - UNFINISHED_S:
                    shutil.rmtree(path)
        return tuple(gone)

    def _path(self, digest: Digest) -> str:
        return f"{self._root}/{digest.hex()}"

    async def _answer(self, lock: Source) -> None:
        told = EnvironmentTold(digest=lock.digest, ready=True)
        self.making += 1
        try:
            async with self._limit:
                await self._have(lock)
        except P2PRemapError as error:
            told = EnvironmentTold(
                digest=lock.digest, error=f"its environment cannot be made: {str(error).rstrip('.')}"
            )
        except OSError as error:
            said = f"its environment cannot be made: {error.filename or self._root}: {error.strerror}"
            told = EnvironmentTold(digest=lock.digest, error=said)
        except Exception as error:
            log.exception("the environment %s cannot be made", lock.digest.hex()[:16])
            told = EnvironmentTold(digest=lock.digest, error=f"its environment cannot be made: {type(error).__name__}")
        finally:
            self.making -= 1
        self._deliver(told)

    async def _have(self, source: Source) -> None:
        """Raises: P2PRemapError: it cannot be made here now."""
        from p2premap.tasks.environment import Lock

        path = self._path(source.digest)
        if await trio.to_thread.run_sync(os.path.exists, path + _READY):
            return
        await self._stager.keep(source)
        lock = Lock.decode(await trio.to_thread.run_sync(self._blobs.get, source.digest))
        machine = os.uname()
        if why := lock.unusable(minor=sys.version_info.minor, system=machine.sysname, machine=machine.machine):
            raise EnvironmentFailed(why)
        await self._bring(lock, source.holders, path)
        try:
            await self._install(lock, path)
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, path, ignore_errors=True))
            raise
        self.made += 1

    # --- wheels -------------------------------------------------------------------------------------------------------

    async def _bring(self, lock: Lock, holders: tuple[NodeId, ...], path: str) -> None:
        """Have every wheel in this node's store.

        Raises:
            EnvironmentFailed: one is to be had nowhere.
            StoreUnwritable: there is no room.
        """
        members = tuple(node for node in self._members() if node not in holders)[:HOLDERS_MAX]
        missing: list[Wheel] = []
        for wheel in lock.wheels:
            source = Source(
                digest=wheel.digest, start=0, end=wheel.size, holders=(*holders, *members), blob=wheel.digest
            )
            try:
                await self._stager.keep(source)
            except SourceLost:
                missing.append(wheel)
        if missing:
            await self._download(lock, missing, path)

    async def _download(self, lock: Lock, missing: Sequence[Wheel], path: str) -> None:
        """From the index that the lock names, or this machine's own; checked by the hashes in the lock."""
        from p2premap.node import pip

        directory = path + ".download"
        await trio.to_thread.run_sync(partial(_fresh, directory))
        try:
            wanted = f"{directory}/wanted.txt"
            await trio.to_thread.run_sync(Path(wanted).write_text, pip.pinned(missing, lock.options))
            await self._run(pip.download(wanted, directory, locked=True), dict(os.environ))
            await trio.to_thread.run_sync(self._take, directory, missing)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))

    def _take(self, directory: str, missing: Sequence[Wheel]) -> None:
        for wheel in missing:
            try:
                data = Path(directory, wheel.name).read_bytes()
            except OSError:
                raise EnvironmentFailed(f"nobody has {wheel.name}, and the package index has another file") from None
            if blake3(data).digest() != wheel.digest:
                raise EnvironmentFailed(f"{wheel.name} in the package index is another file than that in the lock")
            self._blobs.put(data)

    # --- installing ---------------------------------------------------------------------------------------------------

    async def _install(self, lock: Lock, path: str) -> None:
        from p2premap.node import pip

        await trio.to_thread.run_sync(self._lay_out, lock, path)
        command = [sys.executable, "-P", "-m", "p2premap.node.installing", path]
        await self._run(command, pip.without_configuration(os.environ))
        await trio.to_thread.run_sync(self._finish, path)

    def _finish(self, path: str) -> None:
        shutil.rmtree(f"{path}/wheels", ignore_errors=True)
        try:
            Path(path + _READY).touch()
        except OSError as error:
            raise StoreUnwritable(f"{path}: {error.strerror}.") from None

    def _lay_out(self, lock: Lock, path: str) -> None:
        """An empty directory with the wheels under their names, which say to the installer what they are."""
        try:
            _fresh(path)
            os.mkdir(f"{path}/wheels")
            Path(path, LOCK_NAME).write_bytes(lock.encode())
            for wheel in lock.wheels:
                blob, file = self._blobs.path(wheel.digest), f"{path}/wheels/{wheel.name}"
                try:
                    os.link(blob, file)
                except OSError:
                    shutil.copyfile(blob, file)
        except OSError as error:
            raise StoreUnwritable(f"{path}: {error.strerror}.") from None

    async def _run(self, command: Sequence[str], environment: dict[str, str]) -> None:
        """Run an installer to its end, with everything that it starts.

        Raises:
            EnvironmentFailed: what it said.
        """

        async def end_all(process: trio.Process) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        ended = await trio.run_process(
            command,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            deliver_cancel=end_all,
        )
        if ended.returncode:
            from p2premap.node import pip

            raise EnvironmentFailed(pip.reason((ended.stderr + b"\n" + ended.stdout).decode(errors="replace")))


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _fresh(directory: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory, mode=0o700)
