"""The site: it can be built, strictly and without a network; nothing public is missing from its reference."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from doc_pages import DOCS, ROOT, program
from mkdocs.config.base import load_config

import stoker
from stoker.jobs.config import setting_names


class Parts(HTMLParser):
    """A page's anchors, and what a browser would fetch for it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        self.fetched |= {found.get("src") or "", (found.get("href") or "") if tag == "link" else ""}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made") / "site"
    # without a way out, so that a page or a plugin that fetches something fails
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    # not --quiet: MkDocs then counts no warnings
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(made)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return made


@pytest.mark.slow
def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    fetched = {place for page in pages for place in Parts(page).fetched}
    assert fetched
    assert {place for place in fetched if re.match(r"(https?:)?//", place)} == set()


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    ids = {one for page in (site / "reference").glob("*.html") for one in Parts(page).ids}
    places = {"StokerError": "stoker.errors.StokerError"}
    missing = [name for name in stoker.__all__ if places.get(name, f"stoker.{name}") not in ids]
    assert missing == ["__version__"]  # text, of which nothing is to be said but that it is there
    assert "stoker.__version__" in (DOCS / "reference" / "jobs.md").read_text(encoding="utf-8")
    assert {"stoker.Trainer.fit", "stoker.Run.predict", "stoker.errors.CheckpointError"} <= ids


@pytest.mark.slow
def test_every_command_and_option_has_its_place(site: Path) -> None:
    page = site / "reference" / "cli.html"
    ids, text = Parts(page).ids, page.read_text(encoding="utf-8")
    for name, command in program().commands.items():
        assert f"stoker-{name}" in ids
        section = text[text.index(f'id="stoker-{name}"') :].split("<h2")[0]
        for option in (one for part in command.params for one in part.opts if one.startswith("--")):
            assert re.search(rf"<code>{option}(</code>| )", section), f"{name} {option}"


@pytest.mark.slow
def test_every_setting_is_named(site: Path) -> None:
    text = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    names = set(setting_names()) - {"model", "model_args", "preset"}
    assert [name for name in sorted(names) if f"<code>{name}</code>" not in text] == []
    rows = re.findall(r"<tr>\s*<td>.*?</tr>", text, re.DOTALL)
    assert len(rows) > len(names)
    said_nothing = [row for row in rows if re.search(r"<td></td>\s*</tr>", row)]
    assert said_nothing == []


@pytest.mark.slow
def test_docstrings_are_read_as_they_are_meant(site: Path) -> None:
    for page in (site / "reference").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r":(?:class|func|meth|mod|data|attr|math|exc):", text) == [], page.name
        assert "====" not in text, page.name
    trainer = (site / "reference" / "trainer.html").read_text(encoding="utf-8")
    assert re.search(r'<a class="autorefs[^>]*href="#stoker\.Loss"', trainer)


@pytest.mark.slow
def test_what_is_wrong_fails_the_build(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for part in ("src", "docsite"):
        (tmp_path / part).symlink_to(ROOT / part)
    with (tmp_path / "docs" / "index.md").open("a") as file:
        file.write("\n[gone](nowhere.md) [moved](trainer.md#nowhere)\n")
    (tmp_path / "docs" / "lost.md").write_text("# In no menu\n")
    (tmp_path / "docs" / "benchmark.md").write_text("# In the menu as soon as it is there\n")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line or line.startswith("  - ")]
    for said in ("nowhere.md", "trainer.md#nowhere", "lost.md"):
        assert any(said in line for line in warnings), done.stderr
    assert "Aborted with 3 warnings in strict mode!" in done.stderr + done.stdout


def test_every_page_is_in_the_menu() -> None:
    made = {"reference/cli.md", "reference/settings.md"}
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    there.discard("benchmark.md")  # the hook adds it

    def listed(entry: object) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        assert isinstance(entry, (dict, list))
        parts = entry.values() if isinstance(entry, dict) else entry
        return {name for part in parts for name in listed(part)}

    assert listed(load_config(str(ROOT / "mkdocs.yml")).nav) == there | made


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_pages_outside_of_the_site(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
