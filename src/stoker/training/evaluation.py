"""Loss, metrics and predictions of a model. Evaluating changes nothing: not the model's mode, not a random number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stoker.data.batches import Batches
from stoker.data.resident import ResidentBatches
from stoker.data.trees import batch_rows, call_model, leaves, tree_map
from stoker.errors import DataError, InputTypeError
from stoker.randomness import preserved_randomness
from stoker.training.memory import naming_batch_size
from stoker.training.preflight.signature import check_call

__all__ = ["ScoresLike", "evaluate", "evaluating", "evaluation_rows", "predict"]

EVALUATION_BYTES = 16 << 20  # inputs of one evaluation batch: large enough to be fast, small enough for activations
EVALUATION_ROWS = 4096
NARROW = 64  # integers a row may have to count as a table's categories rather than a text's tokens


class ScoresLike(Protocol):
    """What :func:`evaluate` feeds; :class:`stoker.training.scores.Scores` is one."""

    def update(self, outputs: Any, targets: Any, rows: int) -> None: ...

    def compute(self) -> dict[str, float]: ...


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within this block the model is in evaluation mode, without gradients; after it every module is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():  # inference tensors would leak out of predict, and metrics could not add to them
            yield
    finally:
        model.train(modes[0][1])  # a module's own train() may do more than note the mode
        for module, mode in modes:
            module.training = mode


def evaluation_rows(batches: ResidentBatches) -> int:
    """How many rows to evaluate at once; more are faster, up to what activations leave room for.

    Of a table that is what its bytes allow. Images, sequences and tokens may become activations of any size: of those
    it is four training batches at most, which without gradients take no more memory than training does.
    """
    rows = [leaf[0] for leaf in leaves(batches.inputs)]
    fitting = min(EVALUATION_ROWS, EVALUATION_BYTES // max(1, sum(row.element_size() * row.numel() for row in rows)))
    flat = all(row.ndim <= 1 and (row.is_floating_point() or row.numel() <= NARROW) for row in rows)
    if flat and fitting:
        return fitting
    return max(batches.batch_size, min(fitting, 4 * batches.batch_size))


def evaluate(
    model: nn.Module,
    batches: Batches,
    scores: ScoresLike,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
    share: Callable[[Any], Any] = lambda tree: tree,
) -> dict[str, float]:
    """Measure a model.

    Args:
        model: Put into evaluation mode for the while.
        batches: Read once, in order.
        scores: Updated with every batch, then computed once.
        device: Where the model is.
        autocast: The dtype to compute in where that is safe.
        share: What of each batch's inputs and targets is looked at here, where processes share the work.

    Returns:
        What the scores compute.

    Raises:
        DataError: The batches yield nothing.
        InputTypeError: The inputs do not fit the model's signature, or the objective returns something else than one
            number.
        OutOfMemoryError: A batch does not fit.
    """
    empty = True
    # A generator's own contexts would stay open while an error is handled, so they are opened here.
    with preserved_randomness(device), evaluating(model):
        for outputs, targets, size in _outputs(model, batches, device, autocast, share):
            scores.update(outputs, targets, size)
            empty = False
        if empty:
            raise DataError("evaluate", "the data must yield at least one batch", "none")
        return scores.compute()


def predict(model: nn.Module, batches: Batches, *, device: torch.device, autocast: torch.dtype | None = None) -> Any:
    """The model's outputs for all rows, in order, on the CPU: of the model's own structure, first dimension rows.

    Raises:
        DataError: The batches yield nothing.
        InputTypeError: The inputs do not fit the model's signature, an output has another first dimension, or the
            outputs are not tensors.
        OutOfMemoryError: A batch does not fit.
    """
    parts = []
    with preserved_randomness(device), evaluating(model):
        for outputs, _, size in _outputs(model, batches, device, autocast):
            for leaf in leaves(outputs):
                if leaf.ndim == 0 or leaf.shape[0] != size:
                    raise InputTypeError(
                        "predict",
                        f"the first dimension of every output must be the batch's {size} rows",
                        f"shape {list(leaf.shape)}",
                        "Wrap the model in one that returns such outputs.",
                    )
            parts.append(tree_map(lambda leaf: leaf.cpu(), outputs))
    if not parts:
        raise DataError("predict", "the data must yield at least one batch", "none")
    return _concatenate(parts)


def _outputs(
    model: nn.Module,
    batches: Batches,
    device: torch.device,
    autocast: torch.dtype | None,
    share: Callable[[Any], Any] = lambda tree: tree,
) -> Iterator[tuple[Any, Any, int]]:
    """``(outputs, targets, rows)`` of each batch."""
    if isinstance(batches, ResidentBatches):
        batches = ResidentBatches(
            batches.inputs, batches.targets, batch_size=evaluation_rows(batches), device=batches.device
        )
    for number, batch in enumerate(batches.epoch(0)):
        inputs, targets = share(batch)
        if number == 0:
            check_call(model, inputs)
        size = batch_rows(inputs, targets)
        if size == 0:  # of a last batch with fewer rows than there are processes to share it
            continue
        with (
            naming_batch_size("evaluation", size),
            torch.autocast(device.type, dtype=autocast, enabled=autocast is not None),
        ):
            outputs = call_model(model, inputs)
        if autocast is not None:
            outputs = tree_map(lambda leaf: leaf.float() if leaf.dtype == autocast else leaf, outputs)
        yield outputs, targets, size


def _concatenate(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, dict):
        return {name: _concatenate([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple):
        return tuple(_concatenate([part[index] for part in parts]) for index in range(len(first)))
    if first is None:  # such as the attention weights that were not asked for
        return None
    raise InputTypeError(
        "predict", "the model must return tensors, in tuples and dicts if it likes", type(first).__name__
    )
