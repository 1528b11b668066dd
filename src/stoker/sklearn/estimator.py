"""What both estimators have in common: parameters, training, continuing, and the way to and from a pickle."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.optim import Optimizer

from stoker.data.dataset import Task
from stoker.data.encoder import TableEncoder
from stoker.data.resident import ResidentBatches
from stoker.data.splits import split_rows
from stoker.data.trees import tree_map
from stoker.errors import ConfigError, InputTypeError, UnknownNameError
from stoker.models.assembly import Assembly, Head
from stoker.models.inputs import TableSpec
from stoker.sklearn.features import FeatureReader, check_features, fit_encoder
from stoker.sklearn.networks import ModelSpec, check_outputs, plan_network
from stoker.sklearn.samples import Samples
from stoker.sklearn.weights import check_weights
from stoker.training.criteria import Criterion, build_criterion
from stoker.training.device import autocast_dtype, resolve_device
from stoker.training.evaluation import predict
from stoker.training.history import History
from stoker.training.objective import Loss, ObjectiveSpec
from stoker.training.optimizers import OptimizerSpec
from stoker.training.schedules import ScheduleSpec
from stoker.training.trainer import Trainer

__all__ = ["StokerEstimator"]

DTYPES = {"32": torch.float32, "64": torch.float64, "bf16": torch.float32}
"""What weights and inputs are, by precision; bf16 is a matter of autocast."""


class StokerEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The common part of :class:`StokerClassifier` and :class:`StokerRegressor`, which say what the parameters are."""

    model_: Assembly
    history_: History
    _moments: tuple[type[Optimizer], Any] | None

    def __init__(
        self,
        model: ModelSpec,
        *,
        hidden: tuple[int, ...] | None,
        activation: str | None,
        dropout: float | None,
        model_args: Mapping[str, Any] | None,
        loss: str | Criterion,
        optimizer: OptimizerSpec,
        lr: float | None,
        weight_decay: float | None,
        schedule: ScheduleSpec,
        clip_norm: float | None,
        epochs: int,
        batch_size: int | None,
        patience: int | None,
        validation_fraction: float,
        precision: str,
        engine: str,
        device: str,
        random_state: int | np.random.RandomState | None,
        warm_start: bool,
        verbose: bool,
    ) -> None:
        self.model = model
        self.hidden = hidden
        self.activation = activation
        self.dropout = dropout
        self.model_args = model_args
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.precision = precision
        self.engine = engine
        self.device = device
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    # What the two estimators differ in.

    def _check_target(self, y: Any) -> NDArray[Any]:
        """``y`` as an array ``[n]`` or ``[n, outputs]``."""
        raise NotImplementedError

    def _learn_target(self, y: NDArray[Any]) -> None:
        """Learn what the target is."""
        raise NotImplementedError

    def _encode_target(self, y: NDArray[Any]) -> NDArray[Any]:
        """Checked ``y`` to ``[n, outputs]``: class codes (int64) or numbers (float64)."""
        raise NotImplementedError

    def _class_weights(self, y: NDArray[Any], weights: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """What each sample counts by its class."""
        raise NotImplementedError

    def _strata(self, y: NDArray[Any]) -> NDArray[Any] | None:
        """By what the validation rows are drawn in proportion."""
        raise NotImplementedError

    def _output(self, training: Samples) -> tuple[nn.Module, int]:
        """What stands behind the network, and how many numbers this gives it for a row."""
        raise NotImplementedError

    def _objective(self, weighted: bool) -> ObjectiveSpec:
        """What is minimised, of targets as :meth:`_targets` gives them."""
        raise NotImplementedError

    def _targets(self, y: NDArray[Any]) -> dict[str, Tensor]:
        """The target of each output."""
        raise NotImplementedError

    # What they have in common.

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.multi_output = True
        return tags

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        """Train for ``epochs`` epochs, anew or, with ``warm_start``, from where the estimator stands."""
        first = not (self.warm_start and hasattr(self, "model_"))
        if first:
            self._seed = self._draw_seed()
        samples = self._check(X, y, sample_weight, first=first, learn=first, normalise=True)
        valid = None
        if self.patience is not None:
            sizes: dict[str, Any] = {"valid_size": self.validation_fraction, "test_size": 0}
            split = split_rows(len(samples), seed=self._seed, labels=self._strata(samples.y), **sizes)
            samples, valid = samples.take(split.train), samples.take(split.valid)
        self._train(samples, valid, first=first, epochs=self.epochs, patience=self.patience, schedule=self.schedule)

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, *, first: bool, learn: bool) -> None:
        """Train for one epoch on these rows; ``learn`` from them what the target is."""
        if first:
            self._seed = self._draw_seed()
        samples = self._check(X, y, sample_weight, first=first, learn=learn, normalise=False)
        self._train(samples, None, first=first, epochs=1, patience=None, schedule=None)

    def _check(self, X: Any, y: Any, sample_weight: Any, *, first: bool, learn: bool, normalise: bool) -> Samples:
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        features = check_features(self, X, reader=None if first else self._reader)
        target = self._check_target(y)
        check_consistent_length(features, target)
        if learn:
            self._learn_target(target)
        target = self._encode_target(target)
        weights = check_weights(sample_weight, len(target))
        if weights is not None:  # a weight of 0 is the same as leaving the row out: nothing is learnt from it at all
            there = np.flatnonzero(weights)
            features, target, weights = features[there], target[there], weights[there]
        by_class = self._class_weights(target, weights)
        factors = [factor for factor in (weights, by_class) if factor is not None]
        losses = np.prod(factors, axis=0) if factors else None
        if losses is not None and not losses.any():
            raise ConfigError("class_weight", "must not be zero for all samples", "zero weights alone")
        if losses is not None and normalise:
            losses = losses / losses.mean()
        return Samples(features, target, weights, losses)

    def _draw_seed(self) -> int:
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _train(
        self,
        training: Samples,
        valid: Samples | None,
        *,
        first: bool,
        epochs: int,
        patience: int | None,
        schedule: ScheduleSpec,
    ) -> None:
        if first:
            self._build(training)
        try:
            trainer = self._trainer(training.losses is not None, schedule)
            history = trainer.fit(
                self._data(training),
                None if valid is None else self._data(valid),
                epochs=epochs,
                batch_size=self.batch_size,
                patience=patience,
                progress="auto" if self.verbose else "none",
                check=first,  # what goes on was looked at when it began
            )
        except BaseException:
            if first:
                del self.model_  # an estimator that was not trained is not fitted
            raise
        self._moments = type(trainer.optimizer), trainer.optimizer.state_dict()["state"]
        self._steps = trainer.state.step
        before = self.history_
        self.history_ = replace(history, rows=[*before.rows, *history.rows], seconds=before.seconds + history.seconds)
        self.n_iter_ = len(self.history_)
        self.loss_curve_ = self.history_.column("train_loss")
        if history.stopped == "interrupted":
            text = f"Training interrupted by user after {len(history)} of {epochs} epochs; what is trained is kept."
            warnings.warn(text, UserWarning, stacklevel=3)

    def _build(self, training: Samples) -> None:
        """Learn how to read and encode the features, and make the network."""
        self._reader = FeatureReader.fit(training.X, getattr(self, "feature_names_in_", None))
        raw = self._reader.read(training.X)
        given = {"hidden": self.hidden, "activation": self.activation, "dropout": self.dropout}
        settings = {name: value for name, value in given.items() if value is not None}
        plan = plan_network(self.model, settings, self.model_args or {})
        encoder = fit_encoder(raw, self._reader.columns, training.weights, categories=plan.categories)
        numeric_columns, categorical_columns = encoder.columns_of_features(self._reader.columns)
        spec = TableSpec(
            n_numeric=encoder.n_numeric,
            cardinalities=encoder.cardinalities,
            numeric_columns=numeric_columns,
            categorical_columns=categorical_columns,
        )
        output, n_outputs = self._output(training)
        network = plan.build(spec, n_outputs, self._seed)
        model = Assembly(encoder, Head(network, output))
        model.to(self._dtype)
        check_outputs(model.head, self._encode(model, tree_map(lambda leaf: leaf[:2], raw)), n_outputs, self._seed)
        self.model_, self._aux_weight = model, plan.aux_weight
        self.schema_ = self._reader.schema
        self.history_ = History()
        self._moments = None
        self._steps = 0

    def _trainer(self, weighted: bool, schedule: ScheduleSpec) -> Trainer:
        """A Trainer by the parameters as they are now, that goes on where the last one stood."""
        trainer = Trainer(
            self.model_.head,
            self._objective(weighted),
            self.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=schedule,
            clip_norm=self.clip_norm,
            metrics=(),
            device=self.device,
            precision="32" if str(self.precision) == "64" else self.precision,
            seed=self._seed,
            engine=self.engine,
        )
        trainer.state.epoch, trainer.state.step = len(self.history_), self._steps
        if self._moments is not None and self._moments[0] is type(trainer.optimizer):
            groups = trainer.optimizer.state_dict()["param_groups"]
            trainer.optimizer.load_state_dict({"state": self._moments[1], "param_groups": groups})
        return trainer

    def _with_auxiliary(self, loss: Loss) -> ObjectiveSpec:
        """The loss of a single target, shared out where the network has an auxiliary output for training."""
        share = self._aux_weight
        if not share:
            return loss
        return {"main": replace(loss, weight=1 - share), "aux": replace(loss, weight=share, train_only=True)}

    def _criterion(self, task: Task) -> Criterion:
        """A criterion that the Trainer may move to its device, where the parameter is to stay as it is."""
        if isinstance(self.loss, str):
            return build_criterion(self.loss, task)
        if isinstance(self.loss, type) or not callable(self.loss):
            got = f"the class {self.loss.__name__}" if isinstance(self.loss, type) else type(self.loss).__name__
            raise InputTypeError("loss", "must be a module, a function or a name", got, "Pass an instance.")
        return copy.deepcopy(self.loss)

    def _data(self, samples: Samples) -> tuple[dict[str, Tensor], Any]:
        """Encoded inputs, and targets as the objective takes them."""
        inputs = self._encode(self.model_, self._reader.read(samples.X))
        targets = self._targets(samples.y)
        if samples.losses is not None:
            targets["weight"] = torch.tensor(samples.losses, dtype=self._dtype)
        return inputs, targets

    def _encode(self, model: Assembly, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(model.encoder, TableEncoder)
        encoded = model.encoder.encode(raw)
        return {name: leaf.to(self._dtype) if leaf.is_floating_point() else leaf for name, leaf in encoded.items()}

    @property
    def _dtype(self) -> torch.dtype:
        if str(self.precision) not in DTYPES:
            raise UnknownNameError("precision", str(self.precision), DTYPES)
        return DTYPES[str(self.precision)]

    def _outputs(self, X: Any) -> Any:
        """What the model gives for each row, as float64 on the CPU."""
        check_is_fitted(self, "model_")
        features = check_features(self, X, reader=self._reader)
        device = resolve_device(self.device)
        head = self.model_.head.to(device)
        inputs = self._encode(self.model_, self._reader.read(features))
        autocast = None if str(self.precision) == "64" else autocast_dtype(self.precision)
        batches = ResidentBatches(inputs, device=device)
        return tree_map(lambda leaf: leaf.double(), predict(head, batches, device=device, autocast=autocast))

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: with the weights on the CPU, so that it can be read where there is no accelerator."""
        state: dict[str, Any] = super().__getstate__()
        model = state.get("model_")
        if model is not None and any(parameter.device.type != "cpu" for parameter in model.parameters()):
            state["model_"] = copy.deepcopy(model).cpu()
            state["_moments"] = _on_cpu(state["_moments"])
        return state


def _on_cpu(value: Any) -> Any:
    """An optimizer's state with its tensors on the CPU; L-BFGS keeps lists of them, to which it appends."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {name: _on_cpu(part) for name, part in value.items()}
    return type(value)(_on_cpu(part) for part in value) if isinstance(value, (list, tuple)) else value
