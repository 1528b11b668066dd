"""A script as users write it, the same alone and under torchrun. It does some jobs, and saves what each came to."""

from __future__ import annotations

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import stoker
from stoker import Callback, Trainer
from stoker.training.callbacks import StepProgress
from stoker.training.history import Row

torch.set_num_threads(1)
RANK = int(os.environ.get("RANK", "0"))


def some(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, VALID_X = some(75, 4, seed=0), some(41, 4, seed=1)
Y, VALID_Y = X[:, :1] * 2 + X[:, 1:2].sin(), VALID_X[:, :1] * 2 + VALID_X[:, 1:2].sin()
LABELS, VALID_LABELS = (X[:, 0] > 0).long() + (X[:, 1] > 0.5), (VALID_X[:, 0] > 0).long() + (VALID_X[:, 1] > 0.5)


class Rows(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index], Y[index]


class Told(Callback):
    """Notes that it was told, and by request stops or falls over."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[float] = []
        self.stop_at = stop_at

    def on_step_end(self, step: StepProgress) -> bool | None:
        self.steps.append(float(step.loss))
        return None

    def on_epoch_end(self, row: Row, is_best: bool) -> bool | None:  # noqa: ARG002
        return row["epoch"] == self.stop_at


def do(job: str, out: Path) -> None:
    if job == "whole":
        whole(out)
        return
    torch.manual_seed(RANK)  # each would begin with other weights
    model: nn.Module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3 if job == "classes" else 1))
    told = Told(stop_at=2 if job == "callback" else None)
    settings: dict[str, Any] = {"lr": 0.05, "seed": 3}
    fitting: dict[str, Any] = {"epochs": 4, "batch_size": 16, "progress": "none", "callbacks": [told]}
    optimizer, criterion = "sgd", "cross-entropy" if job == "classes" else "mse"
    data: Any = (X, LABELS) if job == "classes" else (X, Y)
    valid: Any = (VALID_X, VALID_LABELS) if job == "classes" else (VALID_X, VALID_Y)
    if job == "adam":
        optimizer, settings = "adam", settings | {"lr": 0.01, "clip_norm": 0.5, "accumulate": 3, "ema": 0.9}
        settings |= {"schedule": "cosine"}
    elif job == "dataset":
        data, fitting = Rows(), fitting | {"loader_args": {"num_workers": 1}}
    elif job == "loader":
        data = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
    elif job == "lbfgs":
        optimizer, fitting = "lbfgs", fitting | {"epochs": 2, "batch_size": None}
        model = model.double()
        data, valid = (X.double(), Y.double()), (VALID_X.double(), VALID_Y.double())
    elif job == "unused":
        model = Unused(model)
        settings |= {"weight_decay": 0.1}
    elif job == "norm":
        model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 1))
    elif job == "tiny":
        valid = (VALID_X[:1], VALID_Y[:1])
    elif job == "die":
        fitting |= {"epochs": 10**6, "callbacks": []}
        if RANK == 1:
            model.register_forward_pre_hook(Dies(after=40))
    if RANK == 0:
        torch.manual_seed(0)
        for module in model.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
    trainer = Trainer(model, criterion, optimizer, device="cpu", **settings)
    history = trainer.fit(data, valid, **fitting)
    metrics = trainer.evaluate(valid)
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.clone() for name, tensor in model.state_dict().items()}, out / f"weights-{RANK}.safetensors"
    )
    text = {"rows": history.rows, "stopped": history.stopped, "metrics": metrics, "steps": told.steps}
    (out / f"history-{RANK}.json").write_text(json.dumps(text))


def whole(out: Path) -> None:
    run = stoker.fit("iris", epochs=3, seed=1, out=out / "run", progress="none", device="cpu", notify=print)
    told = {"path": str(run.path), "metrics": run.metrics, "notices": run.notices}
    (out / f"history-{RANK}.json").write_text(json.dumps(told))


def note_threads(out: Path) -> None:
    """Note which threads are left when Python ends: registered first, this comes last."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    (out / f"threads-{RANK}.json").write_text(json.dumps(names))


class Unused(nn.Module):
    """Has a part that no output depends on: without a gradient, weight decay must not move it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.idle = inner, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


class Dies:
    """Ends the process as a crash would, without a word to the others."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(13)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    if Path("/proc/self/task").is_dir():
        atexit.register(note_threads, Path(sys.argv[1]))
    for job in sys.argv[2:]:
        do(job, Path(sys.argv[1]) / job)
