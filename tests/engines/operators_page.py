"""Write docs/operators.md: python tests/engines/operators_page.py."""

from __future__ import annotations

from pathlib import Path

from stoker.engines.xla import ops
from stoker.engines.xla.interpret import LOWERINGS
from stoker.engines.xla.table import RANDOM

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"
HEAD = """# Operators with a lowering to XLA

A training step is captured as a graph of ATen operators (`stoker/engines/decompositions.py`), and each operator is
looked up in a table of functions that compute the same with JAX (`stoker/engines/xla/`). A step with an operator that
is not listed here runs eagerly, and `trainer.engine_reason` names the operator. Recurrent layers would be a set of
operators for every step of a sequence; they are captured as operators of our own (`stoker/engines/recurrent/`), one
forward and one backward for each layer and direction.

To add one: a function with the operator's own arguments in the room where it belongs, under
`@lowering("name.overload")` (`@random_lowering` if it draws random numbers: it then gets a `key`), a sample in
`tests/engines/test_xla_ops.py`, and this page written anew: `python tests/engines/operators_page.py`.
Where torch can write an operator in terms of others, a line in `decompositions.py` will do instead.

Losses, their gradients and attention have no room of their own: torch writes them in terms of the operators below, and
so they are captured. Embeddings are under indexing.
"""


def page() -> str:
    """The page that fits the table: a section for each room, in it a row for each operator, with its overloads."""
    parts = [HEAD]
    for room in ops.__all__:
        module = getattr(ops, room)
        names = [name for name, lowered in LOWERINGS.items() if lowered.__module__ == module.__name__]
        title, _, _ = (module.__doc__ or "").strip().partition("\n")
        parts.append(f"\n## {room}\n{title}\n\n| operator | overloads |\n| --- | --- |\n")
        overloads: dict[str, list[str]] = {}
        for name in sorted(names):
            _, operator, overload = name.split(".")
            overloads.setdefault(operator, []).append(overload)
        for operator, found in overloads.items():
            random = ", random" if f"aten.{operator}.{found[0]}" in RANDOM else ""
            parts.append(f"| `{operator}` | {', '.join(found)}{random} |\n")
    parts.append(f"\n{len(LOWERINGS)} in all.\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
