"""Whether what a checkpoint says could be of this training: it may come from anyone.

Of modules of torch's and Stoker's own every tensor is looked at; what the user's keep in buffers is theirs to look at.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from stoker.errors import CheckpointError

__all__ = ["MOST", "check_rows", "check_snapshot", "check_tensors", "count", "form", "listed", "number", "tensors_of"]

MOST = 10**15
"""Of epochs, updates and samples: more than a training comes to, and few enough for every counter."""


def count(value: Any, what: str, most: int = MOST) -> int:
    """A number of things.

    Raises:
        ValueError: It is none.
    """
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{what} is {str(value)[:60]}, not a count up to {most}")
    return value


def number(value: Any, what: str, *, finite: bool = False) -> float:
    """A number that a float holds.

    Raises:
        OverflowError: It is a larger one.
        ValueError: It is none, or not finite though it must be.
    """
    if type(value) not in (int, float) or (finite and not math.isfinite(value)):
        raise ValueError(f"{what} is {str(value)[:60]}, not a number")
    return float(value)


def listed(value: Any) -> list[Any]:
    """A list.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, list):
        raise TypeError(f"a list was expected, not {type(value).__name__}")
    return value


def check_rows(rows: Any) -> None:
    """See that a history's rows are numbers by name.

    Raises:
        KeyError: One lacks what each row has.
        OverflowError: A number is too large.
        TypeError: They are no rows.
        ValueError: A name is no text that can be written, or a value no number.
    """
    for row in listed(rows):
        if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
            raise TypeError("a row is no numbers by name")
        for name, value in row.items():
            name.encode()  # half of a surrogate pair could not be written
            number(value, name)
        for name in ("epoch", "step"):
            count(row[name], name)
        _ = row["lr"], row["train_loss"]


def check_tensors(what: str, saved: Any, module: nn.Module) -> None:
    """See that a module's tensors are there, and of its dtypes and shapes.

    Args:
        what: The module is.
        saved: The tensors, by name.
        module: The module.

    Raises:
        CheckpointError: One is missing, or another's.
        TypeError: They are no tensors by name.
        ValueError: One that stays as it was built is not as it was.
    """
    if not isinstance(saved, dict) or not all(isinstance(tensor, Tensor) for tensor in saved.values()):
        raise TypeError(f"the {what}'s tensors are {type(saved).__name__}")
    mine = tensors_of(module)
    for name in sorted(mine.keys() | saved.keys(), key=str):
        have, want = (None if name not in side else form(side[name], _fixed(name, module)) for side in (saved, mine))
        if have != want:
            fix = "Go on with the model that was trained."
            raise CheckpointError("resume", f"{name} of the {what} must be the checkpoint's, {have}", want, fix)
        if _known(module, name) and not _as_built(name, saved[name], mine[name]):
            raise ValueError(f"{name} of the {what} has other values than it can have")


def check_snapshot(saved: Any, module: nn.Module) -> None:
    """The same for the best weights, of which those that are the model's are left out.

    Raises:
        CheckpointError: One is another's.
        TypeError: They are no tensors.
        ValueError: One that stays as it was built is not as it was.
    """
    if not isinstance(saved, dict):
        raise TypeError(f"the best weights are {type(saved).__name__}")
    mine = tensors_of(module)
    check_tensors("model", {**mine, **{name: value for name, value in saved.items() if name in mine}}, module)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers, by name; also those that its ``state_dict`` lacks."""
    return dict((*module.named_parameters(), *module.named_buffers()))


def form(tensor: Tensor, shape: bool) -> str:
    """A tensor's dtype, and its shape if asked for, in words."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape) if shape else ''}".strip()


def _known(module: nn.Module, name: str) -> bool:
    """Whether the module that a tensor is in is torch's or Stoker's; those of others may do with it as they like."""
    owner = type(module.get_submodule(name.rpartition(".")[0])).__module__
    return owner.startswith(("torch.nn.", "stoker."))


def _fixed(name: str, module: nn.Module) -> bool:
    """Whether a tensor keeps its shape."""
    return name in dict(module.named_parameters()) or (name in dict(module.named_buffers()) and _known(module, name))


def _as_built(name: str, saved: Tensor, mine: Tensor) -> bool:
    """Whether a tensor of whole numbers is a count of batches, or the indices that it was built with."""
    if saved.is_floating_point() or saved.is_complex():
        return True
    if name.rpartition(".")[2] == "num_batches_tracked":
        return bool((saved >= 0).all())
    return torch.equal(saved, mine.cpu())
