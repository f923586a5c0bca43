"""A headless Chromium for tests of the page, driven by selenium; whoever has none skips them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from p2premap.client.private import PrivateCluster
from tests.cluster import eventually, p2premap

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import (  # noqa: E402
    ElementNotInteractableException,
    NoAlertPresentException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.chrome.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys as Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402

T = TypeVar("T")

NOT_YET = (
    ElementNotInteractableException,
    NoAlertPresentException,
    NoSuchElementException,
    StaleElementReferenceException,
)
"""While a page is being loaded or drawn anew."""
WITHIN_S = 60.0
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
QUIET = (
    *("--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
"""Nothing of it goes to a network but what it is told to open."""
PICTURES = os.environ.get("P2PREMAP_TEST_PICTURES", "")
"""A directory for pictures of every step, for people to look at."""


class Browser:
    """One window.

    Args:
        driver: of selenium.
    """

    def __init__(self, driver: WebDriver) -> None:
        self.driver = driver

    @property
    def place(self) -> str:
        """Where it is."""
        return str(self.driver.current_url)

    def open(self, address: str) -> None:
        """Go there."""
        self.driver.get(address)

    def go(self, view: str) -> None:
        """To a view of the page that is open."""
        self.driver.execute_script("location.hash = arguments[0]", view)

    def text(self) -> str:
        """What a person reads now."""
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def reads(self, *texts: str, within_s: float = WITHIN_S) -> None:
        """Wait until all of these can be read."""
        self.until(lambda: all(text in self.text() for text in texts), within_s=within_s)

    def find(self, kind: str, text: str = "") -> WebElement:
        """The first element of a kind, by CSS, that has this text; waits for it."""

        def look() -> WebElement | None:
            found = self.driver.find_elements(By.CSS_SELECTOR, kind)
            return next((element for element in found if text in element.text), None)

        element = self.until(look)
        assert element is not None
        return element

    def click(self, kind: str, text: str = "") -> None:
        """Click it, as soon as it is there."""

        def try_it() -> bool:
            self.find(kind, text).click()
            return True

        self.until(try_it)

    def until(self, look: Callable[[], T], *, within_s: float = WITHIN_S) -> T:
        """As `eventually`; what is drawn anew meanwhile is looked at again."""

        def steadily() -> T | None:
            try:
                return look()
            except NOT_YET:
                return None

        found = eventually(steadily, within_s=within_s)
        assert found is not None
        return found

    def agree(self) -> None:
        """To what the page asks in a box of the browser's own."""

        def try_it() -> bool:
            self.driver.switch_to.alert.accept()
            return True

        self.until(try_it)

    def picture(self, name: str) -> None:
        """Keep a picture, where somebody wants to look at it."""
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(PICTURES) / f"{name}.png"))

    def phone(self, *, dark: bool = False) -> None:
        """From now on the size of a phone."""
        size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.colours(dark=dark)

    def desk(self) -> None:
        """From now on a window again."""
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def colours(self, *, dark: bool) -> None:
        """From now on this scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def keys(self, *keys: str) -> None:
        """Press these, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def complaints(self) -> list[str]:
        """What the browser had to say of the page's scripts, and of what they may not do."""
        rows = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [row["message"] for row in rows if row["level"] == "SEVERE" and "net::ERR_" not in row["message"]]


@contextmanager
def browser() -> Iterator[Browser]:
    """A window of 1280 pixels; skips where there is no Chromium."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver on this machine (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="p2p-chromium-", ignore_cleanup_errors=True) as profile:
        for argument in (*QUIET, "--window-size=1280,900", f"--user-data-dir={profile}"):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        driver.set_script_timeout(WITHIN_S)
        try:
            yield Browser(driver)
        finally:
            driver.quit()


def log_in(window: Browser, cluster: PrivateCluster, node: str) -> None:
    """Open the page of this node."""
    link = p2premap(cluster.home, "--node", node, "dashboard").stdout.split()[0]
    window.open(link)
    window.reads("Jobs", node)
