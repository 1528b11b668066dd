"""Each update as XLA computes it, beside torch.optim's own: one step after the other, each from torch's state."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from test_updates import STEPS, TOLERANCE, assert_close, backward, batches, both_dtypes, kinds, lr_of, made, net, set_lr
from torch import Tensor, nn

from stoker.engines.capture import Captured, State, capture
from stoker.engines.step import Step
from stoker.engines.xla.crossing import copied
from stoker.engines.xla.device import CPU, on
from stoker.engines.xla.interpret import to_jax


def given(state: State, captured: Captured) -> list[Any]:
    """What the graph of an update takes, as arrays: parameters, gradients, slots, scalars."""
    turned, scalars = captured.turned, list[Tensor]()
    for cohort, names in zip(state.cohorts, captured.scalars, strict=True):
        group = state.groups[cohort.group]
        columns, _ = state.update.scalars(group, cohort.counts, [float(group["lr"])])
        scalars += [torch.tensor(float(columns[name][0]), dtype=cohort.dtype) for name in names]
    parameters = [parameter.detach() for parameter in state.parameters.values()]
    gradients = [parameter.grad for parameter in state.parameters.values()]
    return copied([*turned.turn(parameters), *turned.turn(gradients), *turned.turn_slots(state.slots), *scalars])


def as_torch(arrays: list[Any]) -> list[Tensor]:
    return [torch.from_numpy(np.array(array, order="C")) for array in arrays]


@kinds
@both_dtypes
@pytest.mark.parametrize("maximize", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_each_step_is_torchs(kind: str, dtype: torch.dtype, maximize: bool) -> None:
    model = net(dtype)
    optimizer = made(kind, model.parameters(), weight_decay=0.1, foreach=False, maximize=maximize)
    step = Step(model, nn.MSELoss(), optimizer)
    captured = capture(step, State.of(step), *next(batches(dtype)))
    assert any(captured.turned.parameters)  # one of the weights is kept turned
    update = jax.jit(to_jax(captured.update))
    for number, batch in zip(range(STEPS), batches(dtype), strict=False):
        set_lr(optimizer, lr_of(number))
        backward(model, batch, -1 if maximize else 1)
        state = State.of(step)
        with on(CPU):
            found = update(*given(state, captured))
        optimizer.step()
        after, place = State.of(step), len(state.parameters)
        mine = as_torch(captured.turned.turn(found[:place]))
        assert_close(mine, [parameter.detach() for parameter in after.parameters.values()])
        rtol, atol = TOLERANCE[dtype]
        for slot, expected in zip(as_torch(captured.turned.turn_slots(found[place:])), after.slots, strict=True):
            # a slot is a sum; where its terms cancel, the last bit of the terms is left, which is the larger
            scale = max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(slot, expected, rtol=rtol, atol=atol * scale)
