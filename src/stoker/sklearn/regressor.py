"""Regression: of one number, or of several at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import check_array
from torch import Tensor, nn

from stoker.errors import DataError
from stoker.models.assembly import Rescale
from stoker.sklearn.estimator import StokerEstimator
from stoker.sklearn.features import mean_and_scale
from stoker.sklearn.networks import ModelSpec
from stoker.sklearn.samples import Samples
from stoker.training.criteria import Criterion, OnScaledTarget
from stoker.training.objective import Loss, ObjectiveSpec
from stoker.training.optimizers import OptimizerSpec
from stoker.training.schedules import ScheduleSpec

__all__ = ["StokerRegressor"]


class StokerRegressor(RegressorMixin, StokerEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A network that predicts numbers, as a scikit-learn estimator.

    It standardises features and target, fills missing values, and turns text, categories and dates of a data frame into
    features by itself; all of that is learnt in ``fit``, from the training rows. Predictions are in the target's unit.

    Args:
        model: As for :class:`stoker.sklearn.classifier.StokerClassifier`; your own returns ``[n, n_outputs]``, one
            number for each target, on the scale of the standardised target.
        hidden, activation, dropout, model_args: Likewise.
        loss: ``"auto"`` (mean squared error), the name of a criterion (``"mse"``, ``"mae"``, ``"huber"``), or a
            criterion: ``(outputs, targets)``, both ``[n, n_outputs]``, to a mean over samples.
        optimizer, lr, weight_decay, schedule, clip_norm, epochs, batch_size, patience, validation_fraction, precision,
            engine, device, random_state, warm_start, verbose: Likewise.
        scale_target: Compute the loss in units of the target's standard deviation; without it, in the target's unit,
            as a loss must that is not indifferent to scale.

    Attributes:
        n_features_in_: How many columns ``X`` had.
        feature_names_in_: Their names, if ``X`` had any that are text.
        model_: From raw tensors to predictions: the encoder, and the head, whose ``network`` is the model.
        schema_: What each column of a data frame was taken for, and why; ``None`` for numbers alone.
        history_: A row per epoch, over all calls since the estimator was begun anew.
        n_iter_: How many epochs that were.
        loss_curve_: The mean training loss of each of them.

    Example:
        >>> StokerRegressor(hidden=(50,), random_state=0).fit(X_train, y_train).score(X_test, y_test)
    """

    def __init__(
        self,
        model: ModelSpec = "mlp",
        *,
        hidden: tuple[int, ...] | None = None,
        activation: str | None = None,
        dropout: float | None = None,
        model_args: Mapping[str, Any] | None = None,
        loss: str | Criterion = "auto",
        optimizer: OptimizerSpec = "adamw",
        lr: float | None = None,
        weight_decay: float | None = None,
        schedule: ScheduleSpec = None,
        clip_norm: float | None = None,
        epochs: int = 50,
        batch_size: int | None = 32,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        precision: str = "32",
        engine: str = "eager",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        warm_start: bool = False,
        verbose: bool = False,
        scale_target: bool = True,
    ) -> None:
        super().__init__(
            model,
            hidden=hidden,
            activation=activation,
            dropout=dropout,
            model_args=model_args,
            loss=loss,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            schedule=schedule,
            clip_norm=clip_norm,
            epochs=epochs,
            batch_size=batch_size,
            patience=patience,
            validation_fraction=validation_fraction,
            precision=precision,
            engine=engine,
            device=device,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
        )
        self.scale_target = scale_target

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> StokerRegressor:
        """Train.

        Args:
            X: Array-like ``[n, features]``, or a data frame (pandas, polars, pyarrow), which may hold text, categories
                and dates. NaN and null are missing values.
            y: Numbers ``[n]``, or ``[n, outputs]``.
            sample_weight: ``[n]``, how much each sample counts. A weight of 0 is the same as leaving the sample out;
                with all samples in one batch, a weight of 2 is the same as the sample twice.

        Returns:
            The estimator.

        Raises:
            ValueError: The data cannot be used as they are, or a parameter is out of range; the text says which.
            NonFiniteLossError: The loss became NaN or infinite.
            OutOfMemoryError: A batch does not fit.
        """
        self._fit(X, y, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> StokerRegressor:
        """Train for one epoch on these rows, at a constant learning rate.

        The first call learns from its rows how to scale features and target; later calls keep that, and the
        optimizer's moments.

        Args:
            X: As for :meth:`fit`.
            y: Likewise.
            sample_weight: As for :meth:`fit`, but taken as they are, since only ``fit`` knows their mean.

        Returns:
            The estimator.

        Raises:
            ValueError: As for :meth:`fit`.
        """
        first = not hasattr(self, "model_")
        self._partial_fit(X, y, sample_weight, first=first, learn=first)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The predicted numbers, float64, ``[n]`` or ``[n, outputs]`` as ``y`` was, in the target's unit.

        Raises:
            NotFittedError: It was not fitted; scikit-learn's own.
            DataError: ``X`` holds text, and is no data frame.
            EncodingError: A value does not fit its column.
            InputTypeError: It was fitted to a data frame of more than numbers, and ``X`` is none.
            OutOfMemoryError: A batch does not fit.
            ValueError: scikit-learn's own, such as for another number of features.
        """
        outputs: NDArray[np.float64] = self._outputs(X).numpy()
        return outputs if self._several else outputs[:, 0]

    def _check_target(self, y: Any) -> NDArray[Any]:
        return np.asarray(
            check_array(y, ensure_2d=False, dtype=np.float64, input_name="y", ensure_min_samples=0, estimator=self)
        )

    def _learn_target(self, y: NDArray[Any]) -> None:
        self._several, self._n_outputs = y.ndim == 2, 1 if y.ndim < 2 else y.shape[1]

    def _encode_target(self, y: NDArray[Any]) -> NDArray[np.float64]:
        columns = y if y.ndim == 2 else y[:, None]
        if (y.ndim == 2) != self._several or columns.shape[1] != self._n_outputs:
            shape = f"[n, {self._n_outputs}]" if self._several else "[n]"
            raise DataError("y", f"must have shape {shape}, as at first", list(y.shape), "Set warm_start=False.")
        return columns

    def _class_weights(self, y: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        """There are no classes."""

    def _strata(self, y: NDArray[Any]) -> None:
        """There are no classes."""

    def _output(self, training: Samples) -> tuple[nn.Module, int]:
        if not self.scale_target:
            return nn.Identity(), self._n_outputs
        return Rescale(*mean_and_scale(training.y, training.weights)), self._n_outputs

    def _objective(self, weighted: bool) -> ObjectiveSpec:
        criterion = self._criterion("regression")
        output = self.model_.head.output
        if isinstance(output, Rescale):
            criterion = OnScaledTarget(criterion, output.mean, output.std)
        return self._with_auxiliary(Loss(criterion, target="target", sample_weight="weight" if weighted else None))

    def _targets(self, y: NDArray[Any]) -> dict[str, Tensor]:
        return {"target": torch.tensor(y, dtype=self._dtype)}
