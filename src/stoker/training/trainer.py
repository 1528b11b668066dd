"""The Trainer: any ``nn.Module``, any criterion, any optimizer, without the hand-written loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from stoker.data.batches import Batches, as_batches
from stoker.data.dataset import Task
from stoker.engines.eager import EagerEngine
from stoker.engines.step import Engine, EpochOutcome, Step
from stoker.errors import ConfigError, DataError, InputTypeError, NonFiniteLossError, UnknownNameError
from stoker.randomness import derive_seed, preserved_randomness, seed_globally
from stoker.training import evaluation
from stoker.training.best import BestWeights, Snapshot, non_finite_parameter
from stoker.training.callbacks import Callback, EpochProgress, FitPlan
from stoker.training.device import autocast_dtype, deterministic_algorithms, resolve_device
from stoker.training.history import History, Row, StopReason
from stoker.training.interrupts import CtrlC
from stoker.training.measures import Metrics, check_metrics, choose_metrics, monitor_direction
from stoker.training.memory import naming_batch_size, naming_data
from stoker.training.objective import Criterion, build_criterion, refusing_to_broadcast, task_of, to_preds
from stoker.training.optimizers import OptimizerSpec, build_optimizer
from stoker.training.progress import ProgressMode, progress_callback
from stoker.training.schedules import Schedule, ScheduleSpec, build_schedule, check_schedule

__all__ = ["TrainState", "Trainer"]

ENGINES: dict[str, Callable[[], Engine]] = {"eager": EagerEngine}
Lazy = (UninitializedParameter, UninitializedBuffer)


@dataclass
class TrainState:
    """All that the next step depends on, besides the model and the optimizer, which are the user's own objects.

    Random numbers need no place here: those of an epoch are seeded by ``(seed, epoch)``.

    Attributes:
        epoch: Epochs begun so far, over all calls to ``fit``.
        step: Updates made so far.
        schedule: The learning rate's position in the current call to ``fit``.
        best: The best epoch so far in the current call to ``fit``.
    """

    epoch: int = 0
    step: int = 0
    schedule: Schedule | None = field(default=None, repr=False)
    best: BestWeights = field(default_factory=lambda: BestWeights(None))


class Trainer:
    """Trains, evaluates and predicts with any ``nn.Module``.

    The model and the optimizer stay the user's own objects and hold the state between epochs. A model in training
    mode is trained with each of its modules in the mode it is in, so that layers put into evaluation mode stay frozen;
    a model in evaluation mode is put into training mode as a whole. After ``fit`` every module is in the mode in which
    it was before.

    Args:
        model: Called as ``model(x)``, ``model(*inputs)`` for a tuple, ``model(**inputs)`` for a dict.
            Moved to ``device``.
        criterion: ``(outputs, targets)`` to the loss, a mean over the batch's samples; or the name of one
            (:data:`stoker.training.objective.CRITERIA`).
        optimizer: A name (``"adamw"``), a class, a function from parameters to an optimizer, or an optimizer.
        lr: Learning rate; the optimizer's own default if left out (0.01 for SGD).
        momentum: For optimizers that have it.
        weight_decay: For optimizers that have it.
        optimizer_settings: Its further arguments, such as ``{"nesterov": True}``.
        schedule: A name (``"cosine"``, ``"one-cycle"``, …; see :mod:`stoker.training.schedules`), or a function from
            the optimizer to one of torch's schedulers. Made anew for each call to ``fit``; the curves over all steps
            then begin again at the rate the optimizer was made with.
        schedule_settings: A named schedule's settings, such as ``{"warmup": 0.1}``.
        clip_norm: The largest total 2-norm of the gradients of what the optimizer trains.
        metrics: Names; a mapping from names of your own to metrics (see
            :class:`stoker.metrics.metric_set.MetricSet`); or ``"auto"``: those of the task that the criterion is for,
            where the outputs and targets are such that they are defined. ``()`` for none.
        task: Which task the metrics are for; known from the criterion in most cases.
        device: ``"auto"`` (the first there is of cuda, mps, xpu, cpu) or any of torch's.
        precision: ``"32"``, or ``"bf16"``: autocast to bfloat16.
        deterministic: Use deterministic algorithms only; slower on some devices.
        seed: Seeds the order of each epoch and the noise (dropout) within it.
        engine: ``"auto"`` or ``"eager"``.
        channels_last: Lay images out with the channels innermost; by default where the model has 2-D convolutions.

    Raises:
        UnknownNameError: A name is not known.
        ConfigError: A setting is out of range or does not fit the others, or the model has lazy parameters.
        InputTypeError: ``model`` is not a module, or the criterion cannot be called.

    Example:
        >>> trainer = Trainer(nn.Linear(8, 1), nn.MSELoss(), "sgd", lr=0.1)
        >>> history = trainer.fit((X_train, y_train), (X_valid, y_valid), epochs=20, patience=3)
        >>> trainer.evaluate((X_test, y_test))["rmse"]
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion | str,
        optimizer: OptimizerSpec = "adamw",
        *,
        lr: float | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        optimizer_settings: Mapping[str, Any] | None = None,
        schedule: ScheduleSpec = None,
        schedule_settings: Mapping[str, Any] | None = None,
        clip_norm: float | None = None,
        metrics: Metrics = "auto",
        task: Task | None = None,
        device: str | torch.device = "auto",
        precision: str | int = "32",
        deterministic: bool = False,
        seed: int = 0,
        engine: str = "auto",
        channels_last: bool | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputTypeError("model", "must be a torch.nn.Module", type(model).__name__, "Pass an instance of it.")
        if any(isinstance(leaf, Lazy) for leaf in (*model.parameters(), *model.buffers())):
            raise ConfigError(
                "model", "must know its sizes", "lazy parameters", "Call it once on a batch: it takes them from there."
            )
        if clip_norm is not None and not clip_norm > 0:
            raise ConfigError("clip_norm", "must be above 0", clip_norm, "Leave it out not to clip.")
        self.device = resolve_device(device)
        self.autocast = autocast_dtype(precision)
        self.engine, self.engine_reason = _choose_engine(engine)
        self.channels_last = _has_convolutions(model) if channels_last is None else channels_last
        self.model = model.to(self.device)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if isinstance(criterion, str):
            criterion = build_criterion(criterion, task or _task_named(criterion))
        if isinstance(criterion, type) or not callable(criterion):
            got = f"the class {criterion.__name__}" if isinstance(criterion, type) else type(criterion).__name__
            raise InputTypeError("criterion", "must be a module, a function or a name", got, "Pass an instance.")
        self.criterion = criterion.to(self.device) if isinstance(criterion, nn.Module) else criterion
        self.task = task or task_of(criterion)
        self.metrics = metrics
        check_metrics(metrics, self.task)
        self.optimizer = build_optimizer(
            optimizer, self.model, lr=lr, momentum=momentum, weight_decay=weight_decay, settings=optimizer_settings
        )
        self.schedule = schedule
        self.schedule_settings = schedule_settings
        check_schedule(schedule, schedule_settings)
        self.clip_norm = clip_norm
        self.deterministic = deterministic
        self.seed = seed
        self.state = TrainState()

    def fit(
        self,
        train: Any,
        valid: Any = None,
        *,
        epochs: int = 20,
        batch_size: int | None = 32,
        shuffle: bool = True,
        patience: int | None = None,
        min_delta: float = 0.0,
        monitor: str = "valid_loss",
        restore_best: bool | None = None,
        callbacks: Iterable[Callback] = (),
        progress: ProgressMode = "auto",
        loader_args: Mapping[str, Any] | None = None,
    ) -> History:
        """Train for some epochs; called again, train for some more.

        Ctrl-C ends the training within a moment: what is trained is kept, and the history says ``interrupted``. A
        second one interrupts at once.

        Args:
            train: ``(inputs, targets)`` of tensors or arrays, a ``Dataset``, a ``DataLoader``, or batches. The last two
                have a batch size and an order of their own.
            valid: Likewise; evaluated after each epoch.
            epochs: How many.
            batch_size: Samples of a batch; ``None`` means all in one. The last, smaller batch is trained on.
            shuffle: Whether each epoch has an order of its own, a function of ``(seed, epoch)``.
            patience: Stop after so many epochs without an improvement; needs ``valid``.
            min_delta: How much better it must be to count.
            monitor: Which column of the history compares epochs: ``"valid_loss"``, or ``"valid_"`` and a metric.
            restore_best: Give the model the best epoch's weights at the end; by default if ``patience`` is set.
            callbacks: Told what happens.
            progress: ``"auto"`` (a live display on a terminal, lines elsewhere), ``"rich"``, ``"plain"`` or ``"none"``.
            loader_args: For the ``DataLoader`` made for a ``Dataset``: ``{"num_workers": 4}``.

        Returns:
            A row per epoch: ``epoch, step, lr, train_loss`` (the mean over samples, of the losses as trained on),
            ``valid_loss`` and ``valid_<metric>``.

        Raises:
            ConfigError: A setting is out of range.
            DataError: The data have no rows or do not fit together, or targets not the outputs.
            InputTypeError: The data are of a kind that cannot be batched, or the criterion returns no single number.
            NonFiniteLossError: The loss or the weights became NaN or infinite. The model is given the best weights so
                far (the last epoch's, without ``valid``), the optimizer forgets what it remembered of the gradients,
                and the error's ``history`` tells how far it came.
            OutOfMemoryError: A batch does not fit.
        """
        if not _is_count(epochs):
            raise ConfigError("epochs", "must be a whole number from 1 on", repr(epochs))
        settings: dict[str, Any] = {"batch_size": batch_size, "seed": self.seed, "loader_args": loader_args}
        batches = self._batches("fit", train, shuffle=shuffle, **settings)
        valid_batches = None if valid is None else self._batches("fit", valid, **settings)
        best = self._best(valid_batches is not None, monitor, min_delta, patience)
        history = History(monitor=best.monitor)
        watchers = [*callbacks, progress_callback(progress)]
        strange: list[object] = [watcher for watcher in watchers if not isinstance(watcher, Callback)]
        if strange:
            got = type(strange[0]).__name__
            raise InputTypeError("callbacks", "must be instances of stoker.Callback", got, "Subclass it.")
        first = self.state.epoch
        steps = _length(batches)
        modes = [(module, module.training) for module in self.model.modules()]
        self.state.best = best
        self.state.schedule = build_schedule(
            self.schedule,
            self.optimizer,
            total_steps=None if steps is None else epochs * steps,
            settings=self.schedule_settings,
            direction=best.direction,
        )
        plan = FitPlan(
            epochs=first + epochs,
            first_epoch=first + 1,
            steps_per_epoch=steps,
            rows=batches.rows,
            parameters=sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad),
            device=str(self.device),
            engine=self.engine.name,
            monitor=best.monitor,
        )
        with ExitStack() as told:  # each of them, whatever the others raise
            for watcher in watchers:
                told.callback(watcher.on_fit_end, history)
            started = time.perf_counter()
            try:
                with (
                    CtrlC() as ctrl_c,
                    deterministic_algorithms(self.deterministic),
                    preserved_randomness(self.device),
                    naming_batch_size("fit", batches.batch_size),
                ):
                    for watcher in watchers:
                        watcher.on_fit_start(plan)
                    numbers = range(first, first + epochs)
                    self._epochs(numbers, batches, valid_batches, history, watchers, ctrl_c, restore_best)
            except KeyboardInterrupt:
                history.stopped = "interrupted"
                raise
            finally:
                history.seconds = time.perf_counter() - started
                for module, mode in modes:
                    module.training = mode
        return history

    def _epochs(
        self,
        numbers: range,
        batches: Batches,
        valid: Batches | None,
        history: History,
        watchers: Sequence[Callback],
        ctrl_c: CtrlC,
        restore_best: bool | None,
    ) -> None:
        best, snapshot = self.state.best, Snapshot(self.model)
        stopped: StopReason = "finished"
        for number in numbers:
            outcome = self._train_epoch(number, batches, watchers, ctrl_c)
            parameter = None if outcome.bad_step is not None else non_finite_parameter(self.model)
            if outcome.bad_step is not None or parameter is not None:
                history.stopped = "non-finite"
                snapshot.restore()
                self.optimizer.state.clear()  # moments of gradients that were not finite
                raise _non_finite(number + 1, outcome, parameter, history)
            if outcome.steps == 0 and not ctrl_c.pressed:
                raise DataError(
                    "fit", "the data must yield at least one batch", "none", "A DataLoader must be re-iterable."
                )
            if outcome.steps:
                row = self._row(number + 1, outcome, valid)
                if self.state.schedule is not None:
                    self.state.schedule.after_epoch(best.monitored(row))
                improved = best.improved(row)
                history.rows.append(row)
                history.best_epoch = best.epoch
                if improved:
                    snapshot.take()
                asked = [watcher.on_epoch_end(row, improved) for watcher in watchers]
            else:
                asked = []
            if ctrl_c.pressed:
                stopped = "interrupted"
            elif best.exhausted:
                stopped = "patience"
            if stopped != "finished" or any(asked):
                break
        if best.monitor is not None and (best.patience is not None if restore_best is None else restore_best):
            snapshot.restore()
        history.stopped = stopped

    def _train_epoch(self, number: int, batches: Batches, watchers: Sequence[Callback], ctrl_c: CtrlC) -> EpochOutcome:
        schedule = self.state.schedule
        step = Step(
            model=self.model,
            objective=refusing_to_broadcast(self.criterion),
            optimizer=self.optimizer,
            schedule=schedule.scheduler.step if schedule is not None and schedule.interval == "step" else None,
            clip_norm=self.clip_norm,
            autocast=self.autocast,
            device=self.device,
            channels_last=self.channels_last,
        )

        def watch(outcome: EpochOutcome) -> bool:
            progress = EpochProgress(number + 1, outcome.steps, outcome.loss, self._lr())
            with preserved_randomness(self.device):  # when a callback is told depends on the clock, its draws must not
                for watcher in watchers:
                    watcher.on_progress(progress)
            return not ctrl_c.pressed

        if not self.model.training:
            self.model.train()
        seed_globally(derive_seed(self.seed, "noise", number), self.device)
        self.state.epoch = number + 1
        with torch.enable_grad():
            outcome = self.engine.train_epoch(step, ctrl_c.until(batches.epoch(number)), watch)
        self.state.step += outcome.steps
        return outcome

    def _row(self, epoch: int, outcome: EpochOutcome, valid: Batches | None) -> Row:
        row: Row = {"epoch": epoch, "step": self.state.step, "lr": self._lr(), "train_loss": outcome.loss}
        if valid is not None:
            row |= {f"valid_{name}": value for name, value in self._evaluate(valid).items()}
            monitor = self.state.best.monitor
            if monitor is not None and monitor not in row:
                raise UnknownNameError("monitor", monitor, [name for name in row if name.startswith("valid_")])
        return row

    def evaluate(self, data: Any, *, batch_size: int | None = 32) -> dict[str, float]:
        """Measure the model on some data.

        Args:
            data: ``(inputs, targets)``, a ``Dataset``, a ``DataLoader``, or batches.
            batch_size: Samples at once where ``data`` is a ``Dataset``; for tensors Stoker chooses.

        Returns:
            ``{"loss": …, metric: …}``; each is computed over all samples, never as a mean of batches' metrics.

        Raises:
            DataError: The data have no rows or do not fit together.
            OutOfMemoryError: A batch does not fit.
        """
        batches = self._batches("evaluate", data, batch_size=batch_size)
        with naming_batch_size("evaluate", batches.batch_size), deterministic_algorithms(self.deterministic):
            return self._evaluate(batches)

    def predict(self, inputs: Any, *, batch_size: int | None = 32) -> Any:
        """The model's outputs for all rows, in order, on the CPU.

        Args:
            inputs: A tensor or array, a tuple or dict of them, or a ``Dataset`` or ``DataLoader`` of inputs alone.
            batch_size: Samples at once where ``inputs`` is a ``Dataset``; for tensors Stoker chooses.

        Returns:
            What the model returns, of the same structure, first dimension rows; no activation is added.

        Raises:
            DataError: There are no rows.
            OutOfMemoryError: A batch does not fit.
        """
        batches = self._batches("predict", inputs, batch_size=batch_size, with_targets=False)
        with naming_batch_size("predict", batches.batch_size), deterministic_algorithms(self.deterministic):
            return evaluation.predict(self.model, batches, device=self.device, autocast=self.autocast)

    def _evaluate(self, batches: Batches) -> dict[str, float]:
        return evaluation.evaluate(
            self.model,
            batches,
            device=self.device,
            objective=refusing_to_broadcast(self.criterion),
            metrics=lambda outputs, targets: choose_metrics(self.metrics, self.task, outputs, targets, self.device),
            to_preds=lambda outputs, targets: to_preds(outputs, targets, self.task),
            autocast=self.autocast,
        )

    def _batches(self, where: str, data: Any, **settings: Any) -> Batches:
        with naming_data(where, self.device):
            return as_batches(data, device=self.device, **settings)

    def _best(self, has_valid: bool, monitor: str, min_delta: float, patience: int | None) -> BestWeights:
        if not has_valid:
            return BestWeights(None, patience=patience, min_delta=min_delta)
        if not monitor.startswith("valid_"):
            raise ConfigError("monitor", 'must begin with "valid_"', repr(monitor), "Such as valid_loss or valid_rmse.")
        better = monitor_direction(monitor.removeprefix("valid_"), self.metrics)
        return BestWeights(monitor, better, min_delta, patience)

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


def _choose_engine(name: str) -> tuple[Engine, str]:
    if name == "auto":
        return EagerEngine(), "eager: the one engine there is"
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ["auto", *ENGINES])
    return ENGINES[name](), f"{name}: as asked"


def _task_named(criterion: str) -> Task:
    return "multiclass" if criterion == "cross-entropy" else "regression"


def _has_convolutions(model: nn.Module) -> bool:
    return any(isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) for module in model.modules())


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and int(value) >= 1


def _length(batches: Batches) -> int | None:
    try:
        return len(batches)
    except TypeError:  # an iterable Dataset does not know
        return None


def _non_finite(epoch: int, outcome: EpochOutcome, parameter: str | None, history: History) -> NonFiniteLossError:
    kept = f"the weights of epoch {history.best_epoch}" if history.rows else "the weights it began with"
    step = outcome.steps if outcome.bad_step is None else outcome.bad_step + 1
    error = NonFiniteLossError(
        f"epoch {epoch}, step {step}",
        "the loss must be finite" if parameter is None else "the weights must be finite after the update",
        outcome.bad_loss if parameter is None else f"NaN or infinity in {parameter}",
        f"The model was given back {kept}. Try a lower learning rate or clip_norm=1.0, or look for extreme values.",
    )
    error.history = history
    return error
