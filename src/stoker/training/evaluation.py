"""Loss, metrics and predictions of a model. Evaluating changes nothing: not the model's mode, not a random number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stoker.data.batches import Batches, ResidentBatches, batch_rows, call_model, leaves, tree_map
from stoker.errors import DataError

__all__ = ["MetricLike", "evaluate", "evaluating", "evaluation_rows", "predict", "preserved_randomness"]

EVALUATION_BYTES = 16 << 20  # inputs of one evaluation batch: large enough to be fast, small enough for activations
EVALUATION_ROWS = 4096


class MetricLike(Protocol):
    """What :func:`evaluate` asks of a set of metrics; :class:`stoker.metrics.MetricSet` is one."""

    def update(self, preds: Tensor, target: Tensor) -> None: ...

    def compute(self) -> dict[str, float]: ...


@contextmanager
def preserved_randomness(device: torch.device) -> Iterator[None]:
    """After this block torch's global generators, of the CPU and of ``device``, are as they were before it."""
    indices = [device.index or 0] if device.type not in {"cpu", "mps", "meta"} else []
    kind = device.type if indices else "cuda"
    with torch.random.fork_rng(devices=indices, device_type=kind):
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within this block the model is in evaluation mode, without gradients; after it every module is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():  # inference tensors would leak out of predict, and metrics could not add to them
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def evaluation_rows(batches: ResidentBatches) -> int:
    """How many rows to evaluate at once; more are faster, up to what activations leave room for."""
    row_bytes = max(1, sum(leaf.element_size() * leaf[0].numel() for leaf in leaves(batches.inputs)))
    return max(
        batches.batch_size if row_bytes > EVALUATION_BYTES else 1, min(EVALUATION_ROWS, EVALUATION_BYTES // row_bytes)
    )


def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    device: torch.device,
    objective: Callable[[Any, Any], Tensor] | None = None,
    metrics: Callable[[Any], MetricLike | None] = lambda _: None,
    to_preds: Callable[[Any, Any], tuple[Tensor, Tensor]] = lambda outputs, targets: (outputs, targets),
    autocast: torch.dtype | None = None,
) -> dict[str, float]:
    """Measure a model.

    Args:
        model: Put into evaluation mode for the while.
        batches: Read once, in order.
        device: Where the model is.
        objective: Gives ``"loss"``: the mean over samples of the batches' losses.
        metrics: Called with the first batch's outputs; what it returns is updated with every batch, then computed once.
        to_preds: Turns ``(outputs, targets)`` into what the metrics take.
        autocast: The dtype to compute in where that is safe.

    Returns:
        ``{"loss": …, metric: …}``.

    Raises:
        DataError: The batches yield nothing.
    """
    total = torch.zeros((), dtype=torch.float64)
    rows = 0
    chosen: MetricLike | None = None
    # A generator's own contexts would stay open while an error is handled, so they are opened here.
    with preserved_randomness(device), evaluating(model):
        for outputs, targets, size in _outputs(model, batches, device, autocast):
            if objective is not None:
                total += objective(outputs, targets).double().cpu() * size
            if rows == 0:
                chosen = metrics(outputs)
            if chosen is not None:
                chosen.update(*to_preds(outputs, targets))
            rows += size
        if rows == 0:
            raise DataError("evaluate", "the data must yield at least one batch", "none")
        loss = {"loss": float(total) / rows} if objective is not None else {}
        return loss | (chosen.compute() if chosen is not None else {})


def predict(model: nn.Module, batches: Batches, *, device: torch.device, autocast: torch.dtype | None = None) -> Any:
    """The model's outputs for all rows, in order, on the CPU: of the model's own structure, first dimension rows."""
    with preserved_randomness(device), evaluating(model):
        parts = [
            tree_map(lambda leaf: leaf.cpu(), outputs) for outputs, *_ in _outputs(model, batches, device, autocast)
        ]
    if not parts:
        raise DataError("predict", "the data must yield at least one batch", "none")
    return _concatenate(parts)


def _outputs(
    model: nn.Module, batches: Batches, device: torch.device, autocast: torch.dtype | None
) -> Iterator[tuple[Any, Any, int]]:
    """``(outputs, targets, rows)`` of each batch."""
    if isinstance(batches, ResidentBatches):
        batches = ResidentBatches(
            batches.inputs, batches.targets, batch_size=evaluation_rows(batches), device=batches.device
        )
    for inputs, targets in batches.epoch(0):
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            outputs = call_model(model, inputs)
        outputs = tree_map(lambda leaf: leaf.float() if leaf.dtype == torch.bfloat16 else leaf, outputs)
        yield outputs, targets, batch_rows(inputs, targets)


def _concatenate(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, dict):
        return {name: _concatenate([part[name] for part in parts]) for name in first}
    return tuple(_concatenate([part[index] for part in parts]) for index in range(len(first)))
