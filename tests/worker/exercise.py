"""A runtime for tests, imported by worker processes: each function does what its name says."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from p2premap.worker.page import Page
from p2premap.worker.runtime import Context, Result, Segment
from p2premap.worker.waiting import waiting

_memory: list[bytearray] = []


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Exercise:
    """Runs the method that the attempt's params name: b"name" or b"name argument"."""

    def __init__(self, bundle: bytes, directory: str) -> None:
        self.bundle = bundle
        self.directory = directory
        if bundle == b"raise":
            raise ImportError("no module named nowhere")
        if bundle == b"exit":
            os._exit(9)

    def run(self, function: str, params: bytes, segments: Sequence[Segment], context: Context) -> Result:
        name, _, argument = params.decode().partition(" ")
        result: Result = getattr(self, name)(argument, segments, context)
        return result

    def run_together(self, function, orders, gang, contexts):
        """What the first order says."""
        name, _, argument = orders[0].params.decode().partition(" ")
        return getattr(self, f"all_{name}")(argument, orders, gang, contexts)

    def all_sum(self, argument, orders, gang, contexts):
        mine = sum(order.task for order in orders)
        frames = [[str(mine).encode()]] * len(gang.seats)
        total = mine + sum(int(bytes(came)) for came in gang.exchange(frames) if came)
        return [Result(f"{total} {os.getpid()}".encode()) for _ in orders]

    def all_read(self, argument, orders, gang, contexts):
        for order, context in zip(orders, contexts, strict=True):
            for segment in order.segments:
                context.read(segment)
        return self.all_sum(argument, orders, gang, contexts)

    def all_talk(self, argument, orders, gang, contexts):
        """For ever, once it has said so by a file."""
        while gang.exchange([[b""]] * len(gang.seats)) is not None:
            with open(argument, "a"):
                pass

    def all_misbehave(self, argument, orders, gang, contexts):
        """One seat does what the argument says, the others wait for it."""
        name, _, rest = argument.partition(" ")
        gang.exchange([[b""]] * len(gang.seats))
        if gang.seat == 0:
            getattr(self, name)(rest, (), contexts[0])
        gang.exchange([[b""]] * len(gang.seats))

    def all_few(self, argument, orders, gang, contexts):
        return [Result(b"")]

    def nothing(self, argument, segments, context):
        return Result(b"")

    def echo(self, argument, segments, context):
        context.count(records_in=1, records_out=2)
        return Result(argument.encode())

    def pid(self, argument, segments, context):
        return Result(b"%d" % os.getpid())

    def note(self, argument, segments, context):
        with open(argument, "a") as file:
            file.write(f"{context.attempt.task}\n")
        return Result(b"noted")

    def bundle_and_directory(self, argument, segments, context):
        return Result(self.bundle + b" " + self.directory.encode())

    def fail(self, argument, segments, context):
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError(argument or "bad") from error

    def unprintable(self, argument, segments, context):
        raise Unprintable

    def leave(self, argument, segments, context):
        sys.exit(int(argument))

    def wrong(self, argument, segments, context):
        return "a string"

    def large(self, argument, segments, context):
        return Result(bytes(int(argument)))

    def exit(self, argument, segments, context):
        print("leaving", flush=True)
        os._exit(int(argument))

    def segfault(self, argument, segments, context):
        ctypes.string_at(0)

    def kill(self, argument, segments, context):
        os.kill(os.getpid(), signal.SIGKILL)

    def loop(self, argument, segments, context):
        _say(argument)
        while True:
            pass

    def stubborn(self, argument, segments, context):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _say(argument)
        while True:
            time.sleep(1)

    def tidy(self, argument, segments, context):
        """Clean up when stopped."""
        try:
            _say(f"{argument}.began")
            time.sleep(600)
        finally:
            _say(f"{argument}.tidied")

    def shrink(self, argument, segments, context):
        """Cut every file that is open, then crash."""
        for descriptor in _descriptors():
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
        os._exit(3)

    def scribble(self, argument, segments, context):
        """Lie to the executor about how the process ended, and see to it that nobody tells the truth."""
        frame = sys._getframe()
        while not isinstance(page := getattr(frame.f_locals.get("self"), "_page", None), Page):
            frame = frame.f_back
        page.close_with(int(argument), 2**64 - 1)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

    def wait(self, argument, segments, context):
        """Until there is such a file."""
        _say(f"{argument}.began")
        while not os.path.exists(argument):
            time.sleep(0.001)
        return Result(b"")

    def wait_for_others(self, argument, segments, context):
        """As `wait`, and say so."""
        with waiting():
            return self.wait(argument, segments, context)

    def wait_twice(self, argument, segments, context):
        """Wait, go on until there is a second file, wait again."""
        with waiting():
            self.wait(argument, segments, context)
        self.wait(f"{argument}.on", segments, context)
        with waiting(), waiting():
            self.wait(f"{argument}.again", segments, context)
        return Result(b"at last")

    def touch(self, argument, segments, context):
        _say(argument)
        return Result(b"")

    def hog(self, argument, segments, context):
        """Half a GiB: whoever watches over it may be kept from that for a while."""
        while len(_memory) < 128:
            _memory.append(bytearray(os.urandom(1 << 16) * 64))
        time.sleep(600)

    def child_hog(self, argument, segments, context):
        code = "import os, time; x = [bytearray(os.urandom(1 << 16) * 64) for _ in range(128)]; time.sleep(600)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def use(self, argument, segments, context):
        """Hold so many MiB for a moment."""
        data = bytearray(os.urandom(1 << 20) * int(argument))
        return Result(b"%d" % len(data))

    def _grandchild(self, argument):
        """Leave a process that has left its session and lost its parent."""
        code = (
            "import os, sys, time\n"
            "if os.fork(): os._exit(0)\n"
            "os.setsid()\n"
            "if os.fork(): os._exit(0)\n"
            "for fd in range(3): os.close(fd)\n"
            f"open({argument!r} + '.tmp', 'w').write(str(os.getpid()))\n"
            f"os.rename({argument!r} + '.tmp', {argument!r})\n"
            "time.sleep(600)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        while not os.path.exists(argument):
            time.sleep(0.001)

    def leave_child(self, argument, segments, context):
        self._grandchild(argument)
        return Result(b"")

    def family(self, argument, segments, context):
        """Leave a grandchild, then wait."""
        self._grandchild(argument)
        _say(f"{argument}.ready")
        time.sleep(600)

    def family_hog(self, argument, segments, context):
        self._grandchild(argument)
        self.hog(argument, segments, context)

    def deaf_family(self, argument, segments, context):
        """The same, in C code that does not let go of the interpreter lock."""
        self._grandchild(argument)
        _say(f"{argument}.ready")
        ctypes.PyDLL(None).sleep(600)

    def close_output(self, argument, segments, context):
        """Close what programs print to, by both of its names."""
        print("last words")
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            os.close(descriptor)
        return Result(b"closed")

    def fork(self, argument, segments, context):
        """Leave so many children behind, each in a session of its own, and note who they are."""
        children = []
        for _ in range(int(argument.partition(" ")[0])):
            child = os.fork()
            if not child:
                os.setsid()
                time.sleep(600)
                os._exit(0)
            children.append(child)
        with open(argument.partition(" ")[2], "w") as file:
            file.write(" ".join(map(str, children)))
        return Result(b"forked")

    def fail_at_length(self, argument, segments, context):
        raise ValueError("x" * int(argument))

    def speak(self, argument, segments, context):
        print(f"task {context.attempt.task} says {argument}")
        print("on stderr", file=sys.stderr)
        logging.getLogger("exercise").info("logged")
        subprocess.run(["sh", "-c", "echo from a subprocess"], check=True)
        return Result(b"")

    def chatter(self, argument, segments, context):
        for number in range(int(argument)):
            print(f"line {number}")
        return Result(b"")

    def scratch(self, argument, segments, context):
        """How many files are here; then leave one here and one in the directory that was named."""
        here = len(os.listdir(".")) + len(os.listdir(context.scratch))
        with open("left", "w") as file:
            file.write("x")
        os.makedirs(f"{context.scratch}/deep/er")
        os.chdir("/")
        return Result(b"%d" % here)

    def blob(self, argument, segments, context):
        writer = context.new_blob()
        for _ in range(10):
            writer.write(argument.encode())
        context.new_blob().write(b"never finished")
        return Result(b"", (writer.finish(),))

    def half_blob(self, argument, segments, context):
        context.new_blob().write(bytes(1 << 20))
        os._exit(1)

    def read(self, argument, segments, context):
        return Result(b"|".join(context.read(segment) for segment in segments))

    def where(self, argument, segments, context):
        return Result(b"|".join(b"%s %s" % (s.path.encode(), s.name.encode()) for s in segments))

    def descriptors(self, argument, segments, context):
        open_now = [f"{fd}:{os.readlink(f'/proc/self/fd/{fd}')}" for fd in _descriptors()]
        return Result("\n".join(open_now).encode())

    def pool(self, argument, segments, context):
        """User code that uses multiprocessing itself, by the method it names."""
        import multiprocessing

        with multiprocessing.get_context(argument).Pool(2) as pool:
            return Result(b"%d" % sum(pool.map(abs, range(10))))

    def forked_back(self, argument, segments, context):
        """A fork whose child returns as if it were the worker."""
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return Result(b"once")


def _say(path: str) -> None:
    if path:
        with open(path, "w"):
            pass


def _descriptors() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        found.append(int(name))
    return found
