"""The makers of pages, by themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

sys.path.insert(0, str(Path(__file__).parents[2] / "docsite"))  # as MkDocs does for its hooks

from cli_reference import cli_reference
from docstrings import markdown, maths
from markdown_text import cell, spaced_lists


def test_a_list_below_a_paragraph_gets_room() -> None:
    assert spaced_lists("So:\n- one\n  more\n- two\n\ntext") == "So:\n\n- one\n  more\n- two\n\ntext"


@pytest.mark.parametrize(
    "text",
    [
        "- one\n- two",
        "text\n\n- one\n\n  more\n- two",
        "1. one\n2. two",
        "```\nx:\n- one\n```",
        "a - b\n-5 degrees\n*emphasis* it is",
        "```text\n~~~\na:\n- one\n```\n\n- one",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert spaced_lists(text) == text


def test_a_cell_is_one_line_and_no_markdown() -> None:
    assert cell("a|b\n  [c] *d*") == r"a\|b \[c\] \*d\*"
    assert cell("_a_ `b_c|d` e_f") == r"\_a\_ `b_c\|d` e\_f"


def test_roles_become_links() -> None:
    text = markdown("See :class:`stoker.Loss`, :meth:`check` and ``x``.", "stoker.Trainer.fit")
    assert '<autoref optional identifier="stoker.Loss"><code>stoker.Loss</code></autoref>' in text
    assert 'identifier="stoker.Trainer.check"><code>check</code>' in text


def test_several_parameters_in_one_entry_become_one_each() -> None:
    text = "Args:\n    a, b,\n        c: Said\n        once.\n    d: Alone.\n\nExample:\n    >>> go()"
    said = "Said\n        once."
    assert markdown(text) == (
        f"Args:\n    a: {said}\n    b: {said}\n    c: {said}\n    d: Alone.\n\nExamples:\n    >>> go()"
    )


def test_literal_blocks_become_plain_ones() -> None:
    assert markdown("One\n\n::\n\n    tree") == "One\n\n\n    tree"
    assert markdown("As follows::\n\n    tree") == "As follows:\n\n    tree"


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (r"\log \frac1m \sum_i \mathrm{softmax}(z_i)", "log 1/m Σ_i softmax(z_i)"),
        (r"\frac{x - b_{t-1}}{b_t - b_{t-1}}", "(x - b_t-1) / (b_t - b_t-1)"),
        (r"W \, [x_\mathrm{wide}, h]", "W [x_wide, h]"),
        (r"\sin(2 \pi c x)", "sin(2 π c x)"),
    ],
)
def test_maths_as_text(formula: str, text: str) -> None:
    assert maths(formula) == text


def test_a_program_as_a_page() -> None:
    app = typer.Typer()

    @app.command(epilog="Also:\n\n  go far --away")
    def go(
        place: Annotated[str, typer.Argument(help="Where to.", metavar="PLACE")],
        fast: Annotated[
            int | None, typer.Option("--fast", "-f", help="How fast [km/h] (3).", metavar="N", rich_help_panel="How")
        ] = None,
        back: Annotated[bool, typer.Option("--back/--no-back", help="Come back.")] = True,
    ) -> None:
        """Go. There is more to say."""

    @app.command()
    def stay() -> None:
        """Stay."""

    page = cli_reference(typer.main.get_command(app))
    assert "| [`stoker go`](#stoker-go) | Go. |" in page
    assert "```text\nstoker go [OPTIONS] PLACE\n```" in page
    assert "| `PLACE` | Where to. |" in page
    assert "### How { #stoker-go-how }" in page
    assert r"| `--fast N`, `-f` | How fast \[km/h\] (3). |" in page
    assert "| `--back`, `--no-back` | Come back. |" in page
    assert "```text\ngo far --away\n```" in page
    assert "## stoker stay" in page
