"""Several trainings of one form as one program: each operator of a step is carried out once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array

from stoker.engines.xla.cache import compiled
from stoker.engines.xla.device import on
from stoker.engines.xla.program import Arguments, Carry, shapes
from stoker.engines.xla.scan import Scan
from stoker.errors import LoweringError

__all__ = ["Vectorised"]

AXES: dict[str, int | None] = dict.fromkeys(Arguments._fields, 0) | dict.fromkeys(
    ("start", "stop", "inputs", "targets")
)
"""Of each argument, the axis of the trainings; ``None`` where all have the same."""


class Vectorised:
    """A program's updates, made for ``size`` trainings at once that differ in numbers: ``jax.vmap`` of it.

    The data are there once. What a training comes to does not depend on the others, nor on its place among them, but
    its last bits may depend on ``size``, since products of matrices are carried out in another way.

    Args:
        scan: One of the trainings; the arguments of all will have the form of its own.
        size: How many trainings.

    Raises:
        LoweringError: The program was saved and loaded again.
    """

    def __init__(self, scan: Scan, size: int) -> None:
        self.size, self._device = size, scan.program.signature.device
        body, like = scan.program.body, shapes(scan.given(0, 0))
        if body is None:
            raise LoweringError("program", "must be one that was made in this process", "one that was saved")
        with on(self._device):
            self._compiled = compiled(jax.jit(_all(body)).lower(*_given([like] * size)))

    def __call__(self, scans: Sequence[Scan], start: int, stop: int) -> list[list[float]]:
        """Make the updates from ``start`` up to ``stop`` of each training, whose scalars were put in; their losses.

        Args:
            scans: At most ``size``, all over the same data. Places that are left are filled with the first one again,
                whose results are then dropped.
            start: The same for all.
            stop: Likewise.
        """
        arguments = [scan.given(start, stop) for scan in scans]
        filled = arguments + arguments[:1] * (self.size - len(scans))
        with on(self._device):
            results: list[tuple[Carry, Array]] = self._compiled(*_given(filled))
        return [scan.taken(carry, losses, start, stop) for scan, (carry, losses) in zip(scans, results, strict=False)]


def _given(arguments: Sequence[Arguments]) -> tuple[Any, ...]:
    """What is each training's own, and what all share."""
    first = arguments[0]
    own = [one._replace(start=(), stop=(), inputs=[], targets=[]) for one in arguments]
    return own, first.start, first.stop, first.inputs, first.targets


def _all(body: Callable[..., Any]) -> Callable[..., list[Any]]:
    def run(own: list[Arguments], start: Any, stop: Any, inputs: Any, targets: Any) -> list[Any]:
        stacked: Arguments = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *own)
        given = stacked._replace(start=start, stop=stop, inputs=inputs, targets=targets)
        after = jax.vmap(body, in_axes=tuple(AXES.values()))(*given)
        return [jax.tree.map(lambda leaf, place=place: leaf[place], after) for place in range(len(own))]

    return run
