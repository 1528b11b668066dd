"""Stoker trains, evaluates, saves and ships PyTorch networks: right, fast, and without a hand-written loop.

Names are imported when they are first used, so that ``import stoker`` and ``stoker --help`` do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stoker._version import __version__

if TYPE_CHECKING:
    from stoker.data.dataset import ImageSet, Table
    from stoker.data.resident import ResidentBatches
    from stoker.data.sources import load as load_data
    from stoker.engines.explanation import Explanation
    from stoker.errors import StokerError
    from stoker.exporting.importing import Imported, import_weights
    from stoker.exporting.job import Exported, ExportedFile, export
    from stoker.jobs.explain import explain
    from stoker.jobs.fit import fit
    from stoker.jobs.inspect import Inspection, inspect
    from stoker.jobs.predictions import Predictions
    from stoker.jobs.resume import resume
    from stoker.jobs.run import Run, load
    from stoker.models.layers import Dense, ResidualBlock
    from stoker.models.numeric import PeriodicEmbedding, PiecewiseLinearEmbedding
    from stoker.models.wide_deep import WideAndDeep
    from stoker.reporting.html.page import report
    from stoker.sklearn.classifier import StokerClassifier
    from stoker.sklearn.regressor import StokerRegressor
    from stoker.training.callbacks import Callback
    from stoker.training.criteria import MeanCrossEntropy
    from stoker.training.history import History
    from stoker.training.loggers.mlflow import MLflowLogger
    from stoker.training.loggers.tensorboard import TensorBoardLogger
    from stoker.training.lr_finder import LrCurve
    from stoker.training.objective import Loss
    from stoker.training.preflight.findings import CheckWarning, Finding
    from stoker.training.trainer import Trainer
    from stoker.tuning.ensemble import Ensemble
    from stoker.tuning.space import Categorical, Float, Int, Layers
    from stoker.tuning.tune import TuneResult, tune

__all__ = [
    "Callback",
    "Categorical",
    "CheckWarning",
    "Dense",
    "Ensemble",
    "Explanation",
    "Exported",
    "ExportedFile",
    "Finding",
    "Float",
    "History",
    "ImageSet",
    "Imported",
    "Inspection",
    "Int",
    "Layers",
    "Loss",
    "LrCurve",
    "MLflowLogger",
    "MeanCrossEntropy",
    "PeriodicEmbedding",
    "PiecewiseLinearEmbedding",
    "Predictions",
    "ResidentBatches",
    "ResidualBlock",
    "Run",
    "StokerClassifier",
    "StokerError",
    "StokerRegressor",
    "Table",
    "TensorBoardLogger",
    "Trainer",
    "TuneResult",
    "WideAndDeep",
    "__version__",
    "explain",
    "export",
    "fit",
    "import_weights",
    "inspect",
    "load",
    "load_data",
    "report",
    "resume",
    "tune",
]

_PLACES = {
    "Callback": "stoker.training.callbacks",
    "CheckWarning": "stoker.training.preflight.findings",
    "Finding": "stoker.training.preflight.findings",
    "Dense": "stoker.models.layers",
    "Explanation": "stoker.engines.explanation",
    "History": "stoker.training.history",
    "ImageSet": "stoker.data.dataset",
    "Inspection": "stoker.jobs.inspect",
    "Loss": "stoker.training.objective",
    "LrCurve": "stoker.training.lr_finder",
    "MLflowLogger": "stoker.training.loggers.mlflow",
    "MeanCrossEntropy": "stoker.training.criteria",
    "PeriodicEmbedding": "stoker.models.numeric",
    "PiecewiseLinearEmbedding": "stoker.models.numeric",
    "Predictions": "stoker.jobs.predictions",
    "ResidentBatches": "stoker.data.resident",
    "ResidualBlock": "stoker.models.layers",
    "Run": "stoker.jobs.run",
    "StokerClassifier": "stoker.sklearn.classifier",
    "StokerError": "stoker.errors",
    "StokerRegressor": "stoker.sklearn.regressor",
    "Table": "stoker.data.dataset",
    "TensorBoardLogger": "stoker.training.loggers.tensorboard",
    "Trainer": "stoker.training.trainer",
    "WideAndDeep": "stoker.models.wide_deep",
    "Categorical": "stoker.tuning.space",
    "Ensemble": "stoker.tuning.ensemble",
    "Float": "stoker.tuning.space",
    "Int": "stoker.tuning.space",
    "Layers": "stoker.tuning.space",
    "TuneResult": "stoker.tuning.tune",
    "tune": "stoker.tuning.tune",
    "explain": "stoker.jobs.explain",
    "Exported": "stoker.exporting.job",
    "ExportedFile": "stoker.exporting.job",
    "Imported": "stoker.exporting.importing",
    "export": "stoker.exporting.job",
    "import_weights": "stoker.exporting.importing",
    "fit": "stoker.jobs.fit",
    "inspect": "stoker.jobs.inspect",
    "load": "stoker.jobs.run",
    "load_data": "stoker.data.sources",
    "report": "stoker.reporting.html.page",
    "resume": "stoker.jobs.resume",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'stoker' has no attribute {name!r}")
    module = importlib.import_module(_PLACES[name])
    value = getattr(module, "load" if name == "load_data" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
