"""What must be the same for a training to go on to the same bits: its settings, its data, the software, the machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker._version import __version__
from stoker.data.batches import Batches
from stoker.data.resident import ResidentBatches
from stoker.data.trees import leaves
from stoker.errors import CheckpointError
from stoker.training.objective import Objective

__all__ = ["about_data", "about_optimizer", "about_training", "environment", "refuse_difference"]

PLAIN = (bool, int, float, str, type(None), torch.dtype)
MOVED = {"params", "param_names", "initial_lr", "max_lr", "min_lr"}  # of a group: not settings, or a schedule's own
HASHED_BYTES = 16 << 20  # of larger data every so many rows are hashed: it must not take longer than an epoch


class Trained(Protocol):
    """What is compared of a :class:`stoker.Trainer`, which is described there."""

    seed: int
    objective: Objective
    model: nn.Module
    optimizer_made: str
    schedule: Any
    schedule_settings: Mapping[str, Any] | None
    schedule_interval: Any
    clip_norm: float | None
    accumulate: int
    ema: float | None
    engine_asked: str
    deterministic: bool
    autocast: torch.dtype | None
    channels_last: bool
    device: torch.device


def environment(device: torch.device) -> dict[str, Any]:
    """What numbers may depend on besides the job itself."""
    try:
        jax: str | None = version("jax")
    except PackageNotFoundError:
        jax = None
    return {
        "Stoker's version": __version__,
        "torch's version": str(torch.__version__),
        "JAX's version": jax,
        "the number of threads": torch.get_num_threads(),
        "the device": device.type,
    }


def about_optimizer(optimizer: Optimizer) -> str:
    """An optimizer's kind and settings, in words, those of its groups where they have their own."""
    groups = [(len(group["params"]), _own_settings(group, optimizer.defaults)) for group in optimizer.param_groups]
    text = f"{type(optimizer).__name__}({_written(optimizer.defaults)})"
    if len(groups) == 1 and not groups[0][1]:
        return text
    return f"{text} of {', '.join(f'{size} tensors ({own})' if own else f'{size} tensors' for size, own in groups)}"


