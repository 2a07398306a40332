# SPDX-License-Identifier: ZPL-2.1
"""A real browser, without a window: Chromium, driven by Selenium."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: What has to be installed, and the command for that on Debian.
PROGRAMS = ("chromium", "chromedriver")
COMMAND = "apt-get install chromium chromium-driver && pip install selenium"

#: Widths of windows, in pixels.
WIDE, NARROW = 1200, 390

AXE = Path(__file__).parent / "data" / "axe-core" / "axe.min.js"


def is_there() -> bool:
    """Say whether Chromium can be used here."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return False
    return all(map(shutil.which, PROGRAMS))


@contextmanager
def chromium(
    width: int = WIDE, height: int = 900, is_dark: bool = False, has_scripts: bool = True
) -> Iterator[Any]:
    """Give a driver of a new browser.

    :param has_scripts: whether it runs the scripts of pages.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which(PROGRAMS[0]) or ""
    # As root, and where there is little shared memory, it does not start otherwise.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--hide-scrollbars")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not has_scripts:
        forbidden = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", forbidden)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which(PROGRAMS[1])))
    try:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        show_in(driver, is_dark)
        yield driver
    finally:
        driver.quit()


def show_in(driver: Any, is_dark: bool) -> None:
    """Let pages be dark or light."""
    features = [
        {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # else colours are on their way
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def picture_of(driver: Any, width: int, height: int | None = None) -> bytes:
    """Return a picture of the page as PNG.

    :param height: None is as high as the page is.
    """
    is_whole = height is None
    if height is None:
        height = driver.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    given = {"captureBeyondViewport": is_whole, "clip": clip}
    return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", given)["data"])


def violations(driver: Any) -> list[str]:
    """Return what is hard to use on the page for some people, as axe-core finds it."""
    driver.execute_script(AXE.read_text(encoding="utf-8"))
    found = driver.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {resultTypes: ['violations']})"
        ".then(result => done(result.violations), error => done([{id: String(error)}]));"
    )
    return [
        f"{one.get('impact')} {one['id']}: {node['html'][:150]}"
        for one in found
        for node in one.get("nodes", [{"html": ""}])
    ]
