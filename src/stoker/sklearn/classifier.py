"""Classification: of one label, or of several at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from torch import Tensor, nn

from stoker.errors import ConfigError
from stoker.sklearn.estimator import StokerEstimator
from stoker.sklearn.labels import Labels, check_labels
from stoker.sklearn.networks import ModelSpec, SplitLogits
from stoker.sklearn.samples import Samples
from stoker.sklearn.weights import class_weights
from stoker.training.criteria import Criterion
from stoker.training.objective import Loss, ObjectiveSpec
from stoker.training.optimizers import OptimizerSpec
from stoker.training.schedules import ScheduleSpec

__all__ = ["StokerClassifier"]


class StokerClassifier(ClassifierMixin, StokerEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A network that classifies, as a scikit-learn estimator.

    It standardises numbers, fills missing values, and turns text, categories and dates of a data frame into features by
    itself; all of that is learnt in ``fit``, from the training rows.

    Args:
        model: The name of one of Stoker's models (``"mlp"``, ``"linear"``, ``"wide-deep"``), or its config, such as
            ``{"name": "mlp", "hidden": [50, 40]}``. Or your own: a class or function (or ``"package.module:Class"``),
            called with ``model_args`` and the sizes that it has parameters for, such as ``n_inputs`` and
            ``n_outputs`` (:func:`stoker.models.own.filled_in`); or an ``nn.Module``, which is copied. Your own gets
            one floating tensor ``[n, n_inputs]`` (:class:`stoker.models.own.OwnNetwork`), and returns logits
            ``[n, n_outputs]``: one for each class (with several labels, for each class of the first, then of the
            second, …).
        hidden, activation, dropout: Settings of Stoker's models; by default the model's own.
        model_args: Further settings of the model, or arguments of your own class or function.
        loss: ``"auto"`` (cross-entropy), the name of a criterion, or a criterion: ``(logits, codes)`` to a mean over
            samples, where codes are places in ``classes_``.
        optimizer: A name (any of torch's, such as ``"adamw"`` or ``"lbfgs"``), a class, or a function from parameters
            to an optimizer.
        lr: Learning rate; the optimizer's own by default.
        weight_decay: For optimizers that have it.
        schedule: How the learning rate moves over the epochs of ``fit``: ``"cosine"``, ``"one-cycle"``, …; see
            :mod:`stoker.training.schedules`. ``partial_fit`` keeps the rate constant.
        clip_norm: The largest total 2-norm of the gradients.
        epochs: How often ``fit`` goes over the data.
        batch_size: Samples of a batch; ``None`` means all in one.
        patience: Stop after so many epochs without a better loss on rows held back, and keep the best epoch's weights.
            ``None``: no rows are held back.
        validation_fraction: How many rows ``patience`` holds back: a fraction, or a count.
        precision: ``"32"``, ``"64"`` (weights and arithmetic; encoded features have 32 bits all the same), or
            ``"bf16"`` (autocast to bfloat16).
        engine: ``"eager"``, ``"compiled"`` or ``"auto"``, as :class:`stoker.Trainer` has them.
        device: ``"auto"`` (the first there is of cuda, mps, xpu, cpu) or any of torch's.
        random_state: Seeds the weights, the order of the samples, dropout and ``validation_fraction``. An integer gives
            the same bits each time.
        warm_start: Let ``fit`` go on from where the estimator stands: encoder, classes, weights and the optimizer's
            moments are kept.
        verbose: Show progress.
        class_weight: ``"balanced"``, or a dict from class to weight; with several labels a list of dicts.

    Attributes:
        classes_: The classes, sorted; with several labels a list of such arrays.
        n_features_in_: How many columns ``X`` had.
        feature_names_in_: Their names, if ``X`` had any that are text.
        model_: From raw tensors to logits: the encoder, and the head, whose ``network`` is the model.
        schema_: What each column of a data frame was taken for, and why; ``None`` for numbers alone.
        history_: A row per epoch, over all calls since the estimator was begun anew.
        n_iter_: How many epochs that were.
        loss_curve_: The mean training loss of each of them.

    Example:
        >>> StokerClassifier(hidden=(50,), random_state=0).fit(X_train, y_train).score(X_test, y_test)
    """

    classes_: Any

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
        class_weight: Any = None,
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
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> StokerClassifier:
        """Train.

        Args:
            X: Array-like ``[n, features]``, or a data frame (pandas, polars, pyarrow), which may hold text, categories
                and dates. NaN and null are missing values.
            y: Labels ``[n]``, or ``[n, outputs]``: numbers, text or booleans.
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

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> StokerClassifier:
        """Train for one epoch on these rows, at a constant learning rate.

        The first call learns from its rows how to encode the features; later calls keep that, and the optimizer's
        moments.

        Args:
            X: As for :meth:`fit`.
            y: Likewise.
            classes: All classes that may come, in the first call; with several labels a list of such.
            sample_weight: As for :meth:`fit`, but taken as they are, since only ``fit`` knows their mean.

        Returns:
            The estimator.

        Raises:
            ValueError: As for :meth:`fit`; or the first call has no classes, or later ones have others.
        """
        first = not hasattr(self, "model_")
        if isinstance(self.class_weight, str):
            fix = "Give the weights as a dict, computed on all data."
            raise ConfigError("class_weight", "must be known beforehand for partial_fit", self.class_weight, fix)
        if first and classes is None:
            raise ConfigError("classes", "must be passed on the first call to partial_fit", "none", "Try np.unique(y).")
        if classes is not None:
            labels = Labels.given(classes, several=check_labels(y).ndim == 2)
            if first:
                self._know(labels)
            elif not labels.same_as(self._labels):
                raise ConfigError("classes", "must be the same in every call", repr(classes), "Leave them out.")
        self._partial_fit(X, y, sample_weight, first=first, learn=False)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row: ``[n]``, or ``[n, outputs]``, of the labels' own type.

        Raises:
            NotFittedError: It was not fitted; scikit-learn's own.
            DataError: ``X`` holds text, and is no data frame.
            EncodingError: A value does not fit its column.
            InputTypeError: It was fitted to a data frame of more than numbers, and ``X`` is none.
            OutOfMemoryError: A batch does not fit.
            ValueError: scikit-learn's own, such as for another number of features.
        """
        codes = np.column_stack([logits.argmax(dim=1).numpy() for logits in self._logits(X)])
        return self._labels.decode(codes)

    def predict_proba(self, X: Any) -> Any:
        """The probability of each class, ``softmax(logits)``: float64 ``[n, classes]``; with several labels a list.

        Raises:
            NotFittedError: It was not fitted; scikit-learn's own.
            DataError, EncodingError, InputTypeError, OutOfMemoryError, ValueError: As :meth:`predict`.
        """
        found = [logits.softmax(dim=1).numpy() for logits in self._logits(X)]
        return found if self._labels.several else found[0]

    def predict_log_proba(self, X: Any) -> Any:
        """The logarithms of the probabilities, exact where these are too small for a float.

        Raises:
            NotFittedError: It was not fitted; scikit-learn's own.
            DataError, EncodingError, InputTypeError, OutOfMemoryError, ValueError: As :meth:`predict`.
        """
        found = [logits.log_softmax(dim=1).numpy() for logits in self._logits(X)]
        return found if self._labels.several else found[0]

    def _logits(self, X: Any) -> tuple[Tensor, ...]:
        outputs = self._outputs(X)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def _know(self, labels: Labels) -> None:
        self._labels = labels
        self.classes_ = list(labels.classes) if labels.several else labels.classes[0]

    def _check_target(self, y: Any) -> NDArray[Any]:
        return check_labels(y)

    def _learn_target(self, y: NDArray[Any]) -> None:
        self._know(Labels.fit(y))

    def _encode_target(self, y: NDArray[Any]) -> NDArray[np.int64]:
        return self._labels.encode(y)

    def _class_weights(self, y: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        return class_weights(self.class_weight, self._labels, y, weights)

    def _strata(self, y: NDArray[Any]) -> NDArray[Any] | None:
        return y[:, 0] if y.shape[1] == 1 and np.bincount(y[:, 0])[np.unique(y[:, 0])].min() > 1 else None

    def _output(self, training: Samples) -> tuple[nn.Module, int]:  # noqa: ARG002  # a regression's is fitted
        sizes = self._labels.sizes
        return (SplitLogits(sizes) if self._labels.several else nn.Identity()), sum(sizes)

    def _objective(self, weighted: bool) -> ObjectiveSpec:
        criterion = self._criterion("multiclass")
        weight = "weight" if weighted else None
        if not self._labels.several:
            return self._with_auxiliary(Loss(criterion, target="target 0", sample_weight=weight))
        if self._aux_weight:
            fix = "Set it to 0, or fit one classifier for each label."
            raise ConfigError("aux_weight", "is for a single label", f"{len(self._labels.classes)} labels", fix)
        places = range(len(self._labels.classes))
        return {place: Loss(criterion, target=f"target {place}", sample_weight=weight) for place in places}

    def _targets(self, y: NDArray[Any]) -> dict[str, Tensor]:
        return {f"target {place}": torch.tensor(codes) for place, codes in enumerate(y.T)}
