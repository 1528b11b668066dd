"""How fast a model answers here, as it is and compiled, beside the files made from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stoker.exporting.formats.base import summary
from stoker.exporting.loader import LARGE, timed
from stoker.exporting.quiet import listening
from stoker.exporting.signature import Served

__all__ = ["SECONDS", "Timing", "baselines"]

SECONDS = 0.5  # for each of the two figures


@dataclass(frozen=True)
class Timing:
    """A line of the table.

    Attributes:
        name: A format's, ``eager`` or ``torch.compile``.
        bytes: Of the file; 0 where there is none.
        load: Seconds until it is ready: loading, or compiling.
        latency: Seconds of a call with one row.
        throughput: Rows a second in batches of 256.
        note: Why there are no figures; empty if there are.
    """

    name: str
    bytes: int = 0
    load: float = math.nan
    latency: float = math.nan
    throughput: float = math.nan
    note: str = ""


def baselines(module: Served, rows: dict[str, Tensor], seconds: float = SECONDS) -> list[Timing]:
    """The model itself, eager and under ``torch.compile``, on the CPU, with as many threads as the files had."""
    tensors = tuple(rows.values())
    one = tuple(values[:1].contiguous() for values in tensors)
    places = torch.arange(LARGE) % len(tensors[0])
    many = tuple(values[places] for values in tensors)
    eager = Timing("eager", **_figures(module, one, many, seconds))
    with listening():
        try:
            torch._dynamo.reset()  # what was compiled before might be in its way
            compiled: Callable[..., Any] = torch.compile(module)
            began = time.perf_counter()
            with torch.inference_mode():
                for inputs in (one, many):
                    compiled(*inputs)
            ready = time.perf_counter() - began
            figures = _figures(compiled, one, many, seconds)
        except Exception as error:  # no compiler, or a model that it does not take
            return [eager, Timing("torch.compile", note=summary(error))]
    return [eager, Timing("torch.compile", load=ready, **figures)]


def _figures(
    call: Callable[..., Any], one: tuple[Tensor, ...], many: tuple[Tensor, ...], seconds: float
) -> dict[str, Any]:
    def answer(inputs: Any) -> Any:
        with torch.inference_mode():
            return call(*inputs)

    return {"latency": timed(answer, one, seconds), "throughput": LARGE / timed(answer, many, seconds)}
