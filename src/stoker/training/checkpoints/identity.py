"""What must be the same for a training to go on to the same bits: its settings, its data, the software, the machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from stoker._version import __version__
from stoker.data.batches import Batches
from stoker.data.resident import ResidentBatches
from stoker.data.trees import leaves
from stoker.errors import CheckpointError

if TYPE_CHECKING:
    from stoker.training.trainer import Trainer

__all__ = ["about_data", "about_optimizer", "about_training", "environment", "refuse_difference"]

HASHED_BYTES = 16 << 20  # of larger data every so many rows are hashed: it must not take longer than an epoch


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
    """An optimizer's kind and settings, in words."""
    settings = ", ".join(f"{name}={value!r}" for name, value in sorted(optimizer.defaults.items()))
    return f"{type(optimizer).__name__}({settings})"


def about_data(batches: Batches | None) -> str:
    """The data, in words: what kind, shapes, and of tensors a hash of their bytes."""
    if batches is None:
        return "none"
    size = f"{batches.rows} rows in batches of {batches.batch_size}"
    if not isinstance(batches, ResidentBatches):
        return f"{type(batches).__name__} of {size}"
    tensors = [*leaves(batches.inputs), *leaves(batches.targets)]
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        part = tensor.detach()[:: max(1, -(-total // HASHED_BYTES))].cpu().contiguous()
        digest.update(part.reshape(-1).view(torch.uint8).numpy().data)
    shapes = ", ".join(f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}" for tensor in tensors)
    return f"{size} of {shapes}, {digest.hexdigest()}"


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
        if saved.get(name) != value:
            raise CheckpointError("resume", f"{name} must be the checkpoint's, {saved.get(name)}", value, fix)


def about_training(
    trainer: Trainer, train: Batches, valid: Batches | None, settings: Mapping[str, Any]
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


def _job(trainer: Trainer, train: Batches, valid: Batches | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    parts = [(part.name, _name(part.criterion), part.loss.weight) for part in trainer.objective.parts]
    shuffle = train.shuffle if isinstance(train, ResidentBatches) else None
    return {
        "the seed": trainer.seed,
        "the criterion": repr(parts),
        "the optimizer": about_optimizer(trainer.optimizer),
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


def _name(thing: Any) -> str:
    return thing if isinstance(thing, str) else str(getattr(thing, "__qualname__", type(thing).__qualname__))
