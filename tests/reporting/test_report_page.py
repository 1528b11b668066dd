"""The report as a whole: true to the run, whole in one file, safe, bounded, and made whatever is missing."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import textwrap
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_diabetes, load_digits

import stoker
from stoker.errors import ConfigError, DataError, RunError, RunExistsError, RunNotFoundError

FIT: dict[str, Any] = {"epochs": 2, "hidden": (8,), "progress": "none", "device": "cpu", "engine": "eager"}
QUICK: dict[str, Any] = {"samples": 100, "repeats": 2}


class Page(HTMLParser):
    """What tests ask of a page: its tables as texts, the numbers in them, links, images, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.values: dict[str, dict[tuple[str, str], float]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self._caption, self._rows, self._inside, self._data = "", [[""]], "", ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    @property
    def text(self) -> str:
        return " ".join("".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("caption", "style"):
            self._inside = tag
        elif tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag == "data":
            head, row = self._rows[0], self._rows[-1]
            where = (row[0], head[len(row) - 1])
            self.values.setdefault(self._caption, {})[where] = float(dict(attrs)["value"] or "nan")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.tables[self._caption] = self._rows
            self._rows = [[""]]
        if tag in ("caption", "style"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            return
        self.said.append(data)
        if self._inside == "caption":
            self._caption += data
        elif self._rows and self._rows[-1]:
            self._rows[-1][-1] = " ".join(f"{self._rows[-1][-1]} {data}".split())


def page(*runs: Any, out: Path, **settings: Any) -> Page:
    return Page(stoker.report(*runs, out=out, **{**QUICK, **settings}))


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> stoker.Run:
    return stoker.fit("iris", out=tmp_path_factory.mktemp("iris") / "run", **{**FIT, "epochs": 4}, lr=0.01)


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> stoker.Run:
    return stoker.fit("diabetes", out=tmp_path_factory.mktemp("diabetes") / "run", **FIT)


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> stoker.Run:
    return stoker.fit("breast-cancer", out=tmp_path_factory.mktemp("cancer") / "run", **FIT)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV file whose column, classes and values would be markup if they were not text."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    classes = np.array(["<script>alert(1)</script>", 'a & b\'s "c"'])
    frame = pl.DataFrame(
        {"<script>alert(2)</script>": x[:, 0], "</title><b>": x[:, 1], "kind": ["<i>", "{{ 7 * 7 }}"] * 40}
    )
    target = classes[(x[:, 0] + rng.normal(size=80) > 0).astype(int)]
    frame.with_columns(pl.Series("<u>target", target)).write_csv(path := tmp_path / "markup.csv")
    return path


@pytest.mark.parametrize("name", ["iris", "diabetes", "cancer"])
def test_the_metrics_are_those_of_the_run_to_the_last_digit(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run: stoker.Run = request.getfixturevalue(name)
    recorded = json.loads((run.path / "metrics.json").read_text())
    shown = page(run.path, out=tmp_path / "r.html").values["Metrics by split"]
    assert shown == {(metric, split): value for split, values in recorded.items() for metric, value in values.items()}


def test_everything_of_a_classification_is_there(cancer: stoker.Run, tmp_path: Path) -> None:
    found = page(cancer, out=tmp_path / "r.html", calibrate=True)
    matrix = found.tables["Confusion matrix: rows by true and predicted class"]
    counts = [[int(re.match(r"\d+", cell)[0]) for cell in row[1:3]] for row in matrix[1:]]  # type: ignore[index]
    rows = sum(map(sum, counts))
    assert rows == cancer.record.rows["test"]
    assert (counts[0][0] + counts[1][1]) / rows == pytest.approx(cancer.metrics["test"]["accuracy"])
    importance = found.tables[
        "Permutation importance: how much log loss on the test split rises when a column is shuffled"
    ]
    assert len(importance) == 31
    for heading in ("ROC", "Precision and recall", "Calibration", "Loss", "What it was trained on", "Versions"):
        assert heading in found.text
    assert cancer.record.sources["train"].fingerprint in found.text
    assert cancer.record.training.engine_reason in found.text
    assert "percentile bootstrap over rows, 100 samples" in found.text
    settings = {row[0]: row[1] for row in found.tables["Settings, those left empty aside"]}
    assert (settings["training.seed"], settings["training.epochs"], settings["model.hidden"]) == ("0", "2", "8")
    assert "training.momentum" not in settings
    assert "With logits divided by a temperature of" in found.text
    auroc = re.search(r"malignant: AUROC ([\d.]+)", found.text)
    assert auroc is not None
    assert float(auroc[1]) == pytest.approx(cancer.metrics["test"]["auroc"], abs=6e-4)


def test_everything_of_a_regression_is_there(diabetes: stoker.Run, tmp_path: Path) -> None:
    found = page(diabetes, out=tmp_path / "r.html", calibrate=True)
    worst = found.tables["The 12 most wrong rows"]
    assert worst[0][:4] == ["row", "true", "predicted", "error"]
    errors = [abs(float(row[3].replace("−", "-").replace(",", ""))) for row in worst[1:]]
    assert errors == sorted(errors, reverse=True)
    source = load_diabetes(scaled=False).target  # the row is that of the source, where one can look it up
    assert [source[int(row[0]) - 1] for row in worst[1:]] == [float(row[1].replace(",", "")) for row in worst[1:]]
    assert "Predicted by true" in found.text
    assert "Temperature scaling: it is for classification" in found.text


@pytest.mark.parametrize(("name", "metric"), [("cancer", "log_loss"), ("diabetes", "mse")])
def test_the_loss_has_the_interval_of_the_metric_that_it_is(
    name: str, metric: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run: stoker.Run = request.getfixturevalue(name)
    grid = {row[0]: row for row in page(run, out=tmp_path / "r.html").tables["Metrics by split"]}
    loss, same = ([float(part) for part in re.findall(r"[\d.]+", grid[one][3])] for one in ("loss", metric))
    assert [value / loss[0] for value in loss] == pytest.approx([value / same[0] for value in same], rel=2e-3)


def test_another_criterion_has_no_interval(tmp_path: Path) -> None:
    run = stoker.fit("iris", out=tmp_path / "run", **FIT, label_smoothing=0.1)
    grid = {row[0]: row for row in page(run, out=tmp_path / "r.html").tables["Metrics by split"]}
    assert re.fullmatch(r"[\d.]+", grid["loss"][3])
    assert re.fullmatch(r"[\d.]+ [\d.]+–[\d.]+", grid["log_loss"][3])


def test_it_needs_nothing_else(iris: stoker.Run, tmp_path: Path) -> None:
    found = page(iris, out=tmp_path / "r.html")
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in found.tags}
    for _, attrs in found.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        for name in ("src", "href", "xlink:href", "action"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/png"))
    assert not re.search(r"@import|url\(|https?://", found.html)
    policy = next(attrs["content"] for tag, attrs in found.tags if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_each_picture_has_a_text_and_each_table_a_caption(iris: stoker.Run, tmp_path: Path) -> None:
    found = page(iris, out=tmp_path / "r.html")
    pictures = [attrs for tag, attrs in found.tags if tag == "svg"]
    assert len(pictures) > 8
    assert all(
        attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-label"]) for attrs in pictures
    )
    assert all(attrs["alt"] for tag, attrs in found.tags if tag == "img")
    tables = [tag for tag, _ in found.tags if tag == "table"]
    assert len(tables) == len([tag for tag, _ in found.tags if tag == "caption"]) == len(found.tables)
    assert ("html", {"lang": "en"}) in found.tags
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_what_the_data_are_called_is_shown_as_text(table: Path, tmp_path: Path) -> None:
    run = stoker.fit(table, target="<u>target", out=tmp_path / "<b>run", **FIT)
    found = page(run, out=tmp_path / "r.html", calibrate=True)
    assert not {"script", "b", "i", "u"} & {tag for tag, _ in found.tags}
    for name in ("<script>alert(1)</script>", "<script>alert(2)</script>", "</title><b>", "<u>target", "{{ 7 * 7 }}"):
        assert name in found.text
    assert "<script>" not in found.html


def test_the_same_run_gives_the_same_bytes(diabetes: stoker.Run, tmp_path: Path) -> None:
    first, again = (page(diabetes, out=tmp_path / f"{name}.html").html for name in "ab")
    assert first == again
    assert page(diabetes, out=tmp_path / "c.html", seed=1).html != first


def test_importance_leaves_the_models_numbers_alone(diabetes: stoker.Run, tmp_path: Path) -> None:
    before = diabetes.evaluate()
    page(diabetes, out=tmp_path / "r.html")
    assert diabetes.evaluate() == before


def test_a_source_that_is_gone_or_another_is_said(tmp_path: Path) -> None:
    source = tmp_path / "data.csv"
    rng = np.random.default_rng(0)
    pl.DataFrame({"a": rng.normal(size=60), "y": rng.normal(size=60)}).write_csv(source)
    run = stoker.fit(source, target="y", out=tmp_path / "run", **FIT)
    kept = source.read_bytes()
    for content, reason in ((kept + b"1.0,2.0\n", "as it was in training, got other contents"), (None, "where it was")):
        source.unlink()
        if content is not None:
            source.write_bytes(content)
        out = tmp_path / f"{content is None}.html"
        found = page(run.path, out=out)
        assert "What is left out" in found.text
        assert reason in found.text
        assert ("rmse", "test") in found.values["Metrics by split"]
        assert "Loss" in found.text
        assert "Permutation importance" not in found.text


def test_data_that_were_in_memory_cannot_be_read_again(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": np.arange(60.0) % 13, "y": np.arange(60.0) % 7 + 0.5})
    found = page(stoker.fit(frame, target="y", out=tmp_path / "run", **FIT), out=tmp_path / "r.html")
    says = "the run's train source must be where it was, seen from here, got polars.DataFrame"
    assert f"All that needs the data: intervals, curves, importance, examples: {says}" in found.text


@pytest.mark.parametrize("setting", ["group", "time"])
def test_rows_that_depend_on_each_other_are_said(setting: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=80), "when": np.arange(80) // 4, "y": rng.normal(size=80)})
    frame.write_csv(source := tmp_path / "d.csv")
    run = stoker.fit(source, target="y", out=tmp_path / "run", **(FIT | {setting: "when"}))
    assert "(when): the true ones are wider." in page(run, out=tmp_path / "r.html").text


def test_a_model_of_the_users_own_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        from torch import nn
        class Net(nn.Linear):
            def __init__(self, n_inputs, n_outputs):
                super().__init__(n_inputs, n_outputs)
    """
    (tmp_path / "nets_of_a_report.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    own = "nets_of_a_report:Net"
    how = {name: value for name, value in FIT.items() if name != "hidden"}
    path = stoker.fit("iris", model=own, out=tmp_path / "run", **how).path
    assert "is imported only if you name it" in page(path, out=tmp_path / "without.html").text
    assert "What is left out" not in page(path, out=tmp_path / "with.html", model=own).text


def test_splits_that_are_too_large_are_said(iris: stoker.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.reporting.html.measured.MOST_ROWS", 40)
    found = page(iris, out=tmp_path / "r.html")
    assert "Intervals of the train split: it has 90 rows; a report measures splits of up to 40" in found.text
    rows = {row[0]: row[1:] for row in found.tables["Metrics by split"]}
    assert re.fullmatch(r"[\d.]+", rows["accuracy"][0])
    monkeypatch.setattr("stoker.reporting.html.measured._split", failing_on("test"))
    found = page(iris, out=tmp_path / "s.html")
    assert "What needs the test split: test: must be good." in found.text
    assert "Pictures show the valid split, for the test split could not be measured." in found.text


def failing_on(wanted: str) -> Any:
    """What measures a split, but for one that it cannot."""
    from stoker.reporting.html import measured

    whole = measured._split

    def split(run: Any, name: str, *rest: Any) -> Any:
        if name == wanted:
            raise DataError(name, "must be good")
        return whole(run, name, *rest)

    return split


def test_one_epoch_and_no_validation_split(tmp_path: Path) -> None:
    run = stoker.fit("iris", out=tmp_path / "run", **{**FIT, "epochs": 1}, valid_size=0)
    found = page(run, out=tmp_path / "r.html", calibrate=True)
    assert "There was one epoch only" in found.text
    assert "There is no validation split" in found.text
    assert "Temperature scaling: it is fitted on the validation split, and there is none" in found.text


def test_nothing_held_back_at_all(tmp_path: Path) -> None:
    run = stoker.fit("iris", out=tmp_path / "run", **FIT, valid_size=0, test_size=0)
    found = page(run, out=tmp_path / "r.html")
    assert "No rows were held back: pictures show the training split" in found.text


def test_one_class_in_the_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=80), "y": ["no", "yes"] * 40})
    frame.write_csv(tmp_path / "train.csv")
    frame.filter(pl.col("y") == "yes").write_csv(tmp_path / "test.csv")
    run = stoker.fit(tmp_path / "train.csv", test=tmp_path / "test.csv", target="y", out=tmp_path / "run", **FIT)
    assert math.isnan(run.metrics["test"]["auroc"])
    found = page(run, out=tmp_path / "r.html", calibrate=True)
    assert "Of 2 classes, 1 occurs in the test split" in found.text
    assert "Only one class occurs in the split" in found.text
    rows = {row[0]: row[1:] for row in found.tables["Metrics by split"]}
    assert rows["auroc"][2] == "undefined"


@pytest.mark.slow
def test_thousands_of_columns_and_many_classes_are_bounded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 1200)).round(3)
    frame = pl.DataFrame({f"column {place} of the table": x[:, place] for place in range(1200)})
    target = (np.argsort(np.argsort(x[:, 0])) // 10).tolist()
    frame = frame.with_columns(pl.Series("y", [f"class {one}" for one in target]))
    run = stoker.fit(frame, target="y", out=tmp_path / "run", **FIT)
    assert len(run.classes) == 200
    run.record.sources["train"] = run.record.sources["train"].model_copy(update={"origin": str(tmp_path / "d.parquet")})
    frame.write_parquet(tmp_path / "d.parquet")
    run = stoker.fit(tmp_path / "d.parquet", target="y", out=tmp_path / "again", **FIT)
    found = page(run, out=tmp_path / "r.html", calibrate=True)
    assert len(found.html) < 1_000_000
    assert "1,100 further columns are not shown." in found.text
    assert "of 1,200 columns the first 1,000 were tried" in found.text
    assert "1,000 columns were first shuffled once" in found.text
    assert "The most frequent mistakes among 200 classes" in found.tables
    assert len(found.tables["The classes with the lowest F1"]) == 31
    assert "classes with a higher F1 are left out" in found.text
    assert "Of 200 classes the 10 most frequent are drawn." in found.text


def test_runs_are_compared(cancer: stoker.Run, tmp_path: Path) -> None:
    other = stoker.fit("breast-cancer", out=tmp_path / "other", **{**FIT, "hidden": (16,)}, lr=0.02)
    found = page(cancer.path, other, out=tmp_path / "r.html")
    grid = found.values["Metrics on the test split, by run"]
    for name, run in (("run", cancer), ("other", other)):
        for metric, value in run.metrics["test"].items():
            assert grid[metric, name] == value
    rows = {row[0]: row[1:] for row in found.tables["Metrics on the test split, by run"]}
    difference = other.metrics["test"]["log_loss"] - cancer.metrics["test"]["log_loss"]
    shown = re.match(r"[+−]?[\d.]+", rows["log_loss, less run's"][1])
    assert shown is not None
    assert float(shown[0].replace("−", "-")) == pytest.approx(difference, rel=0.05)
    differs = {row[0]: row[1:] for row in found.tables["What differs between the runs"]}
    assert differs["model.hidden"] == ["[8]", "[16]"]
    assert differs["training.lr"][1] == "0.02"
    assert "training.epochs" not in differs
    assert [attrs["href"] for tag, attrs in found.tags if tag == "a"] == ["#compared", "#run1", "#run2"]


def test_what_cannot_be_compared_is_said(iris: stoker.Run, diabetes: stoker.Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "flowers"
    shutil.copytree(iris.path, moved)
    found = page(moved, diabetes, out=tmp_path / "r.html")
    says = "The runs are for different tasks (flowers: multiclass of species; run: regression of progression)."
    assert says in found.text
    assert "Metrics on the test split, by run" not in found.tables


def test_runs_on_other_rows_are_compared_with_care(cancer: stoker.Run, tmp_path: Path) -> None:
    other = stoker.fit("breast-cancer", out=tmp_path / "other", **FIT, split_seed=5)
    found = page(cancer, other, out=tmp_path / "r.html")
    assert "The rows of the test split differ: compare other with run with care." in found.text
    assert not [row for row in found.tables["Metrics on the test split, by run"] if "less" in row[0]]


def test_runs_with_the_same_name_are_told_apart(iris: stoker.Run, tmp_path: Path) -> None:
    for place in "ab":
        shutil.copytree(iris.path, tmp_path / place / "run")
    assert page(tmp_path / "a" / "run", tmp_path / "b" / "run", out=tmp_path / "r.html").text.startswith(
        "2 runs: a/run, b/run"
    )


def test_numbers_that_are_not_those_recorded_are_said(iris: stoker.Run, tmp_path: Path) -> None:
    shutil.copytree(iris.path, run := tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["accuracy"], metrics["valid"]["f1"] = 0.123, None
    (run / "metrics.json").write_text(json.dumps(metrics))
    found = page(run, out=tmp_path / "r.html")
    says = r"not all numbers are those that metrics\.json has: accuracy on the test split is [\d.]+ instead of 0\.123\."
    assert re.search(says, found.text)
    assert {row[0]: row for row in found.tables["Metrics by split"]}["f1"][2] == "undefined"


def test_a_damaged_history_and_weights_leave_the_rest(iris: stoker.Run, tmp_path: Path) -> None:
    shutil.copytree(iris.path, run := tmp_path / "run")
    (run / "history.csv").write_text("epoch\nx\n")
    (run / "model.safetensors").write_bytes(b"no")
    found = page(run, out=tmp_path / "r.html")
    assert "Learning curves: " in found.text
    assert "must be a safetensors file" in found.text


def test_outputs_that_are_not_numbers_are_said(iris: stoker.Run, diabetes: stoker.Run, tmp_path: Path) -> None:
    for one in (iris, diabetes):
        shutil.copytree(one.path, run := tmp_path / str(one.task))
        weights = load_file(run / "model.safetensors")
        last = [name for name in weights if name.startswith("head.network") and name.endswith("bias")][-1]
        weights[last][:] = math.nan
        save_file(weights, run / "model.safetensors")
        found = page(run, out=run / "r.html", calibrate=True)
        assert "the model's outputs on the test split are not finite" in found.text
        assert "Permutation importance: outputs are not finite" in found.text
        assert "is nan instead of" in found.text
        assert "undefined" in found.tables["The 12 most wrong rows"][1]


def test_images_are_shown(tmp_path: Path) -> None:
    run = stoker.fit("digits", out=tmp_path / "run", progress="none", epochs=1, device="cpu", engine="eager")
    found = page(run, out=tmp_path / "r.html")
    images = [attrs for tag, attrs in found.tags if tag == "img"]
    assert len(images) == 24
    truth = load_digits().target
    for attrs in images:
        says = re.fullmatch(r"image ([\d,]+): (\d) taken for \d", attrs["alt"] or "")
        assert says is not None
        assert truth[int(says[1].replace(",", "")) - 1] == int(says[2])
    assert "They are brightened to be seen." in found.text


def test_by_default_it_is_in_the_runs_directory(
    iris: stoker.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(iris.path, run := tmp_path / "run")
    assert stoker.report(run, **QUICK) == run / "report.html"
    with pytest.raises(RunExistsError, match=r"--out: must not exist yet, got .*Stoker overwrites nothing"):
        stoker.report(run, **QUICK)
    monkeypatch.chdir(tmp_path)
    assert stoker.report(run, iris, **QUICK) == Path("report.html")


def test_bad_arguments(iris: stoker.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report: needs from 1 to 10 runs, got 0"):
        stoker.report()
    with pytest.raises(RunNotFoundError, match=r"run: no such directory, got .*nowhere"):
        stoker.report(tmp_path / "nowhere")
    with pytest.raises(RunNotFoundError, match=r"must be a directory that stoker fit made"):
        stoker.report(tmp_path)
    with pytest.raises(ConfigError, match=r"--out: must be a file that ends in \.html, got 'r\.pdf'"):
        stoker.report(iris, out="r.pdf")
    with pytest.raises(RunNotFoundError, match=r"--out: must be in a directory that exists"):
        stoker.report(iris, out=tmp_path / "no" / "r.html")
    with pytest.raises(ConfigError, match=r"samples: must be at least 100, got 3"):
        stoker.report(iris, samples=3)
    with pytest.raises(ConfigError, match=r"repeats: must be at least 1, got 0"):
        stoker.report(iris, repeats=0)
    with pytest.raises(ConfigError, match=r"report: must be of different runs, got .* Name each run once"):
        stoker.report(iris, iris.path, out=tmp_path / "r.html")
    shutil.copytree(iris.path, run := tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(RunError, match=r"must be of format 1, got 99. It was written by another Stoker"):
        stoker.report(run)


@pytest.mark.parametrize("part", ["task", "table_schema"])
def test_a_damaged_recipe_is_said(part: str, iris: stoker.Run, tmp_path: Path) -> None:
    shutil.copytree(iris.path, run := tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["recipe"][part] = {"columns": 3}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"run: config\.json is damaged \(.*Copy the run again"):
        stoker.report(run, **QUICK)
    assert not (run / "report.html").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_to(iris: stoker.Run, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match=r"--out: must be a place to write to, got .*Permission denied"):
        stoker.report(iris, out=tmp_path / "locked" / "r.html")


def test_a_file_that_cannot_be_made_leaves_nothing(
    iris: stoker.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=r"must be a place to write to, got .*Permission denied"):
        stoker.report(iris, out=tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []
