"""Permutation importance: of a model that is known, beside its theory and scikit-learn's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.inspection import permutation_importance as theirs
from sklearn.linear_model import LinearRegression

from stoker.reporting.importance import permutation_importance

WEIGHTS = np.array([3.0, 1.0, 0.0, 0.5])
COLUMNS = {"three": {"numeric": [0]}, "one": {"numeric": [1]}, "nothing": {"numeric": [2]}, "half": {"numeric": [3]}}


def data(n: int = 4000) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    values = np.random.default_rng(0).normal(size=(n, 4))
    return {"numeric": torch.from_numpy(values)}, torch.from_numpy(values @ WEIGHTS)


def error(inputs: Mapping[str, torch.Tensor]) -> float:
    """The mean squared error of the true model."""
    target = data(len(inputs["numeric"]))[1]
    return float((inputs["numeric"] @ torch.from_numpy(WEIGHTS) - target).square().mean())


def test_it_is_what_theory_says() -> None:
    inputs, _ = data()
    found = permutation_importance(error, inputs, COLUMNS, repeats=8)
    assert [one.column for one in found] == ["three", "one", "half", "nothing"]
    # w·(x' - x) with independent x, x' of variance 1
    assert [one.mean for one in found] == pytest.approx([18, 2, 0.5, 0], rel=0.05)
    assert found[-1].mean == found[-1].std == 0
    assert all(0 < one.std < 0.1 * one.mean for one in found[:3])
    assert {one.repeats for one in found} == {8}


def test_it_agrees_with_scikit_learn() -> None:
    inputs, target = data(500)
    values = inputs["numeric"].numpy()
    model = LinearRegression().fit(values, target.numpy())
    mine = {one.column: one for one in permutation_importance(error, inputs, COLUMNS, repeats=40)}
    other = theirs(model, values, target.numpy(), scoring="neg_mean_squared_error", n_repeats=40, random_state=0)
    assert [mine[name].mean for name in COLUMNS] == pytest.approx(other.importances_mean, rel=0.05, abs=1e-9)
    assert mine["three"].std == pytest.approx(other.importances_std[0], rel=0.6)


def test_features_of_one_column_move_together() -> None:
    x = torch.arange(50.0)[:, None]
    inputs = {"numeric": torch.cat([x, -x], dim=1), "categorical": torch.arange(50)[:, None]}

    def broken(given: Mapping[str, torch.Tensor]) -> float:
        assert (given["numeric"].sum(dim=1) == 0).all()
        assert (given["categorical"][:, 0] == given["numeric"][:, 0].long()).all()
        return float((given["numeric"][:, 0] != x[:, 0]).double().mean())

    places = {"all": {"numeric": [0, 1], "categorical": [0]}}
    (found,) = permutation_importance(broken, inputs, places, repeats=3)
    assert found.mean > 0.9
    assert (inputs["numeric"][:, 0] == x[:, 0]).all()  # the inputs are as they were


def test_a_columns_shuffles_depend_on_nothing_but_seed_and_name() -> None:
    inputs, _ = data(200)
    alone = permutation_importance(error, inputs, {"one": COLUMNS["one"]}, seed=4)
    among = permutation_importance(error, inputs, COLUMNS, seed=4)
    assert alone[0] in among
    assert permutation_importance(error, inputs, {"one": COLUMNS["one"]}, seed=5) != alone


def test_progress_is_told_of_every_measurement() -> None:
    told: list[tuple[int, int]] = []
    permutation_importance(error, data(20)[0], COLUMNS, repeats=2, progress=lambda done, of: told.append((done, of)))
    assert told == [(done, 8) for done in range(1, 9)]


def test_a_single_repeat_has_no_spread() -> None:
    assert {one.std for one in permutation_importance(error, data(20)[0], COLUMNS, repeats=1)} == {0.0}
