from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stoker.errors import OutOfMemoryError, StokerError
from stoker.training.memory import naming_batch_size, naming_data
from stoker.training.trainer import Trainer

PETABYTE = 1 << 50


class Huge(nn.Module):
    """Needs a petabyte, so that a real allocator really refuses."""

    def __init__(self, always: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        if self.always or not self.training:
            x = x + torch.empty(PETABYTE // 4).sum()
        out: Tensor = self.layer(x)
        return out


DATA = (torch.ones(70, 3), torch.ones(70, 1))


def test_fit_names_the_batch_size() -> None:
    trainer = Trainer(Huge(), "mse", "sgd", device="cpu")
    text = r"fit: a batch must fit into memory, got batch size 16\. Use a smaller one, or a smaller model\."
    with pytest.raises(OutOfMemoryError, match=text) as caught:
        trainer.fit(DATA, epochs=1, batch_size=16, progress="none")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert isinstance(caught.value, MemoryError)


def test_evaluating_and_predicting_name_the_rows_that_were_evaluated_at_once() -> None:
    trainer = Trainer(Huge(), "mse", "sgd", device="cpu")
    text = r"evaluation: a batch must fit into memory, got batch size 70\."
    with pytest.raises(OutOfMemoryError, match=text):
        trainer.evaluate(DATA)
    with pytest.raises(OutOfMemoryError, match=text):
        trainer.predict(DATA[0])


def test_a_validation_that_does_not_fit_is_not_taken_for_training() -> None:
    trainer = Trainer(Huge(always=False), "mse", "sgd", device="cpu")
    with pytest.raises(OutOfMemoryError, match=r"evaluation: a batch must fit into memory, got batch size 70\."):
        trainer.fit(DATA, DATA, epochs=1, batch_size=16, progress="none")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_the_words_of_every_allocator(error: BaseException) -> None:
    with (
        pytest.raises(
            OutOfMemoryError, match=r"here: a batch must fit into memory, got batch size unknown\."
        ) as caught,
        naming_batch_size("here", None),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_data_that_do_not_fit_are_told_apart() -> None:
    text = r"fit: the data must fit into the memory of cpu, got too many\. Pass a Dataset or a DataLoader, which move"
    with pytest.raises(OutOfMemoryError, match=text), naming_data("fit", torch.device("cpu")):
        torch.empty(PETABYTE)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        OutOfMemoryError("fit", "a batch must fit into memory", "batch size 3"),
        StokerError("a model that was called", "out of memory"),
    ],
)
def test_other_errors_go_through(error: Any) -> None:
    with pytest.raises(type(error)) as caught, naming_batch_size("here", 7):
        raise error
    assert caught.value is error
