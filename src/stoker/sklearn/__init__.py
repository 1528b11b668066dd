"""Estimators for scikit-learn: networks with ``fit``, ``predict`` and ``get_params``, for pipelines and searches."""

from stoker.sklearn.classifier import StokerClassifier
from stoker.sklearn.regressor import StokerRegressor

__all__ = ["StokerClassifier", "StokerRegressor"]
