"""The page under load: 50 nodes that are simulated, 200 task events a second, 5 updates a second, in headless Chromium.

The real service tells the real page; only the daemon behind it is made up. Frames are counted by the page itself;
memory is the browser's own figure of JavaScript's heap, and what the renderer's processes hold. Needs Debian's
chromium and chromium-driver, and selenium.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from bench.children import ROOT, command
from bench.report import Emitter
from p2premap.control.nodes import NodeView, Status
from p2premap.control.web import AttemptView, News
from p2premap.ids import JobId, NodeId, RequestId
from p2premap.node.webtold import WebSettings
from p2premap.tasks.job import JobView, Phase, StageView
from p2premap.wire import Frame

QUICK: Final = {"repeat": 1, "warm_s": 2.0, "measured_s": 1.0}
NODES: Final = 50
SLOTS: Final = 4
EVENTS_A_S: Final = 200
UPDATES_A_S: Final = 5
WARM_S: Final = 65.0
"""A whole minute of the stream is drawn before anything is measured."""
MEASURED_S: Final = 10.0
REPEATS: Final = 3
JOB: Final = JobId(b"a simulated job!")
REQUEST: Final = RequestId(1)

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver  # only who runs this needs it

_FRAMES: Final = """
const done = arguments[0];
let frames = 0;
const begin = performance.now();
function tick(now) {
  frames += 1;
  if (now - begin < 1000 * %f) requestAnimationFrame(tick);
  else done(1000 * frames / (now - begin));
}
requestAnimationFrame(tick);
"""


class Simulated:
    """A daemon of a busy cluster, as far as the hub asks."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self._nodes = [NodeId(bytes([n]) * 16) for n in range(NODES)]
        self._free = [(node, slot) for node in range(NODES) for slot in range(SLOTS)]
        self._running: list[tuple[int, int, int, float]] = []
        self._tasks = self._done = 0

    async def ask(self, request: object, answer: type[object]) -> Status:
        """How the node is."""
        return Status(
            request=REQUEST, me=self._view(0), cluster="simulated", scope="loopback", open_name="", members=NODES,
            dead=0, state_dir="",
        )  # fmt: skip

    async def stream(self, request: object, silence_s: float) -> AsyncIterator[Frame]:
        """News, five times a second."""
        yield Frame(News(request=REQUEST, node=self._nodes[0], nodes=tuple(map(self._view, range(NODES)))), b"")
        while True:
            await asyncio.sleep(1 / UPDATES_A_S)
            for news in self._tick():
                yield Frame(news, b"")

    def _view(self, number: int) -> NodeView:
        drawn = self._random.random()
        return NodeView(
            node=self._nodes[number], name=f"node{number:02}", state="alive", pid=1000 + number, boot=1, slots=SLOTS,
            busy=int(drawn * (SLOTS + 1)), load=drawn, cpus=SLOTS, memory_bytes=16 << 30, me=not number,
            memory_free_bytes=int(drawn * (16 << 30)), system="Linux", python="3.11.7", version="0.1.0",
        )  # fmt: skip

    def _tick(self) -> list[News]:
        now = time.monotonic()
        told: dict[int, list[AttemptView]] = {}
        for _ in range(EVENTS_A_S // UPDATES_A_S // 2):
            if self._running:
                node, slot, task, began = self._running.pop(0)
                self._free.append((node, slot))
                self._done += 1
                told.setdefault(node, []).append(self._attempt(slot, task, now - began, ended_s=0.0))
            if self._free:
                node, slot = self._free.pop(self._random.randrange(len(self._free)))
                self._running.append((node, slot, self._tasks, now))
                told.setdefault(node, []).append(self._attempt(slot, self._tasks, 0.0))
                self._tasks += 1
        news = [News(request=REQUEST, node=self._nodes[n], attempts=tuple(views)) for n, views in told.items()]
        some = tuple(self._view(self._random.randrange(NODES)) for _ in range(5))
        return [*news, News(request=REQUEST, node=self._nodes[0], jobs=(self._job(),), nodes=some)]

    def _attempt(self, slot: int, task: int, began_s: float, *, ended_s: float = -1.0) -> AttemptView:
        bad = ended_s >= 0 and not task % 50
        return AttemptView(
            slot=slot, job=JOB, stage=0, task=task, attempt=int(not task % 20), began_s=began_s, ended_s=ended_s,
            outcome="raised" if bad else "running" if ended_s < 0 else "done", fetch_s=0.1,
        )  # fmt: skip

    def _job(self) -> JobView:
        stage = StageView(number=0, name="map", tasks=100_000, done=self._done, running=len(self._running))
        return JobView(
            job=JOB, name="simulated", kind="mapreduce", phase=Phase.RUNNING, leader=self._nodes[0],
            leader_name="node00", leader_pid=1000, age_s=1.0, stages=(stage,),
        )  # fmt: skip


async def serve() -> None:
    """The service before that daemon, until it is ended; prints where it is."""
    from p2premap.web.app import Site
    from p2premap.web.hub import Hub

    with tempfile.TemporaryDirectory() as directory:
        settings = WebSettings(
            node="00" * 16, name="node00", socket="", label="node00", key="00" * 32, token="t" * 32, port=0,
            uploads=directory, jobs=directory, stays=True,
        )  # fmt: skip
        site = Site(settings)
        site.web.hub = Hub(Simulated())  # type: ignore[arg-type]
        print(json.dumps({"origin": f"http://127.0.0.1:{site.port}", "token": settings.token}), flush=True)
        await site.run()


def look(driver: WebDriver, origin: str, token: str) -> None:
    """Log in, and watch the stream."""
    driver.get(f"{origin}/")
    ask = (
        "const [token, done] = arguments;"
        "const headers = {authorization: `Bearer ${token}`};"
        "fetch('/api/v1/session', {method: 'POST', headers}).then((answer) => done(answer.status));"
    )
    status = driver.execute_async_script(ask, token)
    if status != 204:
        raise ValueError(f"the service answered {status} to the token")
    driver.get(f"{origin}/#/stream")
    driver.refresh()


def run(emit: Emitter, *, repeat: int = REPEATS, warm_s: float = WARM_S, measured_s: float = MEASURED_S) -> None:
    """Serve, look, count."""
    import psutil

    from tests.web.browser import browser

    with ExitStack() as stack:
        server = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "bench.page"],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is for us to pass on
            )
        )
        stack.callback(server.send_signal, signal.SIGINT)
        assert server.stdout is not None
        said = json.loads(server.stdout.readline())
        window = stack.enter_context(browser())
        window.driver.set_script_timeout(60)
        look(window.driver, said["origin"], said["token"])
        time.sleep(warm_s)
        frames, heap, renderer = list[float](), list[float](), list[float]()
        root = psutil.Process(window.driver.service.process.pid)
        for _ in range(repeat):
            frames.append(window.driver.execute_async_script(_FRAMES % measured_s))
            window.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
            heap.append(window.driver.execute_cdp_cmd("Runtime.getHeapUsage", {})["usedSize"] / 1e6)
            pages = [one for one in root.children(recursive=True) if "--type=renderer" in one.cmdline()]
            renderer.append(max(one.memory_full_info().pss for one in pages) / 1e6)
        shown = window.driver.execute_script("return document.querySelectorAll('canvas').length")
        if not shown:
            raise ValueError("the page shows no stream")
        window.picture("load")
        cpu = psutil.Process(server.pid).cpu_times()
    emit("frames a second", frames, "1/s", target=50.0, at_least=True)
    emit("JavaScript's heap", heap, "MB", target=150.0)
    emit("the page's process", renderer, "MB", target=150.0)
    emit("the service's CPU", [(cpu.user + cpu.system) / (warm_s + repeat * measured_s)], "CPUs")


if __name__ == "__main__":
    command(lambda: asyncio.run(serve()))
