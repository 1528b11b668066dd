"""Texts that came from anyone (class names, columns, titles) made fit to be drawn, in whatever script."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["BASE_FONT", "Lettering", "has_bold"]

BASE_FONT = "DejaVu Sans"  # comes with matplotlib
_REGULAR, _BOLD = 400, 700
# Looked at first where DejaVu has no glyph: fonts that cover a script whole, and match one another.
_PREFERRED = (
    "Noto Sans CJK",
    "Source Han Sans",
    "Noto Sans",
    "WenQuanYi",
    "Droid Sans Fallback",
    "PingFang",
    "Hiragino",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode",
)


@dataclass(frozen=True)
class Lettering:
    """Texts that came from anyone, made fit to be drawn.

    Attributes:
        names: One line each, shortened.
        fonts: The families to draw them with, as matplotlib's ``fontfamily``.
        replaced: How many of them no font here can draw; what stands in their place is up to the constructor.
    """

    names: tuple[str, ...]
    fonts: list[str]
    replaced: int

    @classmethod
    def of(cls, names: Iterable[object], longest: int = 24) -> Lettering:
        """Prepare names of which each must be told from the others: one that cannot be drawn becomes its index, ``#3``.

        Args:
            names: Such as a data set's classes.
            longest: How many characters to show.
        """
        clean = [_one_line(str(name)) for name in names]
        fonts, missing = _fonts_for(frozenset("".join(clean)))
        shown = [
            _shorten(name, longest) if name and missing.isdisjoint(name) else f"#{index}"
            for index, name in enumerate(clean)
        ]
        replaced = sum(not missing.isdisjoint(name) for name in clean)
        return cls(tuple(shown), list(fonts), replaced)

    @classmethod
    def line(cls, content: str, longest: int = 80) -> Lettering:
        """Prepare a single text, such as a title: each character that cannot be drawn becomes a box."""
        clean = _one_line(content)
        fonts, missing = _fonts_for(frozenset(clean))
        shown = "".join("□" if char in missing else char for char in clean)
        return cls((_shorten(shown, longest),), list(fonts), int(shown != clean))


def _one_line(name: str) -> str:
    # of unprintable characters (control, surrogate, private, unassigned) not even a box is wanted
    kept = (" " if char.isspace() else char for char in name)
    return " ".join("".join(char for char in kept if unicodedata.category(char)[0] != "C").split())


def _shorten(name: str, longest: int) -> str:
    # names that begin alike ("species 17") are told apart by their ends
    if len(name) <= longest:
        return name
    tail = longest // 3
    return f"{name[: longest - 1 - tail].rstrip()}…{name[-tail:].lstrip()}"


@lru_cache(maxsize=32)
def _fonts_for(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that together have a glyph for each character, and the characters for which none has."""
    families = [BASE_FONT]
    missing = characters - {" "} - _glyphs(BASE_FONT)
    for name in _other_fonts() if missing else ():
        if found := missing & _glyphs(name):
            families.append(name)
            missing -= found
        if not missing:
            break
    return tuple(families), frozenset(missing)


def _other_fonts() -> list[str]:
    """The families that are installed, those first that cover a script whole."""
    from matplotlib import font_manager

    def rank(name: str) -> int:
        return next((place for place, start in enumerate(_PREFERRED) if name.startswith(start)), len(_PREFERRED))

    def fit(name: str) -> bool:
        # "Last Resort" has a box for everything; colour emoji cannot be drawn; a family without a regular is a variant
        # of another, but for some of those known
        strange = "Last Resort" in name or "Emoji" in name
        return not strange and (_REGULAR in _files(name) or rank(name) < len(_PREFERRED))

    families = {font.name for font in font_manager.fontManager.ttflist} - {BASE_FONT}
    return sorted(filter(fit, families), key=lambda name: (rank(name), name))


def has_bold(family: str) -> bool:
    """Whether a family has a bold; matplotlib logs a complaint for each text set in one that is not there."""
    return _BOLD in _files(family)


@lru_cache(maxsize=512)
def _files(family: str) -> dict[int, str]:
    """The upright files of a family by weight."""
    from matplotlib import font_manager

    found: dict[int, str] = {}
    for font in font_manager.fontManager.ttflist:
        if font.name == family and font.style == "normal":
            weight = font_manager.weight_dict[font.weight] if isinstance(font.weight, str) else font.weight
            found.setdefault(int(weight), str(font.fname))
    for weight in found.keys() & {_REGULAR, _BOLD}:
        # of several files of one weight, the one that will be drawn with (asked only if there is one: else it logs)
        found[weight] = font_manager.findfont(font_manager.FontProperties(family=[family], weight=weight))
    return found


@lru_cache(maxsize=512)
def _glyphs(family: str) -> frozenset[str]:
    """The characters that a family has, in bold as well if it has a bold."""
    files = _files(family)
    used = [files[weight] for weight in (_REGULAR, _BOLD) if weight in files] or list(files.values())[:1]
    return frozenset.intersection(*map(_characters, used)) if used else frozenset()


def _characters(path: str) -> frozenset[str]:
    from matplotlib import font_manager

    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):  # a damaged font, or one of a kind that FreeType does not open
        return frozenset()
