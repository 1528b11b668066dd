"""Checkpoints that somebody has edited, with a digest that fits again; and trainings that go on from them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mutations import any_json, damaged_bytes, damaged_tensors, damaged_text
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR
from torch.utils.data import DataLoader, TensorDataset

from stoker.training.callbacks import Callback
from stoker.training.checkpoints.files import FORMAT, _apart, _digest, checkpoint_paths
from stoker.training.checkpoints.tree import pack, unpack
from stoker.training.history import Row, history_csv
from stoker.training.trainer import Trainer

__all__ = ["KINDS", "consistent", "forged", "go_on", "make_checkpoints", "parts_of", "resealed", "resumed"]

EPOCHS = 2
ODD_KEYS = ("", "a", "__class__", "step", "optimizer", "get_lr", "\ud800", 0, -1, 7, 10**30, 0.5)


def _some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Counting(Callback):
    """Has a state, which it looks at."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_epoch_end(self, _row: Row, _is_best: bool) -> bool | None:
        self.epochs += 1
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epochs = int(state["epochs"])


def _net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))


def _loader(data: TensorDataset) -> DataLoader[Any]:
    return DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(5))


def _milestones(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return MultiStepLR(optimizer, [1, 3])


KINDS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "schedule": "cosine", "ema": 0.9, "loader": True},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "schedule": "plateau"},
    "one-cycle": {"optimizer": "adamw", "schedule": "one-cycle"},
    "steps": {"optimizer": "rmsprop", "schedule": "step", "clip_norm": 1.0, "accumulate": 2},
    "milestones": {"optimizer": "adamw", "schedule": _milestones},
    "lbfgs": {"optimizer": "lbfgs"},
}
"""Trainings of every kind of state, by name."""


def go_on(kind: str, folder: Path, epochs: int = EPOCHS, **settings: Any) -> None:
    """Train, from the newest checkpoint if there is one; and look at all that comes of it."""
    chosen = {"criterion": "mse", "lr": 0.01, "seed": 3, "device": "cpu", "engine": "eager", **KINDS[kind]}
    data = TensorDataset(_some(24, 3), _some(24, 1, seed=1))
    train: Any = _loader(data) if chosen.pop("loader", False) else data.tensors
    trainer = Trainer(_net(), **chosen)
    history = trainer.fit(
        train, (_some(8, 3, seed=2), _some(8, 1, seed=3)), epochs=epochs, batch_size=8, patience=4, progress="none",
        callbacks=[Counting()], checkpoint=folder, resume=True, **settings,
    )  # fmt: skip
    assert len(history.rows) <= 100
    history_csv(history.rows)
    _ = [history.best, history.column("train_loss"), repr(history)]
    trainer.predict(_some(3, 3))


def make_checkpoints(kind: str, folder: Path) -> dict[str, bytes]:
    """In the middle of an epoch, after its last update, between two epochs, and at the end; by these names."""
    found = {}
    for every in ("1steps", "1epoch"):
        (folder / every).mkdir(parents=True)
        go_on(kind, folder / every, checkpoint_every=every, keep=99)
        found[every] = [path.read_bytes() for path in reversed(checkpoint_paths(folder / every))]
    updates = len(found["1steps"]) // EPOCHS
    within, after = found["1steps"][updates], found["1steps"][updates - 1]
    return {"within": within, "after": after, "between": found["1epoch"][0], "end": found["1epoch"][-1]}


def parts_of(data: bytes) -> tuple[str, dict[str, Tensor]]:
    """The state of a checkpoint's bytes, as text, and its tensors."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]["state"], load(data)


def resealed(text: str, tensors: dict[str, Tensor]) -> bytes:
    """A checkpoint of this state, with the digest that it must have."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save(tensors, {"stoker-checkpoint": FORMAT, "state": text, "digest": _digest(text, tensors)})


def consistent(data: bytes) -> bytes:
    """The same checkpoint with a digest that fits; as it is where it is none."""
    try:
        return resealed(*parts_of(data))
    except Exception:
        return data


def forged(data: bytes, chance: random.Random) -> bytes:
    """A checkpoint that somebody changed by its structure, and whose digest they made to fit again."""
    kind = chance.random()
    if kind < 0.1:
        return damaged_tensors(data, chance)
    try:
        text, tensors = parts_of(data)
        if kind < 0.25:
            return resealed(damaged_text(text.encode(), chance).decode(), tensors)
        value = _changed(unpack(json.loads(text), tensors), chance)
        kept: dict[str, Tensor] = {}
        return resealed(json.dumps(pack(value, kept, "state")), _apart(kept))
    except Exception:  # of bytes that are no checkpoint any more, as a fuzzer has them
        return damaged_bytes(data, chance)


def _changed(value: Any, chance: random.Random) -> Any:
    """A few of its values replaced, removed, doubled or renamed; in a few parts, for one may be most of all."""
    value = _editable(value)
    for _ in range(chance.choice((1, 1, 2, 3))):
        part = chance.choice([name for name in value if name not in ("job", "environment") or chance.random() < 0.1])
        holder, key = chance.choice([(value, part), *_places(value[part])])
        match chance.randrange(8):
            case 0:
                del holder[key]
                if not value:
                    return value
            case 1 if isinstance(holder, dict):
                holder[chance.choice((*ODD_KEYS, *holder))] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder.extend([holder[key]] * chance.choice((1, 2, 50)))
            case 3:
                other, name = chance.choice(list(_places(value)))
                holder[key] = _editable(other[name])
            case 4 | 5 | 6 if isinstance(holder[key], Tensor):
                holder[key] = _other_tensor(holder[key], chance)
            case 4 | 5 | 6 if type(holder[key]) in (int, float):
                one = holder[key]
                holder[key] = chance.choice(
                    (-one, one * 10**6, one + 1, -1, 0, 0.5, str(one), [one], torch.tensor(one))
                )
            case _:
                holder[key] = any_json(chance)
    return value


def _editable(value: Any) -> Any:
    """A copy, whose tuples are lists."""
    if isinstance(value, dict):
        return type(value)({key: _editable(entry) for key, entry in value.items()})
    return [_editable(part) for part in value] if isinstance(value, (list, tuple)) else value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _other_tensor(tensor: Tensor, chance: random.Random) -> Tensor:
    """Of other values, another dtype or another shape."""
    flat = tensor.reshape(-1)
    dtypes = torch.float64, torch.int64, torch.bool, torch.float16, torch.uint8, torch.complex64
    number = chance.choice((float("nan"), float("inf"), 1e38, -1.0, 0.0))
    shapes = flat, tensor[None], flat[:1], flat[:0], torch.cat([flat] * 3), torch.zeros(2, 3, 4), flat.sum()
    match chance.randrange(3):
        case 0:
            whole = not tensor.is_floating_point()
            return tensor * chance.choice((-1, 0, 100)) if whole else torch.full_like(tensor, number)
        case 1:
            return tensor.to(chance.choice(dtypes))
        case _:
            return chance.choice(shapes).clone()


def resumed(kind: str, data: bytes, folder: Path, epochs: int = EPOCHS) -> None:
    """Go on from these bytes as the only checkpoint; an error goes through.

    Args:
        kind: The training.
        data: The checkpoint.
        folder: Made anew.
        epochs: How many are asked for.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "step-0000000002.safetensors").write_bytes(data)
    go_on(kind, folder, epochs)
