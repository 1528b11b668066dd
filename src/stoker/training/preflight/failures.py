"""Forward passes that raise an error for which there are better words than torch's."""

from __future__ import annotations

import re

from torch import Tensor, nn

from stoker.data.trees import leaves
from stoker.training.preflight.findings import Finding
from stoker.training.preflight.statics import device_finding
from stoker.training.preflight.watch import Call

__all__ = ["explain_forward"]

TYPES = re.compile(r"\bd?types?\b|\bdatatype\b", re.IGNORECASE)


def explain_forward(error: Exception, call: Call | None, model: nn.Module, inputs: object) -> Finding | None:
    """Explain an error of the forward pass; ``None`` where torch's or the user's own words are the best there are.

    Args:
        error: What was raised.
        call: The innermost module at work.
        model: The model.
        inputs: The batch's inputs.
    """
    text = str(error)
    if call is None:
        return None
    if isinstance(error, ValueError) and "more than 1 value per channel when training" in text:
        what = "needs more than one value per channel in training, but the batch has one row"
        return Finding("error", what, call.name, "Use a batch_size that leaves no batch of one row, or drop_last=True.")
    if not isinstance(error, (RuntimeError, ValueError)):
        return None
    if "device" in text:
        return _plain_tensor(call) or device_finding(model)
    return _dtypes(call, leaves(inputs)) if TYPES.search(text) else None


def _plain_tensor(call: Call) -> Finding | None:
    """A tensor that is neither parameter nor buffer stays behind when the module moves."""
    here = {leaf.device for leaf in (*call.inputs, *call.module.parameters(recurse=False))}
    for name, value in vars(call.module).items():
        if isinstance(value, Tensor) and value.ndim and here and value.device not in here:
            what = f"its attribute {name!r} is on {value.device}, its inputs on {', '.join(sorted(map(str, here)))}"
            fix = f"Let it move with the module: self.register_buffer({name!r}, tensor)."
            return Finding("error", what, call.name, fix)
    return None


def _dtypes(call: Call, batch: list[Tensor]) -> Finding | None:
    given = [leaf for leaf in call.inputs if not leaf.is_complex()]
    if isinstance(call.module, (nn.Embedding, nn.EmbeddingBag)):
        strange = [leaf for leaf in given if leaf.is_floating_point()]
        takes, cast = "indices of dtype int64", "long"
    else:
        own = {leaf.dtype for leaf in call.module.parameters(recurse=False) if leaf.is_floating_point()}
        if len(own) != 1:
            return None
        dtype = own.pop()
        strange = [leaf for leaf in given[:1] if leaf.dtype != dtype]
        takes, cast = _name(dtype), {"float32": "float", "float64": "double"}.get(_name(dtype), "to")
    if not strange:
        return None
    got = strange[0].dtype
    from_batch = any(leaf.dtype == got for leaf in batch)
    origin = f"The inputs are {_name(got)}: cast them" if from_batch else "Cast what forward computes for it"
    return Finding("error", f"takes {takes}, got {_name(got)}", call.name, f"{origin}, x.{cast}().")


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
