"""The pictures of a run, as one list."""

from __future__ import annotations

from stoker.reporting.confusion import confusion_matrix
from stoker.reporting.curves import learning_curves
from stoker.reporting.lr_curve import lr_curve
from stoker.reporting.residuals import predicted_vs_true

__all__ = ["confusion_matrix", "learning_curves", "lr_curve", "predicted_vs_true"]
