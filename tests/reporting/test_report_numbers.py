"""What a report draws and says beside its metrics is what one finds by hand, from the run's own rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from read_charts import Drawn, charts
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    log_loss,
    mean_absolute_error,
    precision_recall_curve,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from test_report_page import FIT, Page

import stoker
from stoker.data.dataset import Table
from stoker.reporting.bootstrap import resampled

SAMPLES = 100


class Shown:
    """A run and its report.

    Attributes:
        run: The run.
        page: Its tables and its text.
        charts: Its charts, by title.
    """

    def __init__(self, run: stoker.Run, out: Path, *others: stoker.Run, **settings: Any) -> None:
        self.run = run
        path = stoker.report(run, *others, out=out, samples=SAMPLES, repeats=1, **settings)
        self.page, self.charts = Page(path), charts(path)

    def chart(self, title: str) -> Drawn:
        (found,) = self.charts[title]
        return found

    def said(self, split: str) -> tuple[Any, Any]:
        """Outputs and targets of a split: predictions and true values, or probabilities and classes."""
        _, outputs, targets = self.run.labelled_outputs(self.run.splits()[split].data)
        if self.run.task == "regression":
            return outputs[:, 0].double().numpy(), targets[:, 0].double().numpy()
        return outputs.double().softmax(dim=1).numpy(), targets.numpy()


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("cancer")
    run = stoker.fit("breast-cancer", out=folder / "run", **{**FIT, "epochs": 7}, lr=0.004)
    return Shown(run, folder / "r.html", calibrate=True)


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("diabetes")
    run = stoker.fit("diabetes", out=folder / "run", **{**FIT, "epochs": 30}, lr=0.01)
    return Shown(run, folder / "r.html")


METRICS: dict[str, Any] = {
    "accuracy": lambda said, true: accuracy_score(true, said.argmax(axis=1)),
    "log_loss": lambda said, true: log_loss(true, said, labels=[0, 1]),
    "auroc": lambda said, true: roc_auc_score(true, said[:, 1]),
    "rmse": lambda said, true: root_mean_squared_error(true, said),
    "mae": lambda said, true: mean_absolute_error(true, said),
    "r2": lambda said, true: r2_score(true, said),
}


def rounded_to(says: str, value: float) -> bool:
    """Whether a number was shown as it is, to all the digits that are shown."""
    text = says.replace("−", "-").replace(",", "")
    return abs(float(text) - value) <= 0.51 * 10.0 ** -len(text.partition(".")[2])


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("name", ["cancer", "diabetes"])
def test_the_intervals_of_each_split_are_those_of_its_samples(
    name: str, split: str, request: pytest.FixtureRequest
) -> None:
    shown: Shown = request.getfixturevalue(name)
    said, true = shown.said(split)
    counts = np.concatenate(list(resampled(len(true), SAMPLES, 0))).astype(int)
    drawn = [np.repeat(np.arange(len(true)), row) for row in counts]
    grid = {row[0]: row[1:] for row in shown.page.tables["Metrics by split"]}
    place = list(shown.run.metrics).index(split)
    tried = [metric for metric in shown.run.metrics[split] if metric in METRICS]
    assert len(tried) == 3
    for metric in tried:
        cell = re.fullmatch(r"(\S+) (\S+?)(?:–| to )(\S+)", grid[metric][place])
        assert cell, grid[metric]
        values = [METRICS[metric](said[rows], true[rows]) for rows in drawn]
        wanted = [METRICS[metric](said, true), *np.quantile(values, [0.025, 0.975])]
        assert [*map(rounded_to, cell.groups(), wanted)] == [True] * 3, (metric, cell.groups(), wanted)


def test_learning_curves_are_those_of_the_history(cancer: Shown) -> None:
    history = cancer.run.history
    epochs = history.column("epoch")
    assert len(epochs) == 7
    wanted = {"Loss": {"s0": "train_loss", "s1": "valid_loss"}}
    wanted |= {f"{name}, validation split": {"s0": f"valid_{name}"} for name in ("accuracy", "f1", "auroc")}
    for title, columns in wanted.items():
        chart = cancer.chart(title)
        lines = chart.lines()
        assert lines.keys() == columns.keys(), title
        for css, column in columns.items():
            assert lines[css][:, 0] == pytest.approx(epochs, abs=0.02)
            values = np.array(history.column(column))
            scale = values if chart.log else np.ptp([one for name in columns.values() for one in history.column(name)])
            assert np.abs((lines[css][:, 1] - values) / np.maximum(scale, 1e-9)).max() < 0.02
        (best,) = chart.guides()
        assert best[:, 0] == pytest.approx([history.best_epoch] * 2, abs=0.02)
    assert cancer.chart("Loss").keys == {"s0": "train", "s1": "valid"}
    assert f"The weights of epoch {history.best_epoch} were kept" in cancer.page.text


def test_the_curve_of_precision_and_recall_is_that_of_scikit_learn(cancer: Shown) -> None:
    said, true = cancer.said("test")
    precision, recall, _ = precision_recall_curve(true == 1, said[:, 1])
    chart = cancer.chart("Precision and recall")
    (line,) = chart.lines().values()
    distance = np.abs(line[:, None] - np.column_stack([recall, precision])).max(axis=2)
    assert distance.min(axis=1).max() < 0.003, "each point drawn is one of the curve"
    assert distance.min(axis=0).max() < 0.02, "and none of the curve is left out"
    (base,) = chart.guides()
    assert base[:, 1] == pytest.approx([np.mean(true == 1)] * 2, abs=0.003)
    area = re.fullmatch(r"malignant: AP ([\d.]+)", chart.keys["s0"])
    assert area
    assert float(area[1]) == pytest.approx(average_precision_score(true == 1, said[:, 1]), abs=6e-4)


def bins(probability: Any, positive: Any) -> Any:
    """By hand: of each of fifteen bins with rows, their mean probability, share and number."""
    found = []
    for place in range(15):
        inside = (probability > place / 15) & (probability <= (place + 1) / 15)
        if place == 0:
            inside |= probability == 0
        if inside.any():
            found.append((probability[inside].mean(), positive[inside].mean(), inside.sum()))
    return np.array(found)


def test_calibration_is_what_came_of_the_probabilities(cancer: Shown) -> None:
    said, true = cancer.said("test")
    chart = cancer.chart("Calibration")
    temperature = re.search(r"logits / ([\d.]+): ECE", chart.keys["s1"])
    assert temperature
    logits = np.log(said) / float(temperature[1])
    softened = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for css, table, near in (("s0", said, 0.003), ("s1", softened, 0.01)):
        wanted = bins(table[:, 1], true == 1)
        dots = chart.dots()[css]
        assert dots[:, :2] == pytest.approx(wanted[:, :2], abs=near)
        assert chart.lines()[css] == pytest.approx(wanted[:, :2], abs=near)
        assert np.argmax(dots[:, 2]) == np.argmax(wanted[:, 2]), "the larger, the more rows"
        assert dots[:, 2] == pytest.approx(2 + 5 * np.sqrt(wanted[:, 2] / wanted[:, 2].max()), abs=0.06)
        error = re.search(r"ECE ([\d.]+)", chart.keys[css])
        assert error
        ece = (wanted[:, 2] * np.abs(wanted[:, 1] - wanted[:, 0])).sum() / len(true)
        assert float(error[1]) == pytest.approx(ece, abs=1e-3)
    assert [line.tolist() for line in chart.guides().round(2)] == [[[0, 0], [1, 1]]]
    assert len(true) == cancer.run.record.rows["test"]


def test_the_histogram_of_errors_counts_them(diabetes: Shown) -> None:
    said, true = diabetes.said("test")
    errors = said - true
    chart = diabetes.chart("Errors")
    boxes = chart.boxes()
    outside = re.search(r"(\d+) rows? lies? outside|(\d+) rows lie outside", chart.caption)
    left = int(next(part for part in outside.groups() if part)) if outside else 0
    assert round(boxes[:, 2].sum()) == len(errors) - left
    assert boxes[:, 2] == pytest.approx(boxes[:, 2].round(), abs=0.1), "rows are counted"
    width = np.median(boxes[:, 1] - boxes[:, 0])
    for low, high, count in boxes:  # the edges are off by a tenth of a pixel, which may be a row at either
        inner = int(((errors > low + 0.02 * width) & (errors < high - 0.02 * width)).sum())
        outer = int(((errors > low - 0.02 * width) & (errors < high + 0.02 * width)).sum())
        assert inner <= round(count) <= outer
    zero = next(line for line in chart.guides() if np.ptp(line[:, 0]) < 0.1 * width)
    assert zero[:, 0] == pytest.approx([0, 0], abs=0.02 * width + 1e-9)
    says = re.match(r"Mean (\S+), half of them within ±(\S+?)\.(?: |$)", chart.caption)
    assert says
    found = [float(part.replace("−", "-")) for part in says.groups()]
    assert found == pytest.approx([errors.mean(), np.median(np.abs(errors))], rel=1e-3)


def test_the_most_wrong_rows_of_classes_are_those_of_the_source(cancer: Shown) -> None:
    said, true = cancer.said("test")
    (caption,) = [name for name in cancer.page.tables if "most wrong row" in name]
    head, *rows = cancer.page.tables[caption]
    assert head[:5] == ["row", "true", "predicted", "p(predicted)", "p(true)"]
    wrong = np.flatnonzero(said.argmax(axis=1) != true)
    assert len(rows) == min(12, len(wrong)) > 1
    own = np.sort(said[wrong, true[wrong]])[: len(rows)]
    found = [share(row[4]) for row in rows]
    assert found == pytest.approx(own, abs=6e-4), "the least probable true class comes first"
    source = load_breast_cancer()
    table = cancer.run.splits()["test"].data
    assert isinstance(table, Table)
    for row in rows:
        place = int(row[0]) - 1
        assert row[1] == cancer.run.classes[int(source.target[place] == 0)]
        assert row[1] != row[2]
        assert share(row[3]) + share(row[4]) == pytest.approx(1, abs=1e-3), "of two classes"
        for name, value in zip(head[5:], row[5:], strict=True):
            column = next(at for at, known in enumerate(source.feature_names) if str(known) == name)
            assert float(value) == pytest.approx(source.data[place, column], rel=1e-5)


def share(says: str) -> float:
    return 0.0 if says.startswith("<") else float(says.removesuffix(" %")) / 100


def test_the_curves_of_several_runs_lie_over_each_other(cancer: Shown, tmp_path: Path) -> None:
    other = stoker.fit("breast-cancer", out=tmp_path / "other", **{**FIT, "epochs": 4}, lr=0.02)
    shown = Shown(cancer.run, tmp_path / "r.html", other)
    runs = {"run": cancer.run, "other": other}
    for title, column in (("loss, validation split", "valid_loss"), ("accuracy, validation split", "valid_accuracy")):
        chart = shown.charts[title][0]  # those of each run by itself come after
        assert list(chart.keys.values()) == list(runs)
        lines = chart.lines()
        for css, (name, run) in zip(chart.keys, runs.items(), strict=True):
            values = run.history.column(column)
            assert lines[css][:, 0] == pytest.approx(run.history.column("epoch"), abs=0.02)
            assert lines[css][:, 1] == pytest.approx(values, rel=0.03, abs=0.01)
            assert f"{name} from" in chart.alt
    dots = shown.charts["accuracy"][0].dots()
    assert [float(dots[f"s{place}"][0, 0]) for place in range(2)] == pytest.approx(
        [run.metrics["test"]["accuracy"] for run in runs.values()], abs=2e-3
    )
