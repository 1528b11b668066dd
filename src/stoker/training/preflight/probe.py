"""The check: one forward and backward pass on a few rows, watched, and nothing left of it."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy
from torch.optim import Optimizer

from stoker.data.trees import batch_rows, call_model, leaves, tree_map
from stoker.engines.step import one_number
from stoker.errors import StokerError
from stoker.randomness import derive_seed, seed_globally
from stoker.training.objective import Objective, Part
from stoker.training.preflight.activations import misfit
from stoker.training.preflight.dependence import dependence, nudge
from stoker.training.preflight.failures import explain_forward
from stoker.training.preflight.findings import Finding
from stoker.training.preflight.finite import all_finite, non_finite_gradients, where_not_finite
from stoker.training.preflight.gradients import (
    gradients_of,
    no_gradient,
    trained_parameters,
    unused_parameters,
    vanished,
)
from stoker.training.preflight.inplace import about_in_place, explain_in_place
from stoker.training.preflight.precision import double_precision, is_double
from stoker.training.preflight.signature import check_call, describe
from stoker.training.preflight.statics import check_optimizer, without_values
from stoker.training.preflight.takes import what_it_takes
from stoker.training.preflight.targets import broadcast, explain_criterion, out_of_range
from stoker.training.preflight.untouched import same_draws, untouched
from stoker.training.preflight.watch import Call, Watch

__all__ = ["check"]

ROWS = 64  # enough for evidence, few enough to take no time
DRAWS = 3  # parameters that get no gradient are looked at again: layers may be left out at random


def check(
    model: nn.Module,
    objective: Objective,
    optimizer: Optimizer | None,
    inputs: Any,
    targets: Any,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
) -> list[Finding]:
    """Look for what goes wrong silently, or fails without saying why, by carrying out a step without its update.

    The model, criteria that are modules, the optimizer and all random numbers are left as they were (see
    :func:`stoker.training.preflight.untouched.untouched`). Hooks of the user's are called, as in any forward pass. A
    model in training mode is checked with each module in its own mode, one in evaluation mode as a whole in training
    mode, as it will be trained. At most 64 rows are used where every tensor has the same first dimension; what is
    found in them must show in the whole batch too. If the loss cannot be computed, nothing is said of what follows it.

    Args:
        model: On ``device``; a lazy one is copied first.
        objective: Turns outputs and targets into the loss.
        optimizer: Says which parameters are trained; ``None`` for all that are not frozen.
        inputs: Of one batch, on ``device``.
        targets: Likewise.
        device: Where training happens.
        autocast: The dtype to compute in where that is safe, or ``None``.

    Returns:
        What was found, errors first.

    Raises:
        InputTypeError: The inputs do not fit the model's signature, or a criterion returns no single number.
        UnknownNameError: The objective names an output or target that is not there.
        DataError: Outputs and targets are not of a kind that the objective can take apart.
        Exception: What the model or the criterion raises, where there are no better words for it.
    """
    check_call(model, inputs)
    if device.type == "meta":
        return []  # there are no values to look at
    criteria = [part.criterion for part in objective.parts if isinstance(part.criterion, nn.Module)]
    found = _some(without_values(model, device))
    found += [] if optimizer is None else check_optimizer(model, optimizer, criteria)
    if found:
        return found
    with warnings.catch_warnings(), same_draws(device), torch.enable_grad(), _eagerly(model):
        warnings.simplefilter("ignore")  # what a step warns of, it warns of itself
        if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
            model, optimizer = _copy_of_lazy(model), None
            with torch.no_grad(), same_draws(device):
                call_model(model, _mapped(torch.clone, inputs))
        with untouched([model, *criteria]) as rewind:
            probe = _Probe(model, objective, optimizer, targets, device, autocast, rewind)
            few = _few_rows(inputs, targets)
            if few is not None:
                with suppress(Exception):  # the whole batch decides
                    if not probe.look(*few):
                        return []
            found = probe.look(inputs, targets)
    return sorted(found, key=lambda finding: finding.severity != "error")


def _copy_of_lazy(model: nn.Module) -> nn.Module:
    buffers = [buffer for buffer in model.buffers() if is_lazy(buffer)]  # which torch cannot copy, unlike parameters
    fresh: Any = UninitializedBuffer  # of which mypy knows no arguments
    memo = {id(buffer): fresh(device=buffer.device, dtype=buffer.dtype) for buffer in buffers}
    return copy.deepcopy(model, memo)


def _few_rows(inputs: Any, targets: Any) -> tuple[Any, Any] | None:
    """The first rows; ``None`` where there are not more, or first dimensions differ and may count something else."""
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in (*leaves(inputs), *leaves(targets))}
    if not leaves(inputs) or len(sizes) != 1 or sizes.pop() <= ROWS:
        return None
    return _mapped(lambda leaf: leaf[:ROWS], inputs), _mapped(lambda leaf: leaf[:ROWS], targets)


def _mapped(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The tree with other tensors, passed to a model or criterion the same way as before."""
    mapped = tree_map(function, tree) if isinstance(tree, (Tensor, tuple, list, dict)) else tree
    return list(mapped) if isinstance(tree, list) else mapped


