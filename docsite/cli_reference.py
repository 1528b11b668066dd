"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markdown_text import cell

__all__ = ["cli_reference"]

HEAD = """# Command line

Made from the commands themselves; `stoker COMMAND --help` says the same. What stands in brackets is the default. A
file for `--config` and the names for `--set` are described with the [settings](settings.md).

An error is a line on stderr and exit code 1; 2 is a command that cannot be read, 70 a fault of Stoker's own
(`STOKER_DEBUG=1` shows its traceback). Ctrl-C ends with 130, SIGTERM with 143.
"""


def cli_reference(group: Any) -> str:
    """The page, in Markdown.

    Args:
        group: The program, as ``typer.main.get_command`` gives it: its commands have ``params``, ``help``, ``epilog``.
    """
    parts = [HEAD, _overview(group)]
    parts += [_command(name, command) for name, command in group.commands.items()]
    return "\n".join(parts)


def _overview(group: Any) -> str:
    rows = [
        f"| [`stoker {name}`](#stoker-{name}) | {cell(_sentence(_help(one)))} |" for name, one in group.commands.items()
    ]
    return "\n".join(
        ["| command | |", "| --- | --- |", *rows, "", "## Options of `stoker` itself", "", *_table(group.params)]
    )


def _command(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    usage = " ".join(["stoker", name, "[OPTIONS]", *(_shown(one) for one in arguments)])
    lines = [f"## stoker {name}", "", f"```text\n{usage}\n```", "", _help(command), ""]
    if arguments:
        lines += ["| argument | |", "| --- | --- |"]
        lines += [f"| `{_shown(one)}` | {cell(one.help or '')} |" for one in arguments] + [""]
    for panel in dict.fromkeys(one.rich_help_panel for one in options):
        if panel:
            lines += [f"### {panel} {{ #stoker-{name}-{panel.lower()} }}", ""]
        lines += _table([one for one in options if one.rich_help_panel == panel])
    if command.epilog:
        lines += [*_epilog(command.epilog), ""]
    return "\n".join(lines)


def _table(options: list[Any]) -> list[str]:
    rows = [f"| {_spelt(one)} | {cell(one.help or '')} |" for one in options if not one.hidden]
    return ["| option | |", "| --- | --- |", *rows, ""]


def _spelt(option: Any) -> str:
    """``--lr RATE``, ``-o``, ``--output FILE``; ``--rates``, ``--no-rates``."""
    value = "" if option.is_flag or not (option.metavar or "").strip() else f" {option.metavar}"
    spellings = [f"{one}{value}" if one.startswith("--") else one for one in option.opts]
    return ", ".join(f"`{one}`" for one in (*spellings, *option.secondary_opts))


def _shown(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _help(command: Any) -> str:
    """Its paragraphs, each on one line, without the marks of rich."""
    text = (command.help or "").replace("\\[", "[")
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text))


def _sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def _epilog(text: str) -> Iterator[str]:
    """Paragraphs; what is indented are examples."""
    parts = [part for part in text.split("\n\n") if part.strip()]
    yield "\n\n".join(part.strip() for part in parts if not part.startswith(" "))
    examples = [part.strip() for part in parts if part.startswith(" ")]
    if examples:
        yield "\n```text\n" + "\n".join(examples) + "\n```"
