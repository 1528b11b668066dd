"""Whether a program makes the updates that it should: beside those of torch, and under the noise that it draws itself.

No eager step draws the noise that a program draws. So a program that draws is compared when it is made: its first
updates, on copies of the state, with the same ones made by torch: the captured graph, operator by operator, in which
what is random is drawn as the program draws it, and the user's kind of optimizer on the gradients. That the graph is
the step was found out when it was captured (:mod:`stoker.engines.fidelity`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from stoker.engines.capture import Captured, CaptureError, State
from stoker.engines.fidelity import far
from stoker.engines.plan import COMPARED, Plan
from stoker.engines.step import Step
from stoker.engines.updates.state import read_state
from stoker.engines.xla.crossing import to_torch
from stoker.engines.xla.interpret import IGNORED, draws_numbers
from stoker.engines.xla.noise import drawn
from stoker.engines.xla.program import Carry, Program
from stoker.engines.xla.scan import Data, Scan
from stoker.engines.xla.table import RANDOM

__all__ = ["Came", "Rehearsal", "difference"]

SEED = 0  # of the noise


@dataclass(frozen=True)
class Came:
    """What an update came to.

    Attributes:
        loss: Before it.
        before: The parameters before it.
        after: The same after it, with its gradients.
        buffers: After it.
    """

    loss: float
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


def difference(carry: Carry, loss: float, wanted: Came, *, half: bool) -> str | None:
    """How a program's update differs from torch's, made from the same state, beyond rounding; ``None`` if it does not.

    Args:
        carry: The state that the program came to.
        loss: Of its update.
        wanted: What torch came to.
        half: Whether they were computed in half precision: then a product's last bits are those of its kernel, of 8.
    """
    if not math.isclose(loss, wanted.loss, rel_tol=1e-2 if half else 1e-4, abs_tol=1e-6):
        return f"the compiled step's loss is {loss:.6g}, not {wanted.loss:.6g}"
    gradients = {name: parameter.grad for name, parameter in wanted.after.items()}
    largest = max((float(g.abs().max()) for g in gradients.values() if g is not None and g.numel()), default=0.0)
    for (name, parameter), array in zip(wanted.after.items(), carry[0], strict=True):
        gradient, old = gradients[name], wanted.before[name]
        if gradient is None:
            return f"{name} got no gradient in a later step"
        change, moved = parameter.detach() - old, to_torch(array) - old
        # An optimizer that divides by a gradient's size makes steps of rounding errors where it should be zero.
        real = gradient.abs() > (0.05 if half else 1e-4) * largest
        least = 1e-5 * float(old.abs().max() + 1e-3) if old.numel() else 0.0
        if not _same_moves(moved[real], change[real], least, half):
            return f"the compiled step moves {name} otherwise than the eager one"
    for (name, buffer), array in zip(wanted.buffers.items(), carry[1], strict=True):
        if far(to_torch(array), buffer.detach(), half=half):
            return f"the compiled step leaves another {name} than the eager one"
    return None


def _same_moves(mine: Tensor, theirs: Tensor, least: float, half: bool) -> bool:
    """Whether a parameter's elements moved alike.

    In half precision a unit that is at its activation's kink may be on either side of it, by the last of 8 bits, and
    sums of terms of both signs keep fewer bits than that; so single elements differ by any ratio, and all of them
    together by some hundredths of their norm.
    """
    if not half:
        return torch.allclose(mine, theirs, rtol=1e-2, atol=least)
    return float((mine - theirs).norm()) <= 0.1 * float(theirs.norm()) + least * math.sqrt(theirs.numel())


class Rehearsal:
    """The first updates of an epoch on copies of the state, for a step that draws noise.

    The copies are taken here; what becomes of the step afterwards, in another thread, makes no difference.

    Args:
        captured: The step.
        step: Likewise.
        state: As it is now.
        plan: An epoch.
        data: Its data.
    """

    def __init__(self, captured: Captured, step: Step, state: State, plan: Plan, data: Data) -> None:
        self._captured, self._plan, self._data = captured, plan, data
        self._draws = draws_numbers(captured.gradients)
        if not self._draws:
            return  # its first updates will be compared with real ones
        copies = {name: _copied(one) for name, one in state.parameters.items()}
        memo = {id(one): copies[name] for name, one in state.parameters.items()}
        optimizer = copy.deepcopy(step.optimizer, memo)
        cohorts = tuple(read_state(optimizer, state.update, copies.values()))
        names = {id(one): name for name, one in copies.items()}
        self._step = replace(step, optimizer=optimizer, schedule=None)
        self._state = replace(
            state,
            parameters={names[id(one)]: one for cohort in cohorts for one in cohort.parameters},
            buffers={name: _copied(one) for name, one in state.buffers.items()},
            constants={name: _copied(one) for name, one in state.constants.items()},
            groups=tuple(optimizer.param_groups),
            cohorts=cohorts,
            averages=tuple(map(_copied, state.averages)),
        )
        self._windows = [plan.window(step, place) for place in range(COMPARED)]

    def passed(self, program: Program) -> Program:
        """The program, if it makes the updates that torch makes, or draws no noise.

        Raises:
            CaptureError: It makes others.
        """
        if not self._draws:
            return program
        state, groups = self._state, self._state.groups
        for place in range(COMPARED):
            scan = Scan(program, self._step, state, self._plan, self._data, SEED)
            scan.put(place, [[float(group["lr"])] for group in groups], groups)
            wanted = self._by_torch(place, state)
            if not math.isfinite(wanted.loss):
                return program  # the step itself goes wrong, which is told elsewhere
            (loss,) = scan.made(place, place + 1)
            reason = difference(scan.carry, loss, wanted, half=program.signature.half)
            if reason is not None:
                raise CaptureError(reason)
            # The next one begins where torch's ended: rounding errors of which an optimizer has made whole steps, as of
            # a bias before a batch norm, would make another loss.
            cohorts = tuple(read_state(self._step.optimizer, state.update, state.parameters.values()))
            state = replace(state, buffers=dict(wanted.buffers), cohorts=cohorts)
        return program

    def _by_torch(self, place: int, state: State) -> Came:
        step, window, found = self._step, self._windows[place], list[list[Any]]()
        before = {name: _copied(one) for name, one in state.parameters.items()}
        buffers = list(state.buffers.values())
        for part, batch in enumerate(window):
            noise = _Noisy(self._captured.gradients, step.device, place * len(window) + part)
            given = (state.parameters, buffers, state.constants, state.rates, *batch)
            loss, gradients, buffers = noise.outputs(pytree.tree_leaves(given))
            found.append([loss, *gradients])
        loss, *gradients = (sum(parts) / len(parts) for parts in zip(*found, strict=True))
        for parameter, gradient in zip(state.parameters.values(), gradients, strict=True):
            parameter.grad = gradient
        if step.clip_norm is not None:
            nn.utils.clip_grad_norm_(state.parameters.values(), step.clip_norm)
        step.optimizer.step()
        return Came(float(loss), before, state.parameters, dict(zip(state.buffers, buffers, strict=True)))


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


class _Noisy(fx.Interpreter):
    """Carries out a graph, in which what is random is drawn as a program draws it.

    Args:
        graph: Of gradients.
        device: Where its tensors are.
        number: Of the batch, from the epoch's first on.
    """

    def __init__(self, graph: fx.GraphModule, device: torch.device, number: int) -> None:
        super().__init__(graph)
        self._device, self._number, self._draws = device, number, 0

    def outputs(self, values: Sequence[Tensor]) -> Any:
        plain = torch.autocast(self._device.type, enabled=False)  # what is cast within it is cast in the graph
        with torch.no_grad(), plain:
            return self.run(*values)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if str(target) not in RANDOM:
            return super().call_function(target, args, kwargs)
        others = {name: value for name, value in kwargs.items() if name not in IGNORED}
        found = drawn(str(target), args, others, SEED, (self._number, self._draws))
        self._draws += 1
        return pytree.tree_map(lambda one: one.to(self._device), found)
