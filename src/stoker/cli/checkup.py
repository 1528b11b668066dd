"""The command ``stoker doctor``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from stoker.cli import options

if TYPE_CHECKING:
    from rich.text import Text

    from stoker.doctor.findings import Checkup, Rate

__all__ = ["HELP", "doctor"]

HELP = (
    "Say what this machine has, what of it works, and how fast it multiplies matrices.\n\n"
    "What is missing or broken is said with the command that mends it; the exit code is 0 all the same."
)
_MARKS = {"works": ("✓", "green"), "absent": ("–", "dim"), "poor": ("!", "yellow"), "broken": ("✗", "bold red")}
_ASCII = {"✓": "+", "–": "-", "✗": "x"}


def doctor(
    json: options.Json = False,
    rates: Annotated[
        bool, typer.Option("--rates/--no-rates", help="Measure matrix rates, a few seconds.", show_default=False)
    ] = True,
) -> None:
    """Look at this machine."""
    from stoker.doctor.checkup import check_up

    with _spinner() as tell:
        found = check_up(tell, rates=rates)
    if json:
        import json as writer

        typer.echo(writer.dumps(found.to_dict(), indent=2))
    else:
        _show(found)


@contextmanager
def _spinner() -> Iterator[Callable[[str], None]]:
    from stoker.cli.show import console, printable

    err = console(stderr=True)
    if not err.is_terminal:
        yield lambda _: None
        return
    with err.status("looking …") as status:
        yield lambda what: status.update(f"{printable(what)} …")


def _show(found: Checkup) -> None:
    from rich.text import Text

    from stoker.cli.show import console, printable

    out = console()
    unicode = (out.encoding or "").lower().startswith("utf")
    wide = max(len(one.name) for one in found.findings)
    core = ("stoker", "python", "torch", "jax", "numpy", "polars", "scikit-learn")
    said = ", ".join(f"{name} {found.versions[name]}" for name in core if name in found.versions)
    for name, says in (*found.machine.items(), ("versions", said)):
        for line in _hanging(Text(f"{name.capitalize():<{wide + 4}}", "bold"), printable(says), out.width):
            out.print(line, soft_wrap=True)
    out.print()
    for one in found.findings:
        mark, style = _MARKS[one.status]
        mark = mark if unicode else _ASCII.get(mark, mark)
        head = Text.assemble((mark, style), f" {printable(one.name):<{wide}}  ")
        for line in _hanging(head, printable(one.says), out.width, "dim" if one.status == "absent" else ""):
            out.print(line, soft_wrap=True)
        if one.fix:  # on a line of its own, from which it can be copied
            out.print(Text(f"    {printable(one.fix)}", "cyan"), soft_wrap=True)
    for device, dtype in dict.fromkeys((rate.device, rate.dtype) for rate in found.rates):
        out.print()
        out.print(Text(f"GFLOP/s of {dtype} matrices, n by n, on {device}", "bold"))
        out.print(_rates([rate for rate in found.rates if (rate.device, rate.dtype) == (device, dtype)]))


def _hanging(head: Text, says: str, width: int, style: str = "") -> Iterator[Text]:
    """Text beside a heading, broken between words, each line below the one before."""
    from textwrap import wrap

    from rich.text import Text

    lines = wrap(says, max(20, width - len(head)), break_on_hyphens=False) or [""]
    for place, line in enumerate(lines):
        yield Text.assemble(head if place == 0 else " " * len(head), (line, style))


def _rates(rates: list[Rate]) -> object:
    """Rates of one device and dtype: a row a number of threads, a column a size."""
    from rich.table import Table as Grid
    from rich.text import Text

    sizes, counts = sorted({rate.size for rate in rates}), sorted({rate.threads for rate in rates})
    grid = Grid(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    grid.add_column(Text("threads" if counts != [0] else ""), justify="right")
    for size in sizes:
        grid.add_column(Text(f"n = {size}"), justify="right", min_width=9)
    for count in counts:
        by_size = {rate.size: rate.gflops for rate in rates if rate.threads == count}
        grid.add_row(str(count) if count else "", *(_rate(by_size.get(size)) for size in sizes))
    return grid


def _rate(gflops: float | None) -> str:
    if gflops is None:
        return ""
    return f"{gflops:,.0f}" if gflops >= 100 else f"{gflops:.{1 if gflops >= 1 else 2}f}"
