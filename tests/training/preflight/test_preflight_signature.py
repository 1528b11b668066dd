"""Inputs that do not fit a model's signature are told beside it; what a signature does not tell passes."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from checking import X, mlp, some
from torch import Tensor, nn

from stoker.errors import InputTypeError
from stoker.training.preflight.signature import check_call

WIDE, DEEP = some(32, 2), some(32, 6).long()


class WideAndDeep(nn.Module):
    def forward(self, x_wide: Tensor, x_deep: Tensor, scale: float = 1.0, *, mask: Tensor | None = None) -> Any:
        return x_wide, x_deep, scale, mask


SIGNATURE = "WideAndDeep: the inputs must fit forward(x_wide, x_deep, scale=1.0, *, mask=None), got "


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            WIDE,
            "1 by position: float32 [32, 2]. Missing a required argument: 'x_deep'. "
            "Inputs are passed one by one from a tuple, and by name from a dict.",
        ),
        (
            (WIDE, DEEP, WIDE, WIDE),
            "4 by position: float32 [32, 2], int64 [32, 6], float32 [32, 2], float32 [32, 2]. Too many positional "
            "arguments. Inputs are passed one by one from a tuple, and by name from a dict.",
        ),
        (
            {"x_wide": WIDE, "X_depe": DEEP},
            "2 by name: x_wide float32 [32, 2], X_depe int64 [32, 6]. Missing a required argument: 'x_deep'. "
            "Of 'X_depe': Did you mean 'x_deep'? Known: x_wide, x_deep, scale, mask.",
        ),
        ({"x_wide": WIDE}, "1 by name: x_wide float32 [32, 2]. Missing a required argument: 'x_deep'."),
        (
            {"x_wide": WIDE, "x_deep": DEEP, "y": WIDE},
            "3 by name: x_wide float32 [32, 2], x_deep int64 [32, 6], y float32 [32, 2]. Got an unexpected keyword "
            "argument 'y'. Of 'y': Known: x_wide, x_deep, scale, mask.",
        ),
        ((), "nothing. Missing a required argument: 'x_wide'. Inputs are passed one by one from a tuple, and by"),
        ({}, "nothing. Missing a required argument: 'x_wide'."),
    ],
)
def test_inputs_that_do_not_fit(inputs: Any, text: str) -> None:
    with pytest.raises(InputTypeError, match=re.escape(SIGNATURE + text)):
        check_call(WideAndDeep(), inputs)


@pytest.mark.parametrize(
    "inputs",
    [
        (WIDE, DEEP),
        (WIDE, DEEP, 2.0),
        {"x_wide": WIDE, "x_deep": DEEP},
        {"x_deep": DEEP, "x_wide": WIDE, "mask": WIDE},
    ],
)
def test_inputs_that_fit(inputs: Any) -> None:
    check_call(WideAndDeep(), inputs)


class Whatever(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


class Rewritten(nn.Module):
    def __call__(self, everything: Any) -> Any:
        return super().__call__(everything, everything)

    def forward(self, one: Any, two: Any) -> Any:
        return one, two


class NoSignature(nn.Module):
    forward = min  # of C, of which inspect knows no signature


@pytest.mark.parametrize("inputs", [X, (X, X), {"a": X}, [X, X], None])
def test_signatures_that_tell_nothing(inputs: Any) -> None:
    for model in (Whatever(), NoSignature()):
        check_call(model, inputs)


def test_calls_that_are_rewritten() -> None:
    check_call(Rewritten(), X)
    model = WideAndDeep()
    model.register_forward_pre_hook(lambda _, args: (*args, DEEP))
    check_call(model, WIDE)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")  # of a kind that depends on the version of torch
def test_scripted_and_compiled_models() -> None:
    check_call(torch.jit.script(mlp()), X)
    compiled: Any = torch.compile(WideAndDeep())
    check_call(compiled, (WIDE, DEEP))
    with pytest.raises(InputTypeError, match=re.escape(SIGNATURE)):
        check_call(compiled, WIDE)


def test_a_list_is_one_input() -> None:
    check_call(nn.Identity(), [X, X])
    check_call(nn.Identity(), None)


def test_long_defaults_and_annotations_are_left_out() -> None:
    class Long(nn.Module):
        def forward(self, x: Tensor, table: Any = tuple(range(99))) -> Any:
            return x, table

    with pytest.raises(InputTypeError, match=re.escape("Long: the inputs must fit forward(x, table=Ellipsis), got 3")):
        check_call(Long(), (X, X, X))