@dataclass
class _Probe:
    """One batch's forward and backward pass, carried out as often as it takes, each time from the same state."""

    model: nn.Module
    objective: Objective
    optimizer: Optimizer | None
    all_targets: Any
    device: torch.device
    autocast: torch.dtype | None
    rewind: Callable[[], None]

    @property
    def name(self) -> str:
        return f"the model ({type(self.model).__name__})"

    def afresh(self) -> None:
        """Bring the model back to where a step begins. Hooks are taken off by it, so it comes before a Watch."""
        self.rewind()
        if not self.model.training:
            self.model.train()

    def forward(self, inputs: Any, draw: int = 0) -> Any:
        """The outputs, with the same random numbers for the same ``draw``."""
        with same_draws(self.device), self._casting():
            if draw:
                _draw_others(draw, self.device)
            return call_model(self.model, _mapped(torch.clone, inputs))  # which forward may write to

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        with same_draws(self.device), self._casting():
            return one_number(self.objective(outputs, _mapped(torch.clone, targets)))

    def _casting(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def look(self, inputs: Any, targets: Any) -> list[Finding]:
        """What there is to find in a batch, in the order in which a step goes wrong."""
        notes = _Notes()
        self.afresh()
        watch = Watch(self.model, notes.take)
        try:
            with watch:
                outputs = self.forward(inputs)
        except StokerError:
            raise
        except Exception as error:
            return [self._forward_failed(error, watch, inputs, targets)]
        compared = [_Compared(part, *part.select(outputs, targets)[:2]) for part in self.objective.parts]
        whole = [part.select(outputs, self.all_targets)[1] for part in self.objective.parts]
        found = [finding for one, of_all in zip(compared, whole, strict=True) for finding in one.look(of_all, notes)]
        if _has_errors(found):
            return found
        try:
            loss = self.loss(outputs, targets)
        except StokerError:
            raise
        except Exception as error:
            return [*found, _explained(error, compared)]
        if not all_finite(loss):
            self.afresh()
            return [*found, where_not_finite(self.model, inputs, targets, lambda: self.forward(inputs))]
        used = [leaf.detach().clone() for one in compared for leaf in leaves(one.output)]
        found += self._backward(loss, outputs, inputs, targets, compared)
        if not _has_errors(found):
            found += _some(dependence(inputs, used, batch_rows(inputs, None), self._used_outputs(targets), self.name))
        against = [leaf for one in compared for leaf in leaves(one.target)]
        return found + _some(double_precision(self.model, inputs, used, against, loss, notes.maker_of_double))

    def _forward_failed(self, error: Exception, watch: Watch, inputs: Any, targets: Any) -> Finding:
        if about_in_place(error):
            return self._in_place(inputs, targets)
        call = watch.under_way[-1] if watch.under_way else None
        finding = explain_forward(error, call, self.model, inputs)
        if finding is None:
            if call is not None and call.path:
                error.add_note(f"It was raised in {call.name}, given {', '.join(map(describe, call.inputs))}.")
            raise error
        return finding

    def _in_place(self, inputs: Any, targets: Any) -> Finding:
        self.afresh()
        return explain_in_place(self.model, lambda: self.loss(self.forward(inputs), targets))

    def _backward(
        self, loss: Tensor, outputs: Any, inputs: Any, targets: Any, compared: list[_Compared]
    ) -> list[Finding]:
        trained = trained_parameters(self.model, self.optimizer)
        if not trained:
            return []
        if not loss.requires_grad:
            return [no_gradient(outputs, self.name)]
        try:
            grads = gradients_of(loss, trained, outputs)
        except RuntimeError as error:
            return [self._in_place(inputs, targets) if about_in_place(error) else _explained(error, compared)]
        if grads is None:
            return []
        if not grads.found:
            return [no_gradient(outputs, self.name)]
        if bad := non_finite_gradients(grads.found):
            return [bad]
        unused = [name for name in grads.missing if name not in grads.elsewhere]
        for draw in range(1, DRAWS):
            if unused:
                self.afresh()
                outputs = self.forward(inputs, draw)
                again = gradients_of(self.loss(outputs, targets), trained, outputs)
                unused = [name for name in unused if again is not None and name in again.missing]
        return [*_some(unused_parameters(unused)), *_some(vanished(grads.found, loss, self.name))]

    def _used_outputs(self, targets: Any) -> Callable[[Any, bool], list[Tensor]]:
        def forward(inputs: Any, nudged: bool) -> list[Tensor]:
            self.afresh()
            if nudged:
                nudge(self.model)
            outputs = self.forward(inputs)
            selected = [part.select(outputs, targets)[0] for part in self.objective.parts]
            return [leaf.detach() for output in selected for leaf in leaves(output)]

        return forward


@dataclass
class _Compared:
    """One output with its target."""

    part: Part
    output: Any
    target: Any

    @property
    def where(self) -> str:
        return "targets" if self.part.name is None else f"targets of output {self.part.name!r}"

    def look(self, all_targets: Any, notes: _Notes) -> list[Finding]:
        """What can be said of the two before the criterion is called, and of all targets of the batch."""
        if not isinstance(self.output, Tensor) or not isinstance(self.target, Tensor):
            return []
        takes = what_it_takes(self.part.criterion)
        wide = broadcast(self.part.criterion, takes, self.output, self.target, self.where)
        if wide is not None or takes is None:
            return _some(wide)
        source = "outputs" if self.part.name is None else f"output {self.part.name!r}"
        return [
            *_some(out_of_range(takes, self.output, all_targets, self.where)),
            *_some(misfit(takes, self.output, notes.makers, source)),
        ]

    def explain(self) -> Finding | None:
        """Why this criterion fails, alone; ``None`` if it does not, or if its own words are the best there are."""
        finding = explain_criterion(what_it_takes(self.part.criterion), self.output, self.target, self.where)
        if finding is None:
            return None
        output = self.output.detach().requires_grad_(self.output.requires_grad)
        try:
            loss = self.part.criterion(output, self.target)
            if loss.requires_grad:
                torch.autograd.grad(loss.sum(), output)
        except Exception:
            return finding
        return None


class _Notes:
    """What is remembered of a forward pass: which module within the model made which node of the graph, and float64."""

    def __init__(self) -> None:
        self.makers: dict[Any, str] = {}
        self.maker_of_double: str | None = None

    def take(self, call: Call) -> None:
        for leaf in call.outputs:
            if leaf.grad_fn is not None and call.path:
                self.makers.setdefault(leaf.grad_fn, call.name)
        if self.maker_of_double is None and any(map(is_double, call.outputs)) and not any(map(is_double, call.inputs)):
            self.maker_of_double = call.name


def _explained(error: Exception, compared: list[_Compared]) -> Finding:
    for one in compared:
        finding = one.explain()
        if finding is not None:
            return finding
    raise error


def _has_errors(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _some(finding: Finding | None) -> list[Finding]:
    return [] if finding is None else [finding]


def _draw_others(draw: int, device: torch.device) -> None:
    seed = derive_seed(draw, "check", bits=32)
    seed_globally(seed, device)
    random.seed(seed)
    np.random.seed(seed)


def _eagerly(model: nn.Module) -> AbstractContextManager[Any]:
    """Compiled modules are called as they were written: compiling takes longer than a check may."""
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
