"""The report in a real browser: nothing is refused, nothing is cut off, and it follows the reader's colours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stoker

selenium = pytest.importorskip("selenium")
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with its driver here")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of images, and one of two runs of a table."""
    folder = tmp_path_factory.mktemp("pages")
    how: dict[str, Any] = {"progress": "none", "device": "cpu", "engine": "eager"}
    images = stoker.fit("digits", out=folder / "digits", epochs=2, **how)
    tables = [
        stoker.fit("iris", out=folder / f"iris {width}", epochs=3, hidden=(width,), lr=0.01, **how) for width in (4, 8)
    ]
    quick: dict[str, Any] = {"samples": 100, "repeats": 2, "calibrate": True}
    return {
        "images": stoker.report(images, out=folder / "images.html", **quick),
        "tables": stoker.report(*tables, out=folder / "tables.html", **quick),
    }


def show(browser: Any, page: Path, *, width: int, dark: bool = False) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [320, 400, 1280])
@pytest.mark.parametrize("name", ["images", "tables"])
def test_nothing_is_refused_or_wider_than_the_window(
    browser: Any, pages: dict[str, Path], name: str, width: int
) -> None:
    show(browser, pages[name], width=width)
    assert browser.get_log("browser") == []  # the security policy would complain here
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('svg.chart, img')].map(one => one.getBoundingClientRect().width)"
    )
    assert len(drawn) > 10
    assert min(drawn) > 60
    loaded = browser.execute_script("return [...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert loaded
    # text in charts stays inside of them
    outside = browser.execute_script(
        """return [...document.querySelectorAll('svg.chart text')].filter(text => {
          const box = text.getBoundingClientRect(), chart = text.closest('svg').getBoundingClientRect()
          return box.left < chart.left - 1 || box.right > chart.right + 1
            || box.top < chart.top - 1 || box.bottom > chart.bottom + 1
        }).map(text => text.textContent)"""
    )
    assert outside == []


def test_the_readers_colours_are_followed_but_paper_is_white(browser: Any, pages: dict[str, Path]) -> None:
    def paper() -> str:
        return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    show(browser, pages["tables"], width=800)
    assert paper() == "rgb(255, 255, 255)"
    show(browser, pages["tables"], width=800, dark=True)
    assert paper() == "rgb(21, 24, 28)"
    colour = "return getComputedStyle(document.querySelector('.line.s0')).stroke"
    assert browser.execute_script(colour) == "rgb(86, 180, 233)"
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": scheme})
    assert paper() == "rgb(255, 255, 255)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
