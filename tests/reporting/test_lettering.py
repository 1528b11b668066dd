from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.reporting import lettering
from stoker.reporting.canvas import new_figure, text, write_png
from stoker.reporting.lettering import Lettering


def test_names_are_made_fit_to_be_drawn() -> None:
    made = Lettering.of(["plain", "two\nlines\tand tabs", "", "bell\x07\ud800", "$x_1$", "ein Wört", "日本語"], 40)
    assert made.names[:6] == ("plain", "two lines and tabs", "#2", "bell", "$x_1$", "ein Wört")
    assert made.fonts[0] == "DejaVu Sans"


def test_long_names_keep_both_ends() -> None:
    shown = Lettering.of(["fine-grained species 17", "fine-grained species 18"], 12).names
    assert all(len(name) <= 12 for name in shown)
    assert shown[0] != shown[1]
    assert shown[0].startswith("fine-")
    assert shown[0].endswith("17")


@pytest.fixture
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lettering, "_other_fonts", list)
    lettering._fonts_for.cache_clear()
    yield
    lettering._fonts_for.cache_clear()


@pytest.mark.usefixtures("only_dejavu")
def test_without_a_font_names_become_indices_and_texts_get_boxes() -> None:
    made = Lettering.of(["猫", "dog", "犬 (dog)"])
    assert made.names == ("#0", "dog", "#2")
    assert made.replaced == 2
    line = Lettering.line("Preis 価格 in €")
    assert line.names == ("Preis □□ in €",)
    assert line.replaced == 1


def test_another_font_is_taken_where_it_has_the_glyph(monkeypatch: pytest.MonkeyPatch) -> None:
    glyphs = {
        "Useless": frozenset("abc"),
        "Sinograph": frozenset("猫犬"),
        "DejaVu Sans": lettering._glyphs("DejaVu Sans"),
    }
    monkeypatch.setattr(lettering, "_other_fonts", lambda: ["Useless", "Sinograph"])
    monkeypatch.setattr(lettering, "_glyphs", glyphs.__getitem__)
    lettering._fonts_for.cache_clear()
    try:
        made = Lettering.of(["猫", "dog"])
        assert made.names == ("猫", "dog")
        assert made.fonts == ["DejaVu Sans", "Sinograph"]
    finally:
        lettering._fonts_for.cache_clear()


def test_the_fallback_fonts_are_a_fixed_list_without_a_last_resort() -> None:
    fonts = lettering._other_fonts()
    assert fonts == lettering._other_fonts()
    assert len(set(fonts)) == len(fonts)
    assert "DejaVu Sans" not in fonts
    assert not [name for name in fonts if "Last Resort" in name or "Emoji" in name]


def test_a_font_that_cannot_be_opened_has_no_glyphs() -> None:
    assert lettering._characters(__file__) == frozenset()
    assert lettering._glyphs("No Font At All") == frozenset()


# The first is in STIX and TeX Gyre, which come with matplotlib; the second in some of DejaVu's weights alone.
@pytest.mark.parametrize("char", ["\U0001d44e", "\U0001f311", "⌒", "猫", "\U0001f63a", "ﷺ", "\u0f3a"])
@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_no_character_warns_whatever_is_installed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, char: str, weight: str
) -> None:
    figure = new_figure(3, 1)
    for y, made in enumerate((Lettering.of([f"a {char}"]), Lettering.line(f"b {char}"))):
        text(figure, 0.1, y / 2, made.names[0], fontfamily=made.fonts, fontweight=weight)
    write_png(figure, tmp_path / "a.png")  # a missing glyph would be a warning, and that an error
    assert not caplog.records
