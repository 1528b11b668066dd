"""The page, in a real browser: what it shows is what the API says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_process import TABLE_ROW, Server, client, serving

import stoker

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("no Chromium with its driver here")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


class Page:
    """What a person does with the page."""

    def __init__(self, browser: Any, server: Server, width: int = 1100) -> None:
        self.browser = browser
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get_log("browser")
        browser.get(f"{server.url}/")
        self.wait(lambda: self.shown("form") or self.shown("access"))

    def wait(self, until: Any) -> Any:
        return WebDriverWait(self.browser, 20).until(lambda _: until())

    def get(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def shown(self, name: str) -> bool:
        return bool(self.get(name).is_displayed())

    def field(self, column: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, f'[data-column="{column}"]')

    def fill(self, row: dict[str, Any]) -> None:
        for column, value in row.items():
            field = self.field(column)
            if field.tag_name == "select":
                Select(field).select_by_visible_text(value)
            elif field.get_attribute("type") == "checkbox":
                if field.is_selected() != value:
                    field.click()
            else:
                field.clear()
                field.send_keys(str(value))

    def prediction(self) -> str:
        self.wait(lambda: self.shown("found"))
        return str(self.get("prediction").get_attribute("data-value"))

    def bars(self) -> dict[str, float]:
        spans = [
            bar.find_elements(By.TAG_NAME, "span") for bar in self.browser.find_elements(By.CSS_SELECTOR, "#bars dt")
        ]
        return {name.text: float(value.get_attribute("data-value")) for name, value in spans}

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("width", [1100, 400])
def test_a_class_is_predicted_with_its_probabilities(width: int, browser: Any, grades: Server) -> None:
    page = Page(browser, grades, width)
    page.fill(TABLE_ROW)
    page.get("predict").click()
    with client(grades) as opened:
        wanted = opened.post("/predict?proba=1", json=TABLE_ROW).json()["predictions"][0]
    assert page.prediction() == wanted["prediction"] == page.get("prediction").text
    assert page.bars() == wanted["probabilities"]
    shares = browser.execute_script(
        "return [...document.querySelectorAll('#bars dd')].map((track) =>"
        " track.firstChild.getBoundingClientRect().width / track.clientWidth)"
    )
    assert shares == pytest.approx(sorted(wanted["probabilities"].values(), reverse=True), abs=0.01)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.errors() == []


def test_a_number_is_predicted(browser: Any, prices: Server) -> None:
    page = Page(browser, prices)
    page.fill(TABLE_ROW)
    page.get("predict").click()
    with client(prices) as opened:
        wanted = opened.post("/predict", json=TABLE_ROW).json()["predictions"][0]["prediction"]
    assert float(page.prediction()) == wanted
    assert page.get("prediction").text == f"{wanted:.6g}"
    assert page.bars() == {}
    assert page.errors() == []


def test_an_image_is_predicted_when_it_is_chosen_or_dropped(browser: Any, animals: Server, served_home: Path) -> None:
    page = Page(browser, animals)
    picture = served_home / "animals" / "dog" / "03.png"
    page.get("file").send_keys(str(picture))
    with client(animals) as opened:
        headers = {"Content-Type": "image/png"}
        wanted = opened.post("/predict?proba=1", content=picture.read_bytes(), headers=headers).json()["predictions"][0]
    assert page.prediction() == wanted["prediction"] == "dog"
    assert page.bars() == wanted["probabilities"]
    browser.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    page.wait(lambda: not page.shown("found"))
    browser.execute_script(
        """
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 8;
        canvas.toBlob((blob) => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([blob], "black.png", { type: "image/png" }));
          const drop = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
          document.querySelector(".drop").dispatchEvent(drop);
        });
        """
    )
    assert page.prediction() in ("cat", "dog")
    assert "black.png" in page.browser.find_element(By.CSS_SELECTOR, ".drop").text
    assert page.errors() == []


def test_the_keyboard_is_enough(browser: Any, grades: Server) -> None:
    page = Page(browser, grades)
    keys = webdriver.ActionChains(browser)
    keys.send_keys(Keys.TAB, "50.5", Keys.TAB, "3", Keys.TAB, " ", Keys.TAB, Keys.TAB, "flat")
    keys.send_keys(Keys.TAB, "street 3", Keys.TAB, "2024-01-05T10:00:00", Keys.ENTER).perform()
    with client(grades) as opened:
        wanted = opened.post("/predict", json=TABLE_ROW).json()["predictions"][0]["prediction"]
    assert page.prediction() == wanted
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "one sees where one is"


def test_what_is_not_known_is_null(browser: Any, grades: Server) -> None:
    page = Page(browser, grades)
    unknown = browser.find_element(By.CSS_SELECTOR, "[id$=-unknown]")
    unknown.click()
    page.get("predict").click()
    page.prediction()
    sent = page.get("curl").get_attribute("textContent")
    assert '[{"size":null,"rooms":null,"lift":null,"kind":null,"street":null,"seen":null}]' in sent
    with client(grades) as opened:
        answer = opened.post("/predict?proba=1", json=dict.fromkeys(TABLE_ROW)).json()
    assert page.bars() == answer["predictions"][0]["probabilities"]


def test_an_error_is_shown_where_it_belongs(browser: Any, grades: Server) -> None:
    page = Page(browser, grades)
    page.fill(TABLE_ROW | {"seen": "tomorrow"})
    page.get("predict").click()
    page.wait(lambda: page.shown("error"))
    assert page.get("error").text.startswith("column 'seen', row 0 (counting from 0): must be a date or datetime")
    assert page.field("seen").get_attribute("aria-invalid") == "true"
    assert browser.switch_to.active_element == page.field("seen")
    page.fill({"seen": "2024-01-05"})
    page.get("predict").click()
    page.prediction()
    assert page.field("seen").get_attribute("aria-invalid") is None


def test_each_field_has_its_label_and_its_hint(browser: Any, grades: Server) -> None:
    page = Page(browser, grades)
    with client(grades) as opened:
        columns = {column["name"]: column for column in opened.get("/info").json()["columns"]}
    for name in ("size", "rooms"):
        low, high = columns[name]["range"]
        assert page.field(name).get_attribute("placeholder") == f"seen {low} to {high}"
        assert page.field(name).get_attribute("title") == f"seen in training: {low} to {high}"
    options = [option.text for option in Select(page.field("kind")).options]
    assert options == ["not known", "flat", "house", "loft"]
    names = {page.browser.execute_script("return arguments[0].labels[0].textContent", page.field(c)) for c in TABLE_ROW}
    assert {name.split()[0] for name in names} == set(TABLE_ROW)
    page.get("example").click()
    page.get("predict").click()
    assert page.prediction() in ("low", "middle", "top")


def test_a_run_of_before_ranges_were_kept_tells_what_is_usual(browser: Any, older_run: stoker.Run) -> None:
    with serving(older_run.path) as server:
        page = Page(browser, server)
        with client(server) as opened:
            size = next(column for column in opened.get("/info").json()["columns"] if column["name"] == "size")
        assert "range" not in size
        low, high = size["usual"]
        assert page.field("size").get_attribute("placeholder") == f"usually {low} to {high}"
        page.get("example").click()
        page.get("predict").click()
        assert page.prediction() in ("low", "middle", "top")


def test_the_api_is_described(browser: Any, grades: Server) -> None:
    Page(browser, grades)
    browser.get(f"{grades.url}/docs")
    WebDriverWait(browser, 20).until(lambda _: browser.find_elements(By.TAG_NAME, "article"))
    text = browser.find_element(By.ID, "paths").text
    assert "POST /predict" in text
    assert f"curl '{grades.url}/predict'" in text
    assert "POST /v2/models/{name}/infer" in text
    commands = [block.text for block in browser.find_elements(By.TAG_NAME, "pre")]
    form = re.compile(r"curl '\S+' -H 'Content-Type: \S+' --data-binary '[^']+'")
    assert all(form.fullmatch(command) for command in commands)


def test_a_token_is_asked_for(browser: Any, grade_run: stoker.Run) -> None:
    with serving(grade_run.path, STOKER_SERVE_TOKEN="secret") as server:
        page = Page(browser, server)
        assert page.shown("access")
        assert not page.shown("form")
        page.get("token").send_keys("guess", Keys.ENTER)
        page.wait(lambda: page.shown("access-error"))
        assert page.get("access-error").text.startswith("token: must be the server's, got another.")
        page.get("token").clear()
        page.get("token").send_keys("secret", Keys.ENTER)
        page.wait(lambda: page.shown("form"))
        page.get("example").click()
        page.get("predict").click()
        assert page.prediction() in ("low", "middle", "top")
        assert "secret" not in page.get("curl").get_attribute("textContent")
