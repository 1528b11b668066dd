"""What can be seen without calling the model: where its tensors are, and what its optimizer holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker.training.preflight.findings import Finding

__all__ = ["check_optimizer", "device_finding", "listed", "without_values"]


def device_finding(model: nn.Module) -> Finding | None:
    """An error if the model's parameters and buffers lie on several devices; it names those on the rarer ones."""
    places: dict[torch.device, list[str]] = {}
    for name, leaf in (*model.named_parameters(), *model.named_buffers()):
        places.setdefault(leaf.device, []).append(name)
    if len(places) < 2:
        return None
    (most, _), *others = sorted(places.items(), key=lambda item: -len(item[1]))
    strays = "; ".join(f"{listed(names)} on {device}" for device, names in others)
    what = f"its tensors are on several devices: {strays}, the others on {most}"
    return Finding("error", what, "the model", f"Move it as a whole, model.to({str(most)!r}), before anything else.")


def without_values(model: nn.Module, device: torch.device) -> Finding | None:
    """An error if parameters are on the meta device, where tensors have shapes alone."""
    names = [name for name, leaf in model.named_parameters() if leaf.is_meta]
    if not names or device.type == "meta":
        return None
    fix = "Give the module memory and values: module.to_empty(device=…), then load or initialise its weights."
    return Finding("error", f"the model's parameters must be on {device}, got some on meta", listed(names), fix)


def check_optimizer(model: nn.Module, optimizer: Optimizer, criteria: Sequence[nn.Module] = ()) -> list[Finding]:
    """Errors of an optimizer that was made, or has stepped, before the model moved or was rebuilt.

    Parameters that the optimizer leaves out, and others that it trains besides, are the user's choice; that it has
    strangers of just the shapes that it lacks is not.

    Args:
        model: The model.
        optimizer: Its optimizer.
        criteria: May have parameters too, which are no strangers.
    """
    mine = {id(parameter): name for name, parameter in model.named_parameters(remove_duplicate=False)}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    has = {id(parameter) for parameter in held}
    known = mine.keys() | {id(parameter) for criterion in criteria for parameter in criterion.parameters()}
    strangers = [parameter for parameter in held if id(parameter) not in known]
    missing = [(name, p) for name, p in model.named_parameters() if p.requires_grad and id(p) not in has]
    shapes = Counter(tuple(parameter.shape) for parameter in strangers)
    lost = []
    for name, parameter in missing:
        if shapes[tuple(parameter.shape)]:
            shapes[tuple(parameter.shape)] -= 1
            lost.append(name)
    found = []
    if lost:
        what = (
            "the optimizer holds other parameters of the same shapes: it was made before the model was moved or rebuilt"
        )
        fix = "Make the optimizer of model.parameters() afterwards, or give its name and let the Trainer make it."
        found.append(Finding("error", what, listed(lost), fix))
    for parameter in held:
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.ndim and value.device != parameter.device:
                name = mine.get(id(parameter), "a parameter")
                what = f"the optimizer's {key} is on {value.device}, the parameter on {parameter.device}"
                fix = "It was made before the model moved: make it anew, or load its state_dict again."
                return [*found, Finding("error", what, name, fix)]
    return found


def listed(names: list[str], most: int = 8) -> str:
    """The first names and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
