"""Epoch after epoch: train, evaluate, compare with the best, tell who listens, and end at the right moment."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch

from stoker.data.batches import Batches
from stoker.data.trees import Batch
from stoker.engines.step import Engine, Epoch, EpochOutcome, Step
from stoker.errors import DataError, NonFiniteLossError, UnknownNameError
from stoker.randomness import derive_seed, preserved_randomness, seed_globally, set_random_states
from stoker.training.best import Snapshot, non_finite_parameter
from stoker.training.callbacks import Callback, EpochProgress, StepProgress
from stoker.training.checkpoints.checkpointer import Checkpointer
from stoker.training.checkpoints.state import Begun, Parts
from stoker.training.history import History, Row, StopReason
from stoker.training.interrupts import CtrlC, Terminated
from stoker.training.state import TrainState

__all__ = ["Loop"]


@dataclass
class Loop:
    """The epochs of one call to ``fit``.

    Attributes:
        engine: Carries out their steps.
        step: What a step is.
        state: Moved along.
        batches: What is trained on.
        seed: Seeds each epoch's noise.
        history: Gets a row an epoch.
        watchers: Told what happens.
        ctrl_c: Ends an epoch early.
        evaluate: Gives an epoch's ``{"loss": …}`` on the validation split; ``None`` without one.
        restore_best: Whether the model gets the best epoch's weights in the end.
        first_look: Given the first batch before anything is done with it.
        snapshot: The best weights so far; taken when the epochs begin if left out.
        callbacks: Those of the watchers that may have a state to be kept.
        checkpointer: Keeps the state now and then; ``None`` if nothing is kept.
        begun: The epoch that a checkpoint was taken in, which goes on first.
        ended: Why there is nothing left to train, if a checkpoint says so.
    """

    engine: Engine
    step: Step
    state: TrainState
    batches: Batches
    seed: int
    history: History
    watchers: Sequence[Callback]
    ctrl_c: CtrlC
    evaluate: Callable[[], dict[str, float]] | None
    restore_best: bool
    first_look: Callable[[Batch], None] | None = None
    snapshot: Snapshot | None = None
    callbacks: Sequence[Callback] = ()
    checkpointer: Checkpointer | None = None
    begun: Begun | None = None
    ended: StopReason | None = None

    def run(self, numbers: range) -> None:
        """Train the epochs of these numbers (from 0).

        Raises:
            CheckpointError: The state cannot be kept.
            DataError: An epoch has no batch.
            DiskFullError: There is no room for a checkpoint.
            NonFiniteLossError: The loss or a weight became NaN or infinite; the model has the best weights so far.
            Terminated: SIGTERM came, and the state is kept.
            UnknownNameError: What is to be monitored is not measured.
        """
        best, average, model = self.state.best, self.state.average, self.step.model
        snapshot = self.snapshot = self.snapshot or Snapshot(model)
        stopped: StopReason = self.ended or "finished"
        if self.checkpointer is not None:
            begun = 0 if self.begun is None else self.begun.outcome.steps
            self.checkpointer.begin(self._parts(), self.state.step + begun)
        for number in numbers:
            for watcher in self.watchers:
                watcher.on_epoch_start(number + 1)
            outcome, asked = self._train(number, first=number == numbers[0], left=numbers[-1] - number)
            parameter = None if outcome.bad_step is not None else non_finite_parameter(model)
            if outcome.bad_step is not None or parameter is not None:
                self.history.stopped = "non-finite"
                snapshot.restore()
                self.step.optimizer.state.clear()  # moments of gradients that were not finite
                raise _non_finite(number + 1, outcome, parameter, self.history)
            if self.ctrl_c.terminated and not (outcome.complete and not self.ctrl_c.lost) and not asked:
                raise Terminated  # what there is was kept where the epoch was left
            if outcome.steps == 0 and not self._any(self.ctrl_c.pressed):
                raise _no_batches(number + 1, first=number == numbers[0])
            if outcome.steps:
                if self.step.replicas is not None:
                    self.step.replicas.same(model, buffers_only=True)
                with average.applied() if average is not None else nullcontext():
                    row = self._row(number + 1, outcome)
                    improved = best.improved(row)
                    self.history.rows.append(row)
                    self.history.best_epoch = best.epoch
                    if improved:
                        snapshot.take()
                if self.state.schedule is not None:
                    self.state.schedule.after_epoch(best.monitored(row))
                answers = [watcher.on_epoch_end(row, improved) for watcher in self.watchers]
                asked = asked or any(answers)
            if self._any(self.ctrl_c.pressed):
                stopped = "interrupted"
            elif best.exhausted:
                stopped = "patience"
            elif self._any(asked):
                stopped = "callback"
            over = stopped != "finished" or number == numbers[-1]
            self._keep_epoch(number + 1, outcome, stopped if over else "running")
            if over:
                break
        if self.restore_best and best.monitor is not None:
            snapshot.restore()
        elif average is not None:
            average.keep()
        self.history.stopped = stopped

    def _parts(self) -> Parts:
        assert self.snapshot is not None
        return Parts(
            self.step, self.state, self.snapshot, self.history, self.engine, self.batches, callbacks=self.callbacks
        )

    def _keep_epoch(self, epochs: int, outcome: EpochOutcome, stopped: StopReason) -> None:
        """Keep the state at the end of an epoch if that is due. After Ctrl-C it was kept where the epoch was left."""
        keeper, cut = self.checkpointer, not outcome.complete or self.ctrl_c.lost
        if keeper is None or (stopped == "interrupted" and cut):
            return
        parts, last = self._parts(), stopped != "running" and keeper.asked
        kept = stopped != "callback" or keeper.callbacks_end
        if kept and (last or self._leaving() or keeper.due(parts, self.state.step, epochs)):
            # Ctrl-C between two epochs is no reason not to go on from there
            said = "running" if stopped == "interrupted" else stopped
            keeper.write(parts, self.state.step, epochs, None, said)
        if self.ctrl_c.terminated:
            raise Terminated

    def _keep_within(self, number: int, outcome: EpochOutcome) -> None:
        """Keep the state in the middle of an epoch, if that is due or the epoch ends here."""
        keeper, step = self.checkpointer, self.state.step + outcome.steps
        if keeper is not None and (self._leaving() or keeper.due(self._parts(), step)):
            keeper.write(self._parts(), step, number, outcome, "running")

    def _leaving(self) -> bool:
        return self.ctrl_c.pressed or self.ctrl_c.terminated

    def _train(self, number: int, *, first: bool, left: int) -> tuple[EpochOutcome, bool]:
        """Train one epoch; also whether a listener asked to stop within it."""
        listeners = [w for w in self.watchers if type(w).on_step_end is not Callback.on_step_end]
        before, device, replicas = self.state.step, self.step.device, self.step.replicas
        asked = False

        def heard(steps: int, loss: torch.Tensor) -> bool:
            nonlocal asked
            progress = StepProgress(number + 1, before + steps, loss, self._lr())
            with preserved_randomness(device):
                answers = [listener.on_step_end(progress) for listener in listeners]  # each of them is told
            asked = asked or any(answers)
            return asked

        def watch(outcome: EpochOutcome) -> bool:
            progress = EpochProgress(number + 1, outcome.steps, outcome.loss, self._lr())
            with preserved_randomness(device):  # when a callback is told depends on the clock, its draws must not
                for watcher in self.watchers:
                    watcher.on_progress(progress)
            self._keep_within(number, outcome)
            return not self._leaving()

        def cut(steps: int) -> int | None:
            place = None if self.checkpointer is None else self.checkpointer.cut(before + steps)
            return None if place is None else place - before

        if not self.step.model.training:
            self.step.model.train()
        self.state.epoch = number + 1
        seed_globally(derive_seed(self.seed, "noise", number), device)
        batches = self.ctrl_c.until(self.batches.epoch(number))
        if first and self.first_look is not None:
            batches = _begun(batches, self.first_look)
        if replicas is not None:
            batches = _begun(batches)  # a loader draws its order when it begins, and it must be the same in all
            if not replicas.first:
                seed_globally(derive_seed(self.seed, "noise", number, replicas.rank), device)
        outcome, begun, self.begun = EpochOutcome(), self.begun, None
        if begun is not None:
            outcome = begun.outcome
            _pass_over(batches, outcome.steps * self.step.accumulate)
            set_random_states(device, begun.random)
        step = replace(self.step, on_update=heard if listeners else None)
        with torch.enable_grad():
            epoch = Epoch(self.batches, number, batches, left, outcome, cut)
            outcome = self.engine.train_epoch(step, epoch, watch)
        self.state.step += outcome.steps
        return outcome, asked

    def _row(self, epoch: int, outcome: EpochOutcome) -> Row:
        row: Row = {"epoch": epoch, "step": self.state.step, "lr": self._lr(), "train_loss": outcome.loss}
        if self.evaluate is not None:
            row |= {f"valid_{name}": value for name, value in self.evaluate().items()}
            monitor = self.state.best.monitor
            if monitor is not None and monitor not in row:
                raise UnknownNameError("monitor", monitor, [name for name in row if name.startswith("valid_")])
        return row

    def _any(self, flag: bool) -> bool:
        return flag if self.step.replicas is None else self.step.replicas.any(flag)

    def _lr(self) -> float:
        return float(self.step.optimizer.param_groups[0]["lr"])


def _begun(batches: Iterator[Batch], look: Callable[[Batch], None] = lambda _: None) -> Iterator[Batch]:
    """The same batches, the first of them fetched already, and looked at."""
    first = list(itertools.islice(batches, 1))
    for batch in first:
        look(batch)
    return itertools.chain(first, batches)


def _pass_over(batches: Iterator[Batch], count: int) -> None:
    for _ in itertools.islice(batches, count):
        pass


def _no_batches(epoch: int, *, first: bool) -> DataError:
    if first:
        fix = "Look at the data set's length, and at drop_last."
        return DataError("fit", "the data must yield at least one batch", "none", fix)
    fix = "Pass a DataLoader, or an object whose __iter__ begins anew."
    return DataError("fit", "the data must yield their batches anew for each epoch", f"none in epoch {epoch}", fix)


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
