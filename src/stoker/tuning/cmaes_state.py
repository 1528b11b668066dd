"""CMA-ES whose state is kept in a study as JSON.

Optuna's own sampler keeps a pickle in the study's storage, and loads it again: whoever can write to the file or the
database could have anything run on the machines of all who join the study.
"""

from __future__ import annotations

import json
from typing import Any

import cmaes
import numpy as np
import optuna
from optuna.trial import FrozenTrial

from stoker.errors import ConfigError

__all__ = ["PlainCmaEsSampler", "from_json", "to_json"]

MOST_DIMENSIONS = 1000
MOST_POPULATION = 100_000
MOST_VALUES = 4 * MOST_DIMENSIONS**2  # two matrices, and what is small beside them
MOST_LISTS = 8 * MOST_DIMENSIONS  # of which each takes sixty bytes of memory, be it two bytes long
_COUNTS = {"_g": 1 << 40, "_n_max_resampling": 100 * MOST_DIMENSIONS}  # which do not follow from the dimensions


class PlainCmaEsSampler(optuna.samplers.CmaEsSampler):
    """CMA-ES; see :class:`optuna.samplers.CmaEsSampler`, of which states in studies are not read.

    Args:
        seed: Of what is drawn.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._attr_prefix = "stoker:cma:"  # under another name than pickles, so that none is ever taken for ours
        self._taken: cmaes.CMA | None = None

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> cmaes.CMA | None:
        for trial in reversed(completed_trials):
            parts = {
                name: text for name, text in trial.system_attrs.items() if name.startswith(self._attr_key_optimizer)
            }
            if parts:
                self._taken = from_json(self._joined(parts, trial))
                return self._taken
        return None

    def _init_optimizer(self, *given: Any, **named: Any) -> cmaes.CMA:
        self._taken = super()._init_optimizer(*given, **named)
        return self._taken

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
        """What is stored: not the pickle that is given, but the state of what it was made of a moment ago."""
        del optimizer_str
        return super()._split_optimizer_str(to_json(self._taken))

    def _joined(self, parts: dict[str, Any], trial: FrozenTrial) -> str:
        names = [f"{self._attr_key_optimizer}:{place}" for place in range(len(parts))]
        if not all(isinstance(parts.get(name), str) for name in names):
            raise _damaged(f"parts of it in trial {trial.number}")
        return "".join(parts[name] for name in names)


def to_json(optimizer: cmaes.CMA) -> str:
    """The state of an optimizer but its random numbers, which are drawn anew for each trial."""
    state = {
        name: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        for name, value in optimizer.__getstate__().items()
    }
    return json.dumps(state)


def from_json(text: str) -> cmaes.CMA:
    """An optimizer with the state that :func:`to_json` gave, trusting nothing.

    Raises:
        ConfigError: It is no such state.
    """
    if text.count(",") > MOST_VALUES or text.count("[") + text.count("{") > MOST_LISTS:
        raise _damaged("more numbers than such a state has")
    try:
        state = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged("no JSON") from None
    size, population = (state.get(name) if isinstance(state, dict) else None for name in ("_n_dim", "_popsize"))
    if type(size) is not int or not 1 <= size <= MOST_DIMENSIONS:
        raise _damaged(f"{str(size)[:40]} dimensions")
    if type(population) is not int or not 2 <= population <= MOST_POPULATION:
        raise _damaged(f"a population of {str(population)[:40]}")
    optimizer = cmaes.CMA(mean=np.zeros(size), sigma=1.0, population_size=population)
    like = {**optimizer.__getstate__(), "_bounds": np.zeros((size, 2))}
    shapes = {"_D": (size,), "_B": (size, size)}  # which a fresh one does not have yet
    if state.keys() != like.keys():
        raise _damaged("other parts")
    optimizer.__setstate__({name: _like(name, state[name], like[name], shapes.get(name)) for name in like})
    return optimizer


def _like(name: str, value: Any, fresh: Any, shape: tuple[int, ...] | None) -> Any:
    """A value of the state, if it is of the kind that a fresh optimizer has there."""
    if value is None and name in ("_D", "_B", "_bounds"):
        return None
    if isinstance(fresh, np.ndarray) or shape is not None:
        try:
            array = np.array(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise _damaged(f"{name} that is no array") from None
        if array.shape != (fresh.shape if shape is None else shape):
            raise _damaged(f"{name} of the shape {list(array.shape)}")
        if name != "_funhist_values" and not np.isfinite(array).all():  # of which the latter part is not used yet
            raise _damaged(f"{name} that is not finite")
        return array
    if name in _COUNTS and type(value) is int and 0 <= value <= _COUNTS[name]:
        return value
    if type(fresh) in (bool, int):  # what follows from the dimensions
        if value is not fresh and (type(value) is not type(fresh) or value != fresh):
            raise _damaged(f"{name} of {str(value)[:40]}")
        return fresh
    if type(value) not in (int, float) or not abs(value) < 1e300:
        raise _damaged(f"{name} of {str(value)[:40]}")
    return type(fresh)(value)


def _damaged(got: str) -> ConfigError:
    fix = "Its storage is damaged: begin another study."
    return ConfigError("sampler cmaes", "must find its state in the study as Stoker wrote it", got, fix)
