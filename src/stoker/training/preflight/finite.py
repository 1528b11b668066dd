"""A loss that is NaN or infinite: where that comes from first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from stoker.data.trees import leaves
from stoker.training.preflight.findings import Finding
from stoker.training.preflight.statics import listed
from stoker.training.preflight.watch import Call, Watch

__all__ = ["all_finite", "non_finite_gradients", "values_of", "where_not_finite"]


def values_of(tensor: Tensor) -> Tensor:
    """A tensor's values without its graph; of a sparse one, such as an embedding's gradient, those that it holds."""
    tensor = tensor.detach()
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def all_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return bool(values_of(tensor).isfinite().all())


def where_not_finite(
    model: nn.Module, inputs: Any, targets: Any, forward: Callable[[], Any], targets_name: str = "targets"
) -> Finding:
    """Where NaN or infinity comes from, when the loss is so: weights, a module, inputs, targets or the criterion.

    Args:
        model: The model.
        inputs: The batch's inputs.
        targets: Its targets.
        forward: Carries the same forward pass out again, and returns the outputs.
        targets_name: What to call the targets.
    """
    for name, parameter in model.named_parameters():
        if not all_finite(parameter):
            return Finding("error", f"holds {_values(parameter)} before training", name, "Initialise it anew.")
    first: list[tuple[str, str]] = []

    def look(call: Call) -> None:
        bad = [leaf for leaf in call.outputs if not all_finite(leaf)]
        if not first and bad and all(all_finite(leaf) for leaf in call.inputs):
            first.append((call.name, _values(bad[0])))

    with Watch(model, look):
        outputs = forward()
    if first:
        name, values = first[0]
        fix = "Look there for a division by zero, a logarithm or root of what is not positive, or large weights."
        return Finding("error", f"makes {values} of finite inputs", name, fix)
    for place, leaf in enumerate(leaves(inputs)):
        if not all_finite(leaf):
            name = "inputs" if isinstance(inputs, Tensor) else f"inputs[{_key(inputs, place)!r}]"
            what = f"hold {_values(leaf)}{_row(leaf)}, and the loss becomes so"
            return Finding("error", what, name, "Fill or drop missing values before training.")
    if all(all_finite(leaf) for leaf in leaves(outputs)):
        for leaf in leaves(targets):
            if not all_finite(leaf):
                what = f"hold {_values(leaf)}{_row(leaf)}, and the loss becomes so"
                return Finding("error", what, targets_name, "Drop rows without a target.")
        what = "makes NaN or infinity of finite outputs and targets"
        return Finding("error", what, "criterion", "Look there for a division by zero, a logarithm or a root.")
    return Finding("error", "returns NaN or infinity", f"the model ({type(model).__name__})", "Look at its forward.")


def non_finite_gradients(grads: dict[str, Tensor]) -> Finding | None:
    """An error if the gradients of a finite loss are NaN or infinite: the first update would make the weights so."""
    bad = [name for name, grad in grads.items() if not all_finite(grad)]
    if not bad:
        return None
    fix = "Look for the root or norm of 0, and for torch.where around values that are not finite: add a small number."
    return Finding("error", "the gradient is NaN or infinite, though the loss is finite", listed(bad), fix)


def _values(leaf: Tensor) -> str:
    return "NaN" if bool(leaf.detach().isnan().any()) else "infinity"


def _row(leaf: Tensor) -> str:
    return f" in row {int(leaf.isfinite().logical_not().nonzero()[0, 0])}" if leaf.ndim else ""


def _key(tree: Any, place: int) -> Any:
    return list(tree)[place] if isinstance(tree, dict) and len(tree) > place else place
