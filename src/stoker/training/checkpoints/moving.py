"""Whether an optimizer's and a schedule's state could be their own: torch takes much of it on trust.

A moment of another shape would have a fused update read and write beside its memory; a schedule takes over whatever
attribute it is given. Of torch's own classes everything is looked at; what the user's remember is theirs to look at.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam
from torch.optim.lr_scheduler import LRScheduler

from stoker.training.checkpoints.checks import MOST, count, form, listed, number

__all__ = ["check_optimizer", "check_schedule"]

RATES = {"lr", "initial_lr", "max_lr", "min_lr"}
MOVING_SETTINGS = RATES | {"momentum", "betas", "base_momentum", "max_momentum", "weight_decay"}
"""Of an optimizer's group: what schedules move, and people by hand. The others stay as they were given."""

COUNTS = {"last_epoch", "_step_count", "num_bad_epochs", "cooldown_counter"}
MOVING = {*COUNTS, "_last_lr", "base_lrs", "best", "T_cur", "T_i"}
"""Of torch's schedulers: what moves. The others stay as they were built."""


def check_optimizer(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """See that an optimizer's state and settings could be its own.

    Raises:
        ArithmeticError: A number leads to others that are none.
        KeyError: Something is missing.
        RuntimeError: Torch refuses it.
        TypeError: Something is of another kind.
        ValueError: Something is of another value or shape.
    """
    own = type(optimizer).__module__.startswith("torch.optim.")
    for mine, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        _check_kinds(mine, theirs)
        if own:
            _check_settings(mine, theirs)
    if not own:
        return
    places = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    if [group["params"] for group in saved["param_groups"]] != places:
        raise ValueError("the optimizer's parameters are in another order")
    state: dict[Any, Any] = saved["state"]
    if not state.keys() <= {place for group in places for place in group}:
        raise ValueError("the optimizer has a state of parameters that are not there")
    if isinstance(optimizer, LBFGS):
        _check_lbfgs(optimizer, state.get(0, {}))
        return
    for mine, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for parameter, place in zip(mine["params"], theirs["params"], strict=True):
            _check_state(state.get(place, {}), type(optimizer), theirs, parameter)


def _check_settings(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    for name, value in mine.items():
        if name == "params":
            continue
        if name not in theirs:
            raise KeyError(name)
        if name in RATES and not isinstance(theirs[name], Tensor):
            number(theirs[name], name, finite=True)
        if name not in MOVING_SETTINGS and value != theirs[name]:
            raise ValueError(f"{name} is {str(theirs[name])[:60]}, not {value}")


def _check_state(saved: Any, kind: type[Optimizer], settings: Mapping[str, Any], parameter: Tensor) -> None:
    """Compare with what the optimizer makes of a gradient of zeros: only then is it known what it remembers."""
    alone = nn.Parameter(torch.zeros_like(parameter))
    names = inspect.signature(kind).parameters
    optimizer: Any = kind(
        [alone], **{name: value for name, value in settings.items() if name in names and name != "params"}
    )
    if not saved and not optimizer.state[alone]:
        return  # it had no gradient yet
    gradient = torch.zeros_like(alone)
    alone.grad = gradient.to_sparse() if kind is SparseAdam else gradient
    optimizer.step()
    fresh = optimizer.state[alone]
    if not isinstance(saved, dict) or saved.keys() != fresh.keys():
        raise ValueError(f"the optimizer remembers {str(list(saved))[:60]}, not {list(fresh)}")
    for name, value in fresh.items():
        _check_like(name, saved[name], value)


def _check_like(name: str, saved: Any, fresh: Any) -> None:
    if not isinstance(fresh, Tensor):
        if type(saved) is not type(fresh):
            raise TypeError(f"{name} is {type(saved).__name__}, not {type(fresh).__name__}")
        if type(fresh) is int:
            count(saved, name)
        return
    if not isinstance(saved, Tensor) or form(saved, shape=True) != form(fresh, shape=True):
        got = form(saved, shape=True) if isinstance(saved, Tensor) else type(saved).__name__
        raise ValueError(f"{name} is {got}, not {form(fresh, shape=True)}")
    # Counts and products, of which torch computes rates in Python's numbers.
    if fresh.ndim == 0 and not 0 <= float(saved) <= (1 if name == "mu_product" else MOST):
        raise ValueError(f"{name} is {float(saved)}")


def _check_lbfgs(optimizer: LBFGS, saved: Mapping[str, Any]) -> None:
    """L-BFGS remembers directions of all parameters together, at the first of them."""
    if not saved:
        return
    group = optimizer.param_groups[0]
    size, most = sum(parameter.numel() for parameter in group["params"]), group["history_size"]
    flat = torch.zeros(size, dtype=group["params"][0].dtype)
    count(saved["func_evals"], "func_evals")
    if not count(saved["n_iter"], "n_iter"):
        return
    for name in ("d", "prev_flat_grad"):
        _check_like(name, saved[name], flat)
    directions, steps, products = (listed(saved[name]) for name in ("old_dirs", "old_stps", "ro"))
    if not len(directions) == len(steps) == len(products) <= most:
        raise ValueError("the directions are not as many as their steps")
    for one in (*directions, *steps):
        _check_like("a direction", one, flat)
    factors = listed(saved.get("al", [None] * most))
    if len(factors) != most:
        raise ValueError(f"the factors are not {most}")
    held = [*products, *(one for one in factors if one is not None), saved["H_diag"], saved["t"], saved["prev_loss"]]
    for one in held:
        if not (isinstance(one, Tensor) and one.ndim == 0 and one.is_floating_point()):
            number(one, "a factor")


def check_schedule(scheduler: LRScheduler, saved: Any, moves: int | None) -> None:
    """See that a scheduler's state could be its own.

    Args:
        scheduler: As it was built.
        saved: The state.
        moves: How often it has moved, at most; ``None`` if that is not known.

    Raises:
        OverflowError: A number is too large.
        TypeError: Something is of another kind.
        ValueError: Something is missing, too much, or of another value.
    """
    mine = scheduler.state_dict()
    _check_kinds(mine, saved)
    if type(scheduler).__module__.startswith("torch.optim."):
        _check_moved(mine, saved, MOST if moves is None else moves)


def _check_moved(mine: Mapping[str, Any], saved: Mapping[str, Any], moves: int) -> None:
    if mine.keys() != saved.keys():
        raise ValueError(f"the schedule remembers {str(sorted(saved, key=str))[:200]}, not {sorted(mine)}")
    for name, value in mine.items():
        theirs = saved[name]
        if name == "_schedulers":  # of one that is made of others
            for one, other in zip(value, listed(theirs), strict=True):
                _check_kinds(one, other)
                _check_moved(one, other, moves)
        elif name in COUNTS:
            if theirs != -1:  # of one that waits for its turn
                count(theirs, name, moves if name == "last_epoch" else MOST)
        elif name in MOVING:
            for one in theirs if isinstance(theirs, (list, tuple)) else [theirs]:
                if not isinstance(one, Tensor):
                    number(one, name, finite=name != "best")
            if name == "T_i" and not theirs >= mine["T_0"]:
                raise ValueError(f"T_i is {theirs}")
        elif name != "lr_lambdas" and value != theirs:
            raise ValueError(f"the schedule's {name} is {str(theirs)[:60]}, not {value}")


def _check_kinds(mine: Mapping[str, Any], theirs: Any) -> None:
    """Make sure that settings are numbers where the fresh ones are, and so on: torch would tell in the first step.

    Raises:
        TypeError: One is of another kind.
    """
    if not isinstance(theirs, dict) or not all(isinstance(name, str) for name in theirs):
        raise TypeError(f"settings are {type(theirs).__name__}, not by name")
    for name, value in mine.items():
        if name != "params" and name in theirs and not _of_one_kind(value, theirs[name]):
            raise TypeError(f"{name} is {type(theirs[name]).__name__}, not {type(value).__name__}")


def _of_one_kind(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, (int, float, Tensor)):
        return isinstance(theirs, (int, float)) or (isinstance(theirs, Tensor) and theirs.numel() == 1)
    if isinstance(mine, (list, tuple)):
        numbers = len(mine) == len(theirs) if isinstance(theirs, (list, tuple)) else False
        return numbers and all(map(_of_one_kind, mine, theirs))
    return mine is None or type(mine) is type(theirs)
