"""The Trainer: any ``nn.Module``, any criterion, any optimizer, without the hand-written loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from stoker.data.batches import Batches, as_batches
from stoker.data.dataset import Task
from stoker.data.trees import Batch, batch_rows
from stoker.engines.explain import explain
from stoker.engines.explanation import Explanation
from stoker.engines.registry import choose_engine
from stoker.engines.replicas import Replicas
from stoker.engines.step import Engine, Step
from stoker.errors import ConfigError, DataError, InputTypeError
from stoker.metrics.metric_set import MetricSet
from stoker.randomness import derive_seed, preserved_randomness, seed_globally
from stoker.training import evaluation
from stoker.training.average import WeightAverage
from stoker.training.best import BestWeights, Snapshot
from stoker.training.callbacks import Callback, FitPlan
from stoker.training.checkpoints.identity import about_optimizer, about_training
from stoker.training.checkpoints.resuming import Checkpoints, course
from stoker.training.checkpoints.state import Parts, restored
from stoker.training.device import autocast_dtype, deterministic_algorithms, resolve_device
from stoker.training.history import History
from stoker.training.interrupts import CtrlC
from stoker.training.layout import channels_innermost
from stoker.training.lazy import is_lazy, materialise
from stoker.training.loop import Loop
from stoker.training.lr_finder import LrCurve, find_lr
from stoker.training.measures import Metrics
from stoker.training.memory import naming_batch_size, naming_data
from stoker.training.objective import ObjectiveSpec, build_objective
from stoker.training.optimizers import OptimizerSpec, build_optimizer
from stoker.training.preflight.findings import Finding, act_on
from stoker.training.preflight.probe import check as preflight
from stoker.training.preflight.signature import check_call
from stoker.training.preflight.untouched import same_draws, untouched
from stoker.training.progress import ProgressMode, progress_callback
from stoker.training.schedules import Interval, ScheduleSpec, build_schedule, check_schedule
from stoker.training.scores import Scores, score_direction
from stoker.training.state import TrainState

__all__ = ["Trainer"]


class Trainer:
    """Trains, evaluates and predicts with any ``nn.Module``.

    The model and the optimizer stay the user's own objects and hold the state between epochs. A model in training
    mode is trained with each of its modules in the mode it is in, so that layers put into evaluation mode stay frozen;
    a model in evaluation mode is put into training mode as a whole. After ``fit`` every module is in the mode in which
    it was before.

    Args:
        model: Called as ``model(x)``, ``model(*inputs)`` for a tuple, ``model(**inputs)`` for a dict.
            Moved to ``device``.
        criterion: ``(outputs, targets)`` to the loss, a mean over the batch's samples; the name of one
            (:data:`stoker.training.criteria.CRITERIA`); a :class:`stoker.Loss`, which says more; or, for a model that
            returns a dict or a tuple, a mapping from an output's name or place to any of these:
            ``{"main": Loss("mse", weight=0.8), "aux": Loss("mse", weight=0.2, train_only=True)}``.
        optimizer: A name (``"adamw"``), a class, a function from parameters to an optimizer, or an optimizer.
        lr: Learning rate; the optimizer's own default if left out (0.01 for SGD).
        momentum: For optimizers that have it.
        weight_decay: For optimizers that have it.
        optimizer_settings: Its further arguments, such as ``{"nesterov": True}``.
        groups: Settings of their own for some parameters, by the name of a module or parameter, or a pattern with
            ``*``: ``{"backbone": {"lr": 1e-4}, "*.bias": {"weight_decay": 0.0}}``. The first that fits counts.
        schedule: A name (``"cosine"``, ``"one-cycle"``, …; see :mod:`stoker.training.schedules`), or a function from
            the optimizer to one of torch's schedulers. Made anew for each call to ``fit``; the curves over all steps
            then begin again at the rate the optimizer was made with.
        schedule_settings: A named schedule's settings, such as ``{"warmup": 0.1}``.
        schedule_interval: Whether it moves after each ``"step"`` or ``"epoch"``, where not as usual.
        clip_norm: The largest total 2-norm of the gradients of what the optimizer trains.
        accumulate: Batches whose samples make one update together: its gradient is that of their mean loss over all
            samples, as one large batch's would be. The epoch's last update may have fewer. They are on the device
            together, their activations are not.
        ema: Decay of a moving average of the weights (:class:`stoker.training.average.WeightAverage`), such as 0.999.
            Validation then measures the averaged weights, and the model has them in the end.
        metrics: Names; a mapping from names of your own to metrics (see
            :class:`stoker.metrics.metric_set.MetricSet`); or ``"auto"``: those of the task that the criterion is for,
            where the outputs and targets are such that they are defined. ``()`` for none. Where several outputs are
            evaluated, each :class:`stoker.Loss` says its own, and theirs are called ``<output>_<metric>``.
        task: Which task the metrics are for; known from the criterion in most cases.
        device: ``"auto"`` (the first there is of cuda, mps, xpu, cpu) or any of torch's.
        precision: ``"32"``, or ``"bf16"``: autocast to bfloat16.
        deterministic: Use deterministic algorithms only; slower on some devices.
        seed: Seeds the order of each epoch and the noise (dropout) within it.
        engine: ``"eager"``: one PyTorch call after the other. ``"compiled"``: each epoch as one program for XLA, where
            the data are tensors and the step can be captured; else eager, and ``engine_reason`` says why. ``"auto"``:
            begins eagerly, has a program made beside it where the job is long enough, and hands over to it if what is
            left is then done sooner (:mod:`stoker.engines.auto`). That depends on a clock; with ``deterministic``, on
            the job's shape alone.
        channels_last: Lay images out with the channels innermost; by default where the model has 2-D convolutions, and
            PyTorch has a safe gradient of each in that layout (:mod:`stoker.training.layout`).
        distributed: Train together with other processes, each on its share of every batch; by default where
            ``torchrun`` started several. See :mod:`stoker.engines.replicas`.

    Attributes:
        objective: What is minimised and measured.
        state: Where training stands.
        engine, engine_reason: What carries out the steps, and why.
        engine_asked: The name that it was asked for by.
        optimizer_made: The optimizer and its settings in words, as it was made: a schedule moves some of them.

    Raises:
        UnknownNameError: A name is not known.
        ConfigError: A setting is out of range or does not fit the others.
        InputTypeError: ``model`` is not a module, or a criterion cannot be called.
        TrainingError: The other processes cannot be reached.

    Example:
        >>> trainer = Trainer(nn.Linear(8, 1), nn.MSELoss(), "sgd", lr=0.1)
        >>> history = trainer.fit((X_train, y_train), (X_valid, y_valid), epochs=20, patience=3)
        >>> trainer.evaluate((X_test, y_test))["rmse"]
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: ObjectiveSpec,
        optimizer: OptimizerSpec = "adamw",
        *,
        lr: float | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        optimizer_settings: Mapping[str, Any] | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        schedule: ScheduleSpec = None,
        schedule_settings: Mapping[str, Any] | None = None,
        schedule_interval: Interval | None = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        ema: float | None = None,
        metrics: Metrics = "auto",
        task: Task | None = None,
        device: str | torch.device = "auto",
        precision: str | int = "32",
        deterministic: bool = False,
        seed: int = 0,
        engine: str | Engine = "auto",
        channels_last: bool | None = None,
        distributed: bool | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputTypeError("model", "must be a torch.nn.Module", type(model).__name__, "Pass an instance of it.")
        if clip_norm is not None and not clip_norm > 0:
            raise ConfigError("clip_norm", "must be above 0", clip_norm, "Leave it out not to clip.")
        if not _is_count(accumulate):
            raise ConfigError("accumulate", "must be a whole number of batches from 1 on", repr(accumulate))
        if ema is not None:
            WeightAverage(model, ema)  # tells whether the decay is one
        self.device = resolve_device(device)
        self.autocast = autocast_dtype(precision)
        self.engine = choose_engine(engine, deterministic=deterministic) if isinstance(engine, str) else engine
        self.engine_asked = engine if isinstance(engine, str) else engine.name
        self.channels_last = channels_innermost(model, channels_last, self.device)
        self.model = model.to(self.device)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = build_objective(criterion, device=self.device, task=task, metrics=metrics)
        self.replicas = Replicas.found(self.device, distributed)
        self._optimizer_spec = optimizer
        self._optimizer_arguments: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "settings": optimizer_settings,
            "groups": groups,
        }
        self._lazy = is_lazy(model)
        self._optimizer = None if self._lazy else self._build_optimizer()
        self.schedule = schedule
        self.schedule_settings = schedule_settings
        self.schedule_interval = schedule_interval
        check_schedule(schedule, schedule_settings, schedule_interval)
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        self.ema = ema
        self.deterministic = deterministic
        self.seed = seed
        self.state = TrainState()
        self._spare_metrics: dict[Any, MetricSet] = {}

    @property
    def engine_reason(self) -> str:
        """What carries out the steps, and why: ``"compiled: as asked"``, ``"eager: a hook on layers.0"``."""
        return self.engine.explanation

    def _build_optimizer(self) -> Optimizer:
        optimizer = build_optimizer(self._optimizer_spec, self.model, **self._optimizer_arguments)
        self.optimizer_made = about_optimizer(optimizer)
        return optimizer

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
        progress: ProgressMode | Callback = "auto",
        loader_args: Mapping[str, Any] | None = None,
        check: bool = True,
        checkpoint: str | Path | Checkpoints | None = None,
        checkpoint_every: str = "1epoch",
        keep: int = 3,
        resume: bool | str | Path = False,
    ) -> History:
        """Train for some epochs; called again, train for some more.

        Ctrl-C ends the training within a moment: what is trained is kept, and the history says ``interrupted``. A
        second one interrupts at once. With ``checkpoint``, SIGTERM does, as :class:`SystemExit` of code 143.

        A training that went on from a checkpoint comes to the same bits as one that was never interrupted, on the same
        machine with the same software; see ``docs/resume.md``.

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
                It ends with how the training ended, and what made the steps and why. Or a callback that shows it.
            loader_args: For the ``DataLoader`` made for a ``Dataset``: ``{"num_workers": 4}``.
            check: Whether to look at the first batch, as :meth:`check` does, before it is trained on. Errors stop the
                training; warnings are told as :class:`stoker.training.preflight.findings.CheckWarning`. The weights
                come out the same to the bit; hooks of yours see a few calls more.
            checkpoint: The directory for checkpoints, which must hold none unless ``resume`` says so; or a
                :class:`stoker.training.checkpoints.resuming.Checkpoints`, which says the rest as well.
            checkpoint_every: ``"1epoch"``, ``"500steps"``, ``"2min"`` and their like. One is written at the end too.
            keep: How many of the newest checkpoints remain.
            resume: ``True``: go on from the newest checkpoint in ``checkpoint``, or begin if there is none. A
                directory: go on from the newest there. Then ``epochs`` counts those that are over; once all are, more
                may be asked for, for which the schedule begins anew.

        Returns:
            A row per epoch: ``epoch, step, lr, train_loss`` (the mean over samples, of the losses as trained on),
            ``valid_loss`` and ``valid_<metric>``.

        Raises:
            ConfigError: A setting is out of range.
            CheckError: The check found errors; nothing was trained.
            CheckpointError: A checkpoint is of another model, data, settings or software, or damaged, or there is none;
                or the state holds what cannot be kept.
            DiskFullError: There is no room for a checkpoint.
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
        if self._lazy:
            self._materialise(batches)
        best = self._best(valid_batches is not None, monitor, min_delta, patience)
        history = History(monitor=best.monitor)
        processes = 1 if self.replicas is None else self.replicas.world
        keeping = Checkpoints.of(checkpoint, checkpoint_every, keep, resume, processes)
        saved = None if keeping is None else keeping.found()
        compared = {"patience": patience, "min_delta": min_delta, "monitor": best.monitor}
        compared |= {} if keeping is None else keeping.about
        about = {} if keeping is None else about_training(self, batches, valid_batches, compared)
        way = course(saved, about, epochs, self.state.epoch, keeping)
        steps = _updates(batches, self.accumulate)
        modes = [(module, module.training) for module in self.model.modules()]
        self.state.best = best
        self.state.schedule = build_schedule(
            self.schedule,
            self.optimizer,
            total_steps=None if steps is None else way.legs.epochs * steps,
            settings=self.schedule_settings,
            direction=best.direction,
            interval=self.schedule_interval,
            epochs=way.legs.epochs,
        )
        self.state.average = None if self.ema is None else WeightAverage(self.model, self.ema)
        callbacks = tuple(callbacks)
        watchers = self._watchers(callbacks, progress)
        snapshot, begun = None, None
        if saved is not None:
            snapshot = Snapshot(self.model)
            parts = Parts(self._step(), self.state, snapshot, history, self.engine, batches, callbacks)
            begun = restored(saved, parts, new_leg=way.new_leg)
        keeper = None if keeping is None else keeping.keeper(about, way.legs, history.seconds)
        plan = FitPlan(
            epochs=way.legs.first + way.legs.epochs,
            first_epoch=way.done + 1,
            steps_per_epoch=steps,
            rows=batches.rows,
            parameters=sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad),
            device=str(self.device),
            engine=self.engine.name,
            monitor=best.monitor,
        )
        if self.replicas is not None:
            self.replicas.same(self.model)
        with ExitStack() as told:  # each of them, whatever the others raise
            for watcher in watchers:
                told.callback(watcher.on_fit_end, history)
            started = time.perf_counter() - history.seconds
            try:
                with (
                    CtrlC(terminable=keeper is not None) as ctrl_c,
                    deterministic_algorithms(self.deterministic),
                    preserved_randomness(self.device),
                    naming_batch_size("fit", batches.batch_size),
                ):
                    for watcher in watchers:
                        watcher.on_fit_start(plan)
                    Loop(
                        engine=self.engine,
                        step=self._step(),
                        state=self.state,
                        batches=batches,
                        seed=self.seed,
                        history=history,
                        watchers=watchers,
                        ctrl_c=ctrl_c,
                        evaluate=None if valid_batches is None else lambda: self._evaluate(valid_batches),
                        restore_best=patience is not None if restore_best is None else restore_best,
                        first_look=partial(self._first_look, check=check),
                        snapshot=snapshot,
                        callbacks=callbacks,
                        checkpointer=keeper,
                        begun=begun,
                        ended=way.ended,
                    ).run(way.numbers)
            except KeyboardInterrupt:
                history.stopped = "interrupted"
                raise
            finally:
                history.seconds = time.perf_counter() - started
                self.engine.close()
                history.engine = self.engine_reason
                for module, mode in modes:
                    module.training = mode
        return history

    def check(self, data: Any, *, batch_size: int | None = 32) -> list[Finding]:
        """Look for what goes wrong silently in training, or fails without saying why.

        It carries out a step on a few rows of a batch, without its update: targets that would broadcast or are out of
        the classes' range, activations that the criterion does not expect, values that are not finite, parameters that
        get no gradient, a loss that does not depend on the inputs, in-place operations that break the backward pass,
        dtypes and devices that do not fit. The model, the optimizer and all random numbers stay as they are.

        Args:
            data: As for :meth:`fit`, which does the same with its first batch. Of several batches the first is used.
            batch_size: Samples of a batch.

        Returns:
            What was found, errors first; empty if all is well.

        Raises:
            InputTypeError: The inputs do not fit the model's signature.
            DataError: The data have no rows, or do not fit the objective.
            Exception: What the model or the criterion raises, where there are no better words for it.
        """
        with same_draws(self.device):
            batches = self._batches("check", data, batch_size=batch_size, seed=self.seed)
            batch = next(batches.epoch(0), None)
        if batch is None:
            raise DataError("check", "the data must yield at least one batch", "none")
        with naming_batch_size("check", batches.batch_size), deterministic_algorithms(self.deterministic):
            return self._findings(batch)

    def explain(self, data: Any, *, batch_size: int | None = 32) -> Explanation:
        """Say what a training step consists of, where its time goes, and what keeps it from being compiled.

        The step is captured for the first batch, as the compiled engine does it, and PyTorch carries out each of its
        operators alone a few times. The model, the optimizer and all random numbers stay as they are; hooks of yours
        see a few calls.

        Args:
            data: As for :meth:`fit`, whose step is explained.
            batch_size: Samples of a batch.

        Returns:
            Operators by kind, and reasons; ``print`` shows a table, and ``.graph`` is the step as text.

        Raises:
            CheckError: The check of the batch found errors; see :meth:`check`.
            ConfigError: The model is lazy and has seen no batch.
            DataError: The data have no rows, or do not fit the objective.
            OutOfMemoryError: A batch does not fit.
        """
        average = None if self.ema is None else WeightAverage(self.model, self.ema)
        step = replace(self._step(), average=average)
        with same_draws(self.device), untouched([self.model, *self._criteria()]), torch.enable_grad():
            batches = self._batches("explain", data, batch_size=batch_size, seed=self.seed)
            batch = next(batches.epoch(0), None)
            if batch is None:
                raise DataError("explain", "the data must yield at least one batch", "none")
            with naming_batch_size("explain", batches.batch_size), deterministic_algorithms(self.deterministic):
                act_on(finding for finding in self._findings(batch) if finding.severity == "error")
                if not self.model.training:
                    self.model.train()
                seed_globally(derive_seed(self.seed, "explain"), self.device)
                return explain(step, batches, batch, self.engine.reason if self.state.step else None)

    def _findings(self, batch: Batch) -> list[Finding]:
        settings: dict[str, Any] = {"device": self.device, "autocast": self.autocast}
        return preflight(self.model, self.objective, self._optimizer, *batch, **settings)

    def _first_look(self, batch: Batch, check: bool) -> None:
        check_call(self.model, batch[0])
        if check:
            found = self._findings(batch)
            if self.replicas is None or self.replicas.first or any(one.severity == "error" for one in found):
                act_on(found, stacklevel=6)  # where fit was called

    def _step(self) -> Step:
        schedule, average = self.state.schedule, self.state.average
        return Step(
            model=self.model,
            objective=self.objective,
            optimizer=self.optimizer,
            schedule=schedule.scheduler.step if schedule is not None and schedule.interval == "step" else None,
            clip_norm=self.clip_norm,
            accumulate=self.accumulate,
            average=average,
            replicas=self.replicas,
            autocast=self.autocast,
            device=self.device,
            channels_last=self.channels_last,
            criteria=self._criteria(),
            kind=self.objective.kind,
        )

    def _criteria(self) -> tuple[nn.Module, ...]:
        return tuple(part.criterion for part in self.objective.parts if isinstance(part.criterion, nn.Module))

    def _watchers(self, callbacks: Iterable[Callback], progress: ProgressMode | Callback) -> list[Callback]:
        watchers = [*callbacks, progress if isinstance(progress, Callback) else progress_callback(progress)]
        strange: list[object] = [watcher for watcher in watchers if not isinstance(watcher, Callback)]
        if strange:
            got = type(strange[0]).__name__
            raise InputTypeError("callbacks", "must be instances of stoker.Callback", got, "Subclass it.")
        return watchers if self.replicas is None or self.replicas.first else []

    def _materialise(self, batches: Batches) -> None:
        materialise(self.model, batches, self.seed, self.device)
        self._lazy = False
        self._optimizer = self._build_optimizer()

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer; a model with lazy modules gets its own when it has seen a batch.

        Raises:
            ConfigError: It has seen none.
        """
        if self._optimizer is None:
            fix = "Call fit, or the model itself before it is given to a Trainer."
            raise ConfigError("optimizer", "is made when a lazy model has seen a batch", "none so far", fix)
        return self._optimizer

    def find_lr(
        self,
        train: Any,
        *,
        start: float = 1e-7,
        end: float = 10.0,
        steps: int = 100,
        batch_size: int | None = 32,
        watch: Callable[[int], object] = lambda _: None,
    ) -> LrCurve:
        """Look for a learning rate; see :func:`stoker.training.lr_finder.find_lr`. Nothing is changed by it.

        Args:
            train: As for :meth:`fit`.
            start: The first step's rate.
            end: The last one's.
            steps: How many, at most.
            batch_size: Samples of a batch; it should be that of the training.
            watch: Called after each step with the number of those made.

        Returns:
            Losses by rate, and a suggestion. :func:`stoker.reporting.lr_curve.lr_curve` draws it.

        Raises:
            ConfigError: A setting is out of range, or the optimizer's first parameter group has no rate above 0.
            DataError: The data have no rows or do not fit together.
            NonFiniteLossError: The loss is NaN or infinite before a single update.
            TrainingError: The loss falls at none of the rates.
            OutOfMemoryError: A batch does not fit.
        """
        batches = self._batches("find_lr", train, batch_size=batch_size, shuffle=True, seed=self.seed)
        if self._lazy:
            self._materialise(batches)
        with naming_batch_size("find_lr", batches.batch_size), deterministic_algorithms(self.deterministic):
            return find_lr(
                self._step(),
                lambda number: batches.epoch(self.state.epoch + number),
                start=start,
                end=end,
                steps=steps,
                seed=derive_seed(self.seed, "find-lr"),
                watch=watch,
            )

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
        replicas = self.replicas
        if replicas is not None and not _can_be_shared(batches, replicas.world):
            replicas = None  # each measures all of it, and comes to the same
        return evaluation.evaluate(
            self.model,
            batches,
            Scores(self.objective, self.device, replicas, self._spare_metrics),
            device=self.device,
            autocast=self.autocast,
            share=_whole if replicas is None else lambda batch: replicas.share(batch, batch_rows(*batch)),
        )

    def _batches(self, where: str, data: Any, **settings: Any) -> Batches:
        with naming_data(where, self.device):
            return as_batches(data, device=self.device, target_names=self.objective.target_names, **settings)

    def _best(self, has_valid: bool, monitor: str, min_delta: float, patience: int | None) -> BestWeights:
        if not has_valid:
            return BestWeights(None, patience=patience, min_delta=min_delta)
        if not monitor.startswith("valid_"):
            raise ConfigError("monitor", 'must begin with "valid_"', repr(monitor), "Such as valid_loss or valid_rmse.")
        better = score_direction(monitor.removeprefix("valid_"), self.objective)
        return BestWeights(monitor, better, min_delta, patience)


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and int(value) >= 1


def _updates(batches: Batches, accumulate: int) -> int | None:
    """How many updates an epoch makes, if the data say."""
    try:
        return -(-len(batches) // accumulate)
    except TypeError:  # an iterable Dataset does not know
        return None


def _whole(batch: Batch) -> Batch:
    return batch


def _can_be_shared(batches: Batches, world: int) -> bool:
    """Whether each process gets rows of the first batch, without which it would not know which metrics there are."""
    return min(batches.rows or 0, batches.batch_size or 0) >= world
