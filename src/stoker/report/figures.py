"""The pictures of a run, as one list."""

from __future__ import annotations

from stoker.report.confusion import confusion_matrix
from stoker.report.curves import learning_curves
from stoker.report.lr_curve import lr_curve
from stoker.report.residuals import predicted_vs_true

__all__ = ["confusion_matrix", "learning_curves", "lr_curve", "predicted_vs_true"]