def _own_settings(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    made = {**group, "lr": group.get("max_lr", group.get("initial_lr", group["lr"]))}
    return _written({name: made[name] for name in made.keys() - MOVED if made[name] != defaults.get(name)})


def _written(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in sorted(settings.items()))


def about_modules(what: str, module: nn.Module, *, all_attributes: bool = False) -> dict[str, str]:
    """Each module's kind and settings, in words: dropout's rate, a batch norm's momentum.

    Args:
        what: The module is.
        module: The module, with those within.
        all_attributes: Whether the settings of classes other than torch's are their plain attributes too. If not, they
            are what ``extra_repr`` shows: an attribute may be anything, such as a counter.

    Returns:
        By name: ``{"the model": "Sequential()", "the model's 0": "Dropout(inplace=False, p=0.1)"}``.
    """
    found = {what: ""}
    for path, one in module.named_modules():
        kind = type(one)
        shown = _written(_attributes(one)) if all_attributes or _of(kind, "torch") else one.extra_repr()
        text = re.sub(r" at 0x[0-9a-fA-F]+", "", shown)
        found[f"{what}'s {path}" if path else what] = f"{kind.__qualname__}({text})"
    return found


def _attributes(module: nn.Module) -> dict[str, Any]:
    """The numbers, texts and names of functions among a module's public attributes."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        if isinstance(value, PLAIN) or (
            isinstance(value, (tuple, list)) and all(isinstance(one, PLAIN) for one in value)
        ):
            found[name] = value
        elif callable(value) and hasattr(value, "__qualname__"):
            found[name] = value.__qualname__
    return found


def _of(kind: type, *packages: str) -> bool:
    return kind.__module__.partition(".")[0] in packages


def about_data(batches: Batches | None) -> str:
    """The data, in words: what kind, shapes, and of tensors a hash of their bytes."""
    if batches is None:
        return "none"
    size = f"{batches.rows} rows in batches of {batches.batch_size}"
    if not isinstance(batches, ResidentBatches):
        return f"{type(batches).__name__} of {size}"
    return f"{size} of {_about_tensors([*leaves(batches.inputs), *leaves(batches.targets)])}"


def _about_tensors(tensors: Iterable[Tensor]) -> str:
    tensors = list(tensors)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        rows = tensor.detach() if tensor.ndim else tensor.detach()[None]
        part = rows[:: max(1, -(-total // HASHED_BYTES))].cpu().contiguous()
        digest.update(part.reshape(-1).view(torch.uint8).numpy().data)
    shapes = ", ".join(f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}" for tensor in tensors)
    return f"{shapes}, {digest.hexdigest()}"


def refuse_difference(saved: Mapping[str, Any], now: Mapping[str, Any], fix: str) -> None:
    """Name the first thing that is not as it was.

    Args:
        saved: By name, as the checkpoint has it.
        now: Likewise, as it is.
        fix: What to do about it.

    Raises:
        CheckpointError: There is one.
    """
    for name, value in now.items():
        theirs = saved.get(name)
        if isinstance(theirs, Tensor) or theirs != value:  # tensors are compared number by number
            raise CheckpointError("resume", f"{name} must be the checkpoint's, {theirs}", value, fix)


def about_training(
    trainer: Trained, train: Batches, valid: Batches | None, settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What must be the same for the same bits, by name, in words and numbers.

    Args:
        trainer: Whose settings count.
        train: What is trained on.
        valid: What is validated on.
        settings: Of the call to ``fit``.

    Returns:
        ``"job"``: what must not differ at all. ``"environment"``: what may if the user says so.
    """
    return {"job": _job(trainer, train, valid, settings), "environment": environment(trainer.device)}


def _job(trainer: Trained, train: Batches, valid: Batches | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    parts = [(part.name, _name(part.criterion), part.loss.weight) for part in trainer.objective.parts]
    shuffle = train.shuffle if isinstance(train, ResidentBatches) else None
    return {
        "the seed": trainer.seed,
        "the criterion": repr(parts),
        **_about_criteria(trainer),
        **about_modules("the model", trainer.model),
        "the optimizer": trainer.optimizer_made,
        "the schedule": None if trainer.schedule is None else _name(trainer.schedule),
        "the schedule's settings": repr(sorted((trainer.schedule_settings or {}).items())),
        "the schedule's interval": trainer.schedule_interval,
        "clip_norm": trainer.clip_norm,
        "accumulate": trainer.accumulate,
        "ema": trainer.ema,
        "the engine": trainer.engine_asked,
        "deterministic": trainer.deterministic,
        "the precision": str(trainer.autocast),
        "channels_last": trainer.channels_last,
        "shuffle": shuffle,
        **settings,
        "the training data": about_data(train),
        "the validation data": about_data(valid),
    }


def _about_criteria(trainer: Trained) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in trainer.objective.parts:
        what = "the criterion" if part.name is None else f"the criterion of {part.name!r}"
        if isinstance(part.criterion, nn.Module):
            found |= about_modules(f"{what}'s settings", part.criterion, all_attributes=True)
            # torch's and Stoker's keep classes' weights there; what others keep may move with the training
            modules = [one for one in part.criterion.modules() if _of(type(one), "torch", "stoker")]
            if held := [buffer for one in modules for buffer in one.buffers(recurse=False)]:
                found[f"{what}'s tensors"] = _about_tensors(held)
    return found


def _name(thing: Any) -> str:
    if isinstance(thing, partial):
        return f"{_name(thing.func)}(*{thing.args!r}, **{thing.keywords!r})"
    return thing if isinstance(thing, str) else str(getattr(thing, "__qualname__", type(thing).__qualname__))
