from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from stoker.errors import ConfigError, UnknownNameError
from stoker.training.device import autocast_dtype, deterministic_algorithms, resolve_device


class TestDevice:
    def test_the_cpu_is_always_there(self) -> None:
        assert resolve_device("cpu") == torch.device("cpu")
        assert resolve_device(torch.device("cpu")) == torch.device("cpu")

    def test_auto_is_the_best_there_is(self) -> None:
        expected = next(
            kind
            for kind, there in [
                ("cuda", torch.cuda.is_available()),
                ("mps", torch.backends.mps.is_available()),
                ("xpu", torch.xpu.is_available()),
                ("cpu", True),
            ]
            if there
        )
        assert resolve_device("auto").type == expected

    @pytest.mark.parametrize("name", ["gpu", "cuda:x", ""])
    def test_unknown(self, name: str) -> None:
        text = rf"device: must be one of the known names, got '{name}'\..* Known: auto, cpu, cuda, mps, xpu\."
        with pytest.raises(UnknownNameError, match=text):
            resolve_device(name)

    @pytest.mark.parametrize("name", ["cuda:99", "xpu:99", "mps:99"])
    def test_not_here(self, name: str) -> None:
        text = rf"device: must be a device of this machine, got '{name}'\. Here: .*cpu\."
        with pytest.raises(ConfigError, match=text):
            resolve_device(name)


@pytest.mark.parametrize(("precision", "dtype"), [("32", None), (32, None), ("bf16", torch.bfloat16)])
def test_precision(precision: Any, dtype: torch.dtype | None) -> None:
    assert autocast_dtype(precision) is dtype


def test_unknown_precision() -> None:
    text = r"precision: must be one of the known names, got 'bf61'\. Did you mean 'bf16'\? Known: 32, bf16\."
    with pytest.raises(UnknownNameError, match=text):
        autocast_dtype("bf61")


def setting() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )


class TestDeterministic:
    @pytest.fixture(autouse=True)
    def as_before(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        before = setting()
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        yield
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)

    @pytest.mark.parametrize("before", [(False, False, True), (True, True, False), (True, False, False)])
    def test_is_restored_whatever_happens(self, before: tuple[bool, bool, bool]) -> None:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]
        within: list[tuple[bool, bool, bool]] = []

        def work() -> None:
            with deterministic_algorithms(True):
                within.append(setting())
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            work()
        assert within == [(True, False, False)]
        assert setting() == before

    def test_cublas_is_told(self) -> None:
        with deterministic_algorithms(True):
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"

    def test_not_wanted(self) -> None:
        before = setting()
        with deterministic_algorithms(False):
            assert setting() == before
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
