"""scikit-learn's own checks of estimators."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from stoker import StokerClassifier, StokerRegressor

ROUNDING = (
    "weights sum in another order than repeated samples do, and 32-bit sums then differ in their last bits (the check "
    "allows 1e-7); beyond a batch of 32, repeated samples also fall into other batches"
)


def expected_failures(estimator: Any) -> dict[str, str]:
    exact = estimator.precision == "64" and estimator.batch_size is None
    return {} if exact else {"check_sample_weight_equivalence_on_dense_data": ROUNDING}


estimators = [
    StokerClassifier(),
    StokerRegressor(),
    StokerClassifier(precision="64", batch_size=None, lr=0.01),  # there is no exception for these
    StokerRegressor(precision="64", batch_size=None, lr=0.01),
]


@pytest.mark.slow
@parametrize_with_checks(estimators, expected_failed_checks=expected_failures)  # type: ignore[untyped-decorator]
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)
