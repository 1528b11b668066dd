"""The reference of the settings, from the classes that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from inspect import cleandoc
from typing import Any

from markdown_text import cell
from pydantic import BaseModel

__all__ = ["described", "settings_reference"]

HEAD = """# Settings

Made from the code. A setting is given in a file in TOML, `--config settings.toml` (in Python `config="settings.toml"`):

```toml
preset = "best"

[data]
ignore = ["id"]

[model]
name = "mlp"
hidden = [50, 40]

[training]
epochs = 50
schedule = "cosine"
schedule_settings = { warmup = 0.1 }
```

- Over the file counts an option, where there is one, such as `--epochs 50`; in Python an argument of
  [`stoker.fit`][stoker.fit].
- Over both counts `--set training.min_delta=0.01`, which is there for every setting; in Python
  `assignments=["training.min_delta=0.01"]`.

An unknown name is an error that says which one is nearest.
"""

MODELS = """`name` says which model it is, or names a module of your own, `package.module:Class`, with `args` for its
arguments. Each model has settings of its own."""


def settings_reference(
    groups: Mapping[str, type[BaseModel]],
    models: Mapping[str, type[BaseModel]],
    options: Mapping[str, str],
    docstrings: Iterable[str] = (),
) -> str:
    """The page, in Markdown.

    What a setting means is said by the docstring of its class, else by the option's help, else by ``docstrings``.

    Args:
        groups: The tables of a file: ``data``, ``training``.
        models: The models by name, and their settings.
        options: Help texts of ``stoker fit`` by the setting's name.
        docstrings: Of what takes settings as arguments of the same names.
    """
    elsewhere = {name: said for text in docstrings for name, said in described(text, "Args").items()}
    helps = {name: cell(text) for name, text in options.items()}
    parts = [HEAD]
    for group, settings in groups.items():
        parts += [f"## [{group}]", "", *_table(settings, helps, elsewhere), ""]
    parts += ["## [model]", "", MODELS, ""]
    for name, settings in models.items():
        rows = _table(settings, helps, {}) if set(settings.model_fields) - {"name"} else ["It has none."]
        parts += [f"### {name}", "", *rows, ""]
    return "\n".join(parts)


def _table(settings: type[BaseModel], helps: Mapping[str, str], elsewhere: Mapping[str, str]) -> Iterable[str]:
    said: dict[str, str] = {}
    for one in reversed(settings.__mro__):  # what it inherits is described there
        said |= described(cleandoc(one.__doc__ or ""), "Attributes")
    yield from ("| setting | default | |", "| --- | --- | --- |")
    for name, field in settings.model_fields.items():
        if isinstance(default := field.get_default(call_default_factory=True), str) and name == "name":
            continue  # a model's own name
        shown = _value(default)
        help_text = re.sub(r" \([^()]*\)\.$", ".", helps.get(name, "")) if shown else helps.get(name, "")
        meaning = said.get(name, "")
        if not meaning or meaning.startswith("`auto`:"):  # of which alone the docstring speaks
            meaning = f"{help_text or elsewhere.get(name, '')} {meaning}".strip()
        yield f"| `{name}` | {shown} | {meaning} |"


def _value(default: Any) -> str:
    if default is None or default == () or default == {}:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{list(default) if isinstance(default, tuple) else default}`"


def described(docstring: str, section: str) -> dict[str, str]:
    """What a docstring in Google's style says of each name in a section, as a cell.

    Args:
        docstring: Without the indentation that all its lines share.
        section: ``Attributes`` or ``Args``.
    """
    _, _, listed = docstring.partition(f"{section}:\n")
    listed = re.split(r"(?m)^\S", listed, maxsplit=1)[0]
    entries = re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE)
    return {name: cell(_plain(text)) for names, text in entries for name in names.split(", ")}


def _plain(text: str) -> str:
    """Without Sphinx's roles and double backticks, which a cell shows as they are."""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")
