"""What a report says of a run beyond its files: measured anew, on its own data, if these are still there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stoker.data.dataset import DataSet, ImageSet
from stoker.errors import StokerError
from stoker.models.inputs import TableSpec
from stoker.reporting.bootstrap import Interval, bootstrap, interval
from stoker.reporting.calibration import fit_temperature, probabilities
from stoker.reporting.importance import Importance, Places, permutation_importance

if TYPE_CHECKING:
    import torch

    from stoker.jobs.run import Run
    from stoker.jobs.run_data import OwnSplit

__all__ = ["Measured", "Split", "measure"]

Progress = Callable[[str, int, int], None]

MOST_ROWS = 200_000  # of a split that is measured anew
IMPORTANCE_ROWS = 2000
IMPORTANCE_COLUMNS = 60  # shuffled several times
SCREENED_COLUMNS = 1000  # shuffled once, on few rows, to find those
SCREENED_ROWS = 300
REPEATS = 5


@dataclass(frozen=True)
class Split:
    """A split, and what the model says about it.

    Attributes:
        data: Its rows or images.
        rows: Which of its source they are, from 0.
        inputs: As the trained part takes them.
        outputs: ``[n, 1]`` or logits ``[n, classes]``.
        targets: ``[n, 1]`` or class indices ``[n]``.
        samples: By metric its value in each bootstrap sample.
    """

    data: DataSet
    rows: NDArray[np.int64]
    inputs: dict[str, torch.Tensor]
    outputs: NDArray[np.float64]
    targets: NDArray[Any]
    samples: dict[str, NDArray[np.float64]]

    @property
    def intervals(self) -> dict[str, Interval]:
        """By metric, for those that are defined."""
        found = {name: interval(values) for name, values in self.samples.items()}
        return {name: one for name, one in found.items() if one is not None}


@dataclass
class Measured:
    """All that was measured.

    Attributes:
        splits: By name.
        held_out: Which of them pictures are of; ``None`` if there is none.
        temperature: Fitted on the validation split, if that was asked for and could be.
        importance: Of the columns, the most important first.
        importance_rows: On how many rows.
        screened: How many columns were tried before those, if not all.
        left_out: What is missing from the report, and why.
        notes: What the reader should know besides.
    """

    splits: dict[str, Split] = field(default_factory=dict)
    held_out: str | None = None
    temperature: float | None = None
    importance: list[Importance] = field(default_factory=list)
    importance_rows: int = 0
    screened: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def measure(
    run: Run, *, samples: int, repeats: int = REPEATS, calibrate: bool = False, seed: int = 0, progress: Progress
) -> Measured:
    """Read a run's data again, and measure what the report shows.

    Whatever goes wrong with the data or the model is said in ``left_out``; the report is made without it.

    Args:
        run: The run.
        samples: Of the bootstrap.
        repeats: How often each column is shuffled.
        calibrate: Fit a temperature on the validation split.
        seed: Of the samples and of the shuffles.
        progress: Told what is being done, how much of it is done, and of how much.
    """
    found = Measured()
    progress("reading the data", 0, 1)
    try:
        splits = run.splits()
    except StokerError as error:
        # what it says to do is for stoker evaluate
        reason = f"{error.rule}, got {error.got}" if error.where == "evaluate" else str(error)
        found.left_out.append(("All that needs the data: intervals, curves, importance, examples", reason))
        return found
    for place, (name, own) in enumerate(splits.items()):
        progress("predicting the splits", place, len(splits))
        if name not in run.metrics:
            continue
        if len(own.rows) > MOST_ROWS:
            reason = f"it has {len(own.rows):,} rows; a report measures splits of up to {MOST_ROWS:,}"
            found.left_out.append((f"Intervals of the {name} split", reason))
            continue
        try:
            found.splits[name] = _split(run, name, own, samples, seed)
        except StokerError as error:
            found.left_out.append((f"What needs the {name} split", str(error)))
    found.held_out = next((name for name in ("test", "valid", "train") if name in found.splits), None)
    _compare(run, found)
    _describe(run, found)
    if calibrate:
        _calibrate(run, found)
    _importance(run, found, repeats, seed, progress)
    return found


def _split(run: Run, name: str, own: OwnSplit, samples: int, seed: int) -> Split:
    inputs, outputs, targets = run.labelled_outputs(own.data)
    preds, true = outputs.double().numpy(), targets.numpy()
    names = [metric for metric in run.metrics[name] if metric != "loss"]
    drawn = bootstrap(names, preds, true, run.task, samples=samples, seed=seed)
    if (loss := _loss(run, run.metrics[name], drawn)) is not None:
        drawn["loss"] = loss
    return Split(own.data, own.rows, inputs, preds, true, drawn)


def _loss(
    run: Run, recorded: Mapping[str, float], drawn: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """The loss in each sample, where it is one of the metrics: the log loss, or the MSE, on whatever scale."""
    training, recipe = run.config.training, run.artifact.recipe
    loss = recorded.get("loss", math.nan)
    if recipe.task == "regression":
        mse = recorded.get("mse", math.nan)
        plain = training.loss in ("auto", "mse") and mse > 0 and math.isfinite(loss / mse)
        return drawn["mse"] * (loss / mse) if plain and "mse" in drawn else None
    plain = training.loss in ("auto", "cross-entropy") and not training.label_smoothing and not recipe.class_weights
    same = math.isclose(loss, recorded.get("log_loss", math.nan), rel_tol=1e-4)
    return drawn["log_loss"] if plain and same and "log_loss" in drawn else None


def _compare(run: Run, found: Measured) -> None:
    """Say if the numbers are not those that were recorded: another version or machine, or another model."""
    import torch

    from stoker.metrics.metric_set import MetricSet

    other = []
    for name, split in found.splits.items():
        recorded = {metric: value for metric, value in run.metrics[name].items() if metric != "loss"}
        metrics = MetricSet(list(recorded), run.task, len(run.classes))
        metrics.update(torch.from_numpy(split.outputs), torch.from_numpy(split.targets))
        for metric, value in metrics.compute().items():
            known = recorded[metric]
            if not math.isclose(value, known, rel_tol=1e-3, abs_tol=1e-5) and not math.isnan(known):
                other.append(f"{metric} on the {name} split is {value:.5g} instead of {known:.5g}")
    if other:
        more = f", and {len(other) - 4} more" if len(other) > 4 else ""
        found.notes.append(
            f"Measured anew, not all numbers are those that metrics.json has: {', '.join(other[:4])}{more}. Metrics "
            "here are those of metrics.json; intervals and pictures are of what was measured anew."
        )


def _describe(run: Run, found: Measured) -> None:
    better = next((name for name in ("test", "valid") if name in run.metrics and name not in found.splits), None)
    if better is not None and found.held_out is not None and found.held_out != "test":
        found.notes.append(f"Pictures show the {found.held_out} split, for the {better} split could not be measured.")
    elif found.held_out == "train":
        found.notes.append("No rows were held back: pictures show the training split, on which a model looks its best.")
    elif found.held_out == "valid":
        found.notes.append("There is no test split: pictures show the validation split, by which the epoch was chosen.")
    data = run.config.data
    for setting, why in ((data.group, "rows of one group are alike"), (data.time, "rows follow one another in time")):
        if setting is not None and found.splits:
            found.notes.append(
                f"Intervals take rows to be independent of each other, but {why} ({setting}): the true ones are wider."
            )
    _say_no_width(found)
    if run.task != "regression" and found.held_out is not None:
        occurring = len(np.unique(found.splits[found.held_out].targets))
        if occurring < len(run.classes):
            found.notes.append(
                f"Of {len(run.classes):,} classes, {occurring:,} occur{'s' if occurring == 1 else ''} in the "
                f"{found.held_out} split; what needs the others is left out."
            )


def _say_no_width(found: Measured) -> None:
    """Where every row is right, each sample is as well: the bootstrap knows of no other rows."""
    if found.held_out is None:
        return
    split = found.splits[found.held_out]
    one, rows = split.intervals.get("accuracy"), len(split.targets)
    if one is not None and one.low == one.high == 1:
        found.notes.append(
            f"Every row of the {found.held_out} split is right, so each sample of them is, and the interval of the "
            f"accuracy has no width. By the rule of three, up to 3 / {rows:,} = {min(1.0, 3 / rows):.2g} of other rows "
            "may be wrong."
        )


def _calibrate(run: Run, found: Measured) -> None:
    what = "Temperature scaling"
    if run.task == "regression":
        found.left_out.append((what, "it is for classification"))
    elif "valid" not in found.splits:
        found.left_out.append((what, "it is fitted on the validation split, and there is none"))
    elif not np.isfinite(found.splits["valid"].outputs).all():
        found.left_out.append((what, "outputs on the validation split are not finite"))
    else:
        valid = found.splits["valid"]
        found.temperature = fit_temperature(valid.outputs, valid.targets)
        if found.temperature < 0.051:
            found.notes.append(
                "The temperature is at its lower limit, as (nearly) every row it was fitted on is right."
            )
        if found.held_out == "valid":
            found.notes.append(
                "The temperature was fitted on the very split that it is shown on, as there is no test split."
            )


def _importance(run: Run, found: Measured, repeats: int, seed: int, progress: Progress) -> None:
    spec = run.artifact.recipe.spec
    if found.held_out is None or not isinstance(spec, TableSpec):
        return
    split = found.splits[found.held_out]
    places = _places(spec)
    if not places or not np.isfinite(split.outputs).all():
        reason = "outputs are not finite" if places else "the network takes no columns"
        found.left_out.append(("Permutation importance", reason))
        return

    def tell(what: str) -> Callable[[int, int], None]:
        return lambda done, of: progress(what, done, of)

    if len(places) > IMPORTANCE_COLUMNS:
        names = list(places)[:SCREENED_COLUMNS]
        if len(names) < len(places):
            reason = f"of {len(places):,} columns the first {len(names):,} were tried"
            found.left_out.append(("Importance of further columns", reason))
        inputs, error = _sample(run, split, SCREENED_ROWS, seed)
        first = permutation_importance(
            error, inputs, {name: places[name] for name in names}, repeats=1, seed=seed, progress=tell("trying columns")
        )
        found.screened = len(names)
        places = {one.column: places[one.column] for one in first[:IMPORTANCE_COLUMNS]}
    inputs, error = _sample(run, split, IMPORTANCE_ROWS, seed)
    found.importance_rows = len(next(iter(inputs.values())))
    found.importance = permutation_importance(
        error, inputs, places, repeats=repeats, seed=seed, progress=tell("shuffling columns")
    )


def _places(spec: TableSpec) -> dict[str, Places]:
    """Where the features of each column are among the trained part's inputs."""
    places: dict[str, dict[str, list[int]]] = {}
    for key, columns in (("numeric", spec.numeric_columns), ("categorical", spec.categorical_columns)):
        for place, column in enumerate(columns):
            places.setdefault(column, {}).setdefault(key, []).append(place)
    return dict(places)


def _sample(
    run: Run, split: Split, most: int, seed: int
) -> tuple[dict[str, torch.Tensor], Callable[[Mapping[str, torch.Tensor]], float]]:
    """So many rows of a split, and the model's error on them: RMSE, or log loss."""
    import torch

    from stoker.randomness import derive_seed

    rows = np.arange(len(split.targets))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(derive_seed(seed, "importance rows")).choice(rows, most, replace=False))
    chosen = torch.from_numpy(rows)
    targets = split.targets[rows]

    def error(inputs: Mapping[str, torch.Tensor]) -> float:
        outputs = run.outputs_of(dict(inputs)).double().numpy()
        if run.task == "regression":
            return float(np.sqrt(np.mean((outputs[:, 0] - targets[:, 0]) ** 2)))
        own = probabilities(outputs)[np.arange(len(targets)), targets]
        return float(-np.log(np.maximum(own, 1e-15)).mean())

    return {name: tensor[chosen] for name, tensor in split.inputs.items()}, error


def is_image(split: Split) -> bool:
    """Whether it is of images."""
    return isinstance(split.data, ImageSet)
