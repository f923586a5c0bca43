"""The page in a browser, on a real cluster: hand in, watch, open a failure, cancel, lose the node that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import p2premap, private
from tests.web.api import web_of
from tests.web.browser import Browser, Keys, browser, log_in

SLOW = '''
"""Says each line, slowly."""
import time
def map(key, line):
    while not line.startswith("go"):
        time.sleep(0.05)
    yield line, 1
'''
BROKEN = '''
"""Divides by nothing."""
def map(key, line):
    print("looking at", line)
    yield line, 1 / 0
'''


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    with private(("ada", "bob", "carl"), slots=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as window:
        yield window


@pytest.fixture(scope="module")
def one_node() -> Iterator[PrivateCluster]:
    with private(("eve",)) as cluster:
        yield cluster


AT_ONCE = 20
"""Keys that are pressed before we wait for what the page may draw meanwhile."""
READING = (Path(__file__).parent / "reading.js").read_text()


def test_it_can_be_read_and_walked_without_a_mouse(one_node: PrivateCluster, window: Browser, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("wait for me\n")
    for name, source in (("divides", BROKEN), ("waits", SLOW)):
        (tmp_path / f"{name}.py").write_text(source)
    ran = p2premap(one_node.home, "run", str(tmp_path / "divides.py"), str(text), "--skip-failed", "--name", "divides")
    assert ran.exit_code == 0, ran.stderr
    p2premap(one_node.home, "run", str(tmp_path / "waits.py"), str(text), "--detach", "--name", "waits")
    log_in(window, one_node, "eve")

    def looked_at(*texts: str) -> None:
        window.reads(*texts)
        for dark in (False, True):
            window.colours(dark=dark)
            for size in (window.desk, window.phone):
                size() if size is window.desk else window.phone(dark=dark)
                assert window.driver.execute_script(READING) == [], (texts, dark, size.__name__)
        window.desk()

    looked_at("divides", "waits", "running")
    window.keys(Keys.TAB)
    assert window.driver.switch_to.active_element.text == "To the content"
    for view, texts in (("Nodes", ("1 alive",)), ("Stream", ("Task stream", "now")), ("New job", ("Hand a job in",))):
        tab_to(window, view)
        window.keys(Keys.ENTER)
        looked_at(*texts[:1])
    window.go("#/")
    tab_to(window, "divides")
    window.keys(Keys.ENTER)
    window.reads("Left out", "Failures")
    tab_to(window, "ZeroDivisionError")
    window.keys(Keys.ENTER)
    looked_at("Attempt 0 on eve")
    window.go("#/stream")
    window.until(lambda: window.driver.execute_script("return document.activeElement.id") == "main")
    window.find(".scroll").send_keys(Keys.ARROW_RIGHT)
    window.reads("attempt 0 on eve")
    window.picture("0-stream-by-keys")


IN_SIGHT = """
const [slots, top, done] = arguments;
import("./page/store.js").then(async ({ world }) => {
  const drawn = () => new Promise((then) => requestAnimationFrame(() => requestAnimationFrame(then)));
  world.nodes.set("many", { ...[...world.nodes.values()][0], id: "many", name: "many", slots });
  await drawn();
  const box = document.querySelector(".scroll");
  box.scrollTop = top;
  await drawn();
  const [outer, inner] = [box, box.querySelector("canvas")].map((one) => one.getBoundingClientRect());
  const from = outer.top + box.clientTop;
  done([from <= inner.top && inner.bottom <= from + box.clientHeight, box.scrollHeight > box.clientHeight]);
});
"""


def test_the_axis_of_the_task_stream_is_in_sight_however_many_slots_there_are(
    one_node: PrivateCluster, window: Browser
) -> None:
    log_in(window, one_node, "eve")
    window.go("#/nodes")
    window.reads("1 alive")
    window.go("#/stream")
    window.find("canvas")
    for slots, top, more in ((32, 0, False), (33, 0, True), (60, 77, True), (60, 100_000, True)):
        assert window.driver.execute_async_script(IN_SIGHT, slots, top) == [True, more], (slots, top)
    window.picture("0-stream-of-many")


def tab_to(window: Browser, text: str) -> None:
    """Go on to the thing that takes keys and has this text."""
    window.until(lambda: any(tab(window, text) for _ in range(AT_ONCE)))


def tab(window: Browser, text: str) -> bool:
    """Go on to the next thing that takes keys: whether it is this one. It is seen that it has the focus."""
    window.keys(Keys.TAB)
    element = window.driver.switch_to.active_element
    style = window.driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", element)
    if element.tag_name == "body":  # it begins again
        return False
    assert style == "solid", element.get_attribute("outerHTML")
    return text in element.text


@contextmanager
def no_page(pids: list[int]) -> Iterator[None]:
    """The pages of these nodes stand still meanwhile."""
    serving = [process for pid in pids for process in web_of(pid)]
    assert serving
    for process in serving:
        process.suspend()
    try:
        yield
    finally:
        for process in serving:
            process.resume()


def hand_in(window: Browser, file: Path, inputs: Path, name: str) -> None:
    window.go("#/new")
    window.find("h1", "Hand a job in")
    for label, text in (("Path on the node", str(file)), ("Inputs", str(inputs)), ("Name", name)):
        window.find("label", label).find_element("css selector", "input, textarea").send_keys(text)
    window.click("button", "Hand in")
    window.reads(name, "Who has led it")


def test_a_job_is_handed_in_watched_opened_where_it_failed_cancelled_and_outlives_the_node_of_the_page(
    cluster: PrivateCluster, window: Browser, tmp_path: Path
) -> None:
    slow, broken, text = tmp_path / "slow.py", tmp_path / "broken.py", tmp_path / "text.txt"
    slow.write_text(SLOW)
    broken.write_text(BROKEN)
    text.write_text("wait for me\n")
    log_in(window, cluster, "ada")
    window.reads("No jobs yet")
    window.picture("1-empty")

    hand_in(window, broken, text, "broken")
    window.reads("failed", "ZeroDivisionError: division by zero", "the end of its output", "looking at wait for me")
    window.click("summary", "ZeroDivisionError")
    window.reads("Attempt 0 on ")
    window.picture("2-failure")
    report = window.find("a", "Save report").get_attribute("href")
    fetched = window.driver.execute_async_script(
        "const [path, done] = arguments; fetch(path).then((a) => a.text()).then(done)", report
    )
    assert "ZeroDivisionError: division by zero" in fetched
    assert "<script" not in fetched

    hand_in(window, slow, text, "slow")
    window.reads("running", "0 of 1", "Cancel")
    window.picture("3-running")
    window.go("#/stream")
    window.reads("Task stream", "Tasks done in a second")
    window.picture("4-stream")
    window.go("#/nodes")
    window.reads("3 alive, 0 dead", "1 of 6 busy", "carl")
    window.picture("5-nodes")

    window.go("#/")
    window.click("a", "slow")
    window.click("button", "Cancel")
    window.agree()
    window.reads("◼ cancelled")
    window.picture("6-cancelled")
    assert window.complaints() == []

    where = window.place.partition("#")[2]
    window.until(lambda: window.driver.execute_script("return document.documentElement.dataset.ways > 0"))
    window.phone(dark=True)
    with no_page(cluster.pids[1:]):  # else it may have moved before we look
        cluster.kill("ada")
        window.reads("does not answer")
        window.picture("7-lost")
    window.until(lambda: "//ada" not in window.place)
    window.reads("cancelled", "slow")
    assert window.place.endswith(where), "it shows what it showed"
    window.picture("8-moved")
    window.go("#/nodes")
    window.reads("2 alive")
    window.picture("9-nodes-phone")
