"""Markdown as GitHub reads it, for Python-Markdown, which the site is made with."""

from __future__ import annotations

import re

__all__ = ["cell", "spaced_lists"]

_ITEM = re.compile(r"^(?:[-*+]|\d+\.) ")
_FENCE = re.compile(r"^\s*(```+|~~~+)")


def spaced_lists(text: str) -> str:
    """Put an empty line between a paragraph and a list below it.

    GitHub has a list there without one; Python-Markdown takes the items for a part of the paragraph.
    """
    lines: list[str] = []
    fence = ""
    before = ""
    in_list = False
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            item = bool(_ITEM.match(line))
            if item and before.strip() and not in_list:
                lines.append("")
            in_list = item or (in_list and (not line.strip() or line[:1] == " " or bool(before.strip())))
        lines.append(line)
        before = line
    return "\n".join(lines)


def cell(text: str) -> str:
    """Text for a cell of a table: on one line, and nothing outside of backticks taken for Markdown."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = [re.sub(r"([|<>*_\[\]])", r"\\\1", part) for part in parts[::2]]
    code = [part.replace("|", r"\|") for part in parts[1::2]]  # a bar ends a cell even there
    return "".join(one for pair in zip(plain, [*code, ""], strict=True) for one in pair)
