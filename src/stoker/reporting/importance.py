"""How much worse a model gets when one column is shuffled: what it relies on.

Source: Breiman, Random Forests (2001), section 10; Fisher, Rudin and Dominici, All Models are Wrong, but Many are
Useful (2019), for any model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stoker.randomness import derive_seed

if TYPE_CHECKING:
    import torch

__all__ = ["Importance", "Places", "permutation_importance"]

Places = Mapping[str, Sequence[int]]
"""Where the features of one column are: input by name, and which of its features."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Importance:
    """What shuffling one column does.

    Attributes:
        column: Its name.
        mean: How much larger the error becomes, the mean over the repeats; about 0, or below, for what is of no use.
        std: The standard deviation over the repeats (``ddof=1``; 0 if there is but one).
        repeats: How many there were.
    """

    column: str
    mean: float
    std: float
    repeats: int


def permutation_importance(
    error: Callable[[dict[str, torch.Tensor]], float],
    inputs: Mapping[str, torch.Tensor],
    columns: Mapping[str, Places],
    *,
    repeats: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Importance]:
    """Shuffle one column at a time, over the rows, and measure again.

    All features that a column was made into move together. A column's permutations depend on the seed and its name, and
    not on which others there are.

    Args:
        error: The model's error on some inputs; smaller is better.
        inputs: ``[n, features]`` by name; not changed.
        columns: By column, where its features are.
        repeats: How often each is shuffled.
        seed: Of the permutations.
        progress: Told how many measurements are done, of how many.

    Returns:
        One for each column, the largest mean first, equal ones by name.
    """
    import torch

    rows = len(next(iter(inputs.values())))
    base = error(dict(inputs))
    total, done = len(columns) * repeats, 0
    found = []
    for name, places in columns.items():
        rng = np.random.default_rng(derive_seed(seed, "importance", name))
        worse: NDArray[Any] = np.empty(repeats)
        for repeat in range(repeats):
            order = torch.from_numpy(rng.permutation(rows))
            shuffled = dict(inputs)
            for key, features in places.items():
                where = torch.as_tensor(list(features))
                changed = inputs[key].clone()
                changed[:, where] = inputs[key][order][:, where]
                shuffled[key] = changed
            worse[repeat] = error(shuffled) - base
            done += 1
            if progress is not None:
                progress(done, total)
        std = float(worse.std(ddof=1)) if repeats > 1 else 0.0
        found.append(Importance(name, float(worse.mean()), std, repeats))
    return sorted(found, key=lambda one: (-one.mean, one.column))
