"""Docstrings as they are written for Sphinx, made readable for a site made of Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Docstrings", "markdown", "maths"]

_ROLE = re.compile(r":(class|func|meth|mod|data|attr|exc):`([^`]*)`")
_SEVERAL = re.compile(r"(?m)^ {4}((?:\w+,\s+)+\w+): (.*(?:\n {5,}.*)*)")
_MATHS = re.compile(r"(?:\.\. math:: (.*)|:math:`([^`]*)`)")
_SYMBOLS = {
    r"\log": "log", r"\sum": "Σ", r"\prod": "Π", r"\sqrt": "√", r"\exp": "exp", r"\sin": "sin", r"\cos": "cos",
    r"\pi": "π", r"\sigma": "σ", r"\mu": "μ", r"\cdot": "·", r"\times": "×", r"\in": "∈", r"\ldots": "…",
    r"\dots": "…", r"\left": "", r"\right": "", r"\,": "", r"\ ": " ",
}  # fmt: skip


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is shown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value, obj.path)


def markdown(text: str, path: str = "") -> str:
    """Roles become links where the target has a place on the site, and code elsewhere; maths become text.

    Args:
        text: A docstring.
        path: Whose it is; a method that it names without a class is one of the same class.
    """
    text = _ROLE.sub(lambda found: _link(found[1], found[2], path), text)
    text = _MATHS.sub(lambda found: f"`{maths(found[1] or found[2])}`", text)
    text = re.sub(r"(?m)::$", ":", re.sub(r"(?m)^::\n", "", text))
    text = re.sub(r"(?m)^Example:$", "Examples:", text)  # the section that is shown as code
    return _SEVERAL.sub(_one_each, text)


def _one_each(entry: re.Match[str]) -> str:
    """``a, b: text`` as two entries, for each has a type and a default of its own."""
    return "\n".join(f"    {name}: {entry[2]}" for name in re.findall(r"\w+", entry[1]))


def _link(role: str, target: str, path: str) -> str:
    name = target.lstrip("~")
    place = name
    if role in {"meth", "attr"} and "." not in name:
        owner = path if path.rpartition(".")[2][:1].isupper() else path.rpartition(".")[0]
        place = f"{owner}.{name}"
    return f'<autoref optional identifier="{place}"><code>{name.lstrip(".")}</code></autoref>'


def maths(formula: str) -> str:
    r"""A formula of LaTeX as a line of text: ``\frac{a}{b}`` is ``(a) / (b)``."""
    while (simpler := re.sub(r"\\(?:mathrm|mathbf|text)\{([^{}]*)\}", r"\1", formula)) != formula:
        formula = simpler
    formula = re.sub(r"\\frac(\w)(\w)", r"\1/\2", formula)
    formula = re.sub(
        r"\\frac\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", r"(\1) / (\2)", formula
    )
    for symbol in sorted(_SYMBOLS, key=len, reverse=True):
        formula = re.sub(
            re.escape(symbol) + (r"(?![a-zA-Z])" if symbol[-1].isalpha() else ""), _SYMBOLS[symbol], formula
        )
    return " ".join(formula.replace("{", "").replace("}", "").split())
