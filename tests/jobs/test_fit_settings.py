"""Whole jobs under each setting: what it promises is seen in the run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file
from sklearn.linear_model import LinearRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error, mean_squared_error, r2_score
from small import learning, mixed, quick_fit, write_images

import stoker


@pytest.mark.parametrize(("target", "task"), [("price", "regression"), ("sold", "binary"), ("grade", "multiclass")])
@pytest.mark.parametrize(("model", "categories"), [("linear", "one-hot"), ("mlp", "embedding"), ("linear", "auto")])
def test_every_task_with_every_model(target: str, task: str, model: str, categories: str, tmp_path: Path) -> None:
    hidden = None if model == "linear" else (16,)
    settings: dict[str, Any] = {"model": model, "hidden": hidden, "categories": categories, "epochs": 12, "lr": 0.02}
    run = quick_fit(learning(target, 300), tmp_path / "run", target=target, **settings)
    assert run.task == task
    metrics = run.metrics["test"]
    assert (
        metrics["r2"] > 0.5
        if task == "regression"
        else metrics["accuracy"] > {"binary": 0.75, "multiclass": 0.55}[task]
    )
    embedded = [name for name in load_file(run.path / "model.safetensors") if "embedding" in name]
    assert bool(embedded) == (model == "mlp"), "categories of a linear model are one-hot"


def test_metrics_are_those_that_scikit_learn_gives_for_the_predictions(tmp_path: Path) -> None:
    test = learning("price", 60, seed=5)
    run = quick_fit(learning("price"), tmp_path / "a", target="price", test=test)
    true, predicted = test["price"].to_numpy(), np.array(run.predict(test).values)
    assert run.metrics["test"]["mse"] == pytest.approx(mean_squared_error(true, predicted), rel=1e-5)
    assert run.metrics["test"]["mae"] == pytest.approx(mean_absolute_error(true, predicted), rel=1e-5)
    assert run.metrics["test"]["r2"] == pytest.approx(r2_score(true, predicted), rel=1e-5)

    test = learning("grade", 60, seed=5)
    run = quick_fit(learning("grade"), tmp_path / "b", target="grade", test=test)
    found = run.predict(test)
    assert run.metrics["test"]["accuracy"] == pytest.approx(accuracy_score(test["grade"], found.values))
    assert run.metrics["test"]["f1"] == pytest.approx(f1_score(test["grade"], found.values, average="macro"))
    probabilities = found.outputs.double().softmax(dim=1).numpy()
    assert found.probabilities.numpy() == pytest.approx(probabilities, abs=1e-6)
    wanted = log_loss(test["grade"], probabilities, labels=list(run.classes))
    assert run.metrics["test"]["log_loss"] == pytest.approx(wanted, rel=1e-6)
    assert run.metrics["test"]["loss"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("scale_target", [True, False])
def test_predictions_are_in_the_targets_own_unit(scale_target: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y = X @ [30.0, -10.0] + 5000 + rng.normal(0, 1, 400)
    settings: dict[str, Any] = {"optimizer": "sgd", "lr": 0.05, "epochs": 40}
    run = quick_fit((X, y), tmp_path / "run", model="linear", hidden=None, scale_target=scale_target, **settings)
    truth = LinearRegression().fit(X, y)
    assert np.array(run.predict(X).values) == pytest.approx(truth.predict(X), abs=3.0)
    losses = run.metrics["train"]["mse"] / run.metrics["train"]["loss"]
    assert losses == pytest.approx(np.var(y, ddof=1) if scale_target else 1.0, rel=0.2), (
        "the loss is of what is trained on"
    )


@pytest.mark.parametrize(("loss", "expected"), [("mae", "mae"), ("mse", "mse")])
def test_the_loss_is_the_one_asked_for(loss: str, expected: str, tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", loss=loss, scale_target=False, lr=100.0)
    assert run.metrics["test"]["loss"] == pytest.approx(run.metrics["test"][expected], rel=1e-6)


def test_huber_loss(tmp_path: Path) -> None:
    test = learning("price", 50, seed=1)
    settings: dict[str, Any] = {"loss": "huber", "scale_target": False, "lr": 100.0}
    run = quick_fit(learning("price"), tmp_path / "run", target="price", test=test, **settings)
    error = np.abs(np.array(run.predict(test).values) - test["price"].to_numpy())
    by_hand = np.where(error < 1, error**2 / 2, error - 0.5).mean()
    assert run.metrics["test"]["loss"] == pytest.approx(by_hand, rel=1e-5)


def unbalanced() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    rare = np.arange(400) % 10 == 0
    return pl.DataFrame({"x": rng.normal(size=400) + 0.8 * rare, "y": np.where(rare, "rare", "usual")})


def test_class_weights_make_a_rare_class_count(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"target": "y", "epochs": 15, "lr": 0.02, "model": "linear", "hidden": None}
    runs = {
        name: quick_fit(unbalanced(), tmp_path / name, class_weights=weights, **settings)
        for name, weights in {"none": None, "balanced": "balanced", "list": (4.5, 0.5)}.items()
    }
    found = {name: list(map(str, run.predict(unbalanced()).values)).count("rare") for name, run in runs.items()}
    assert found["none"] < found["list"]
    assert found["none"] < 20 < found["balanced"]
    assert runs["balanced"].record.recipe["class_weights"] == pytest.approx([5.0, 400 / 720])
    assert runs["list"].record.recipe["class_weights"] == [4.5, 0.5]
    for run in runs.values():
        again = run.evaluate(unbalanced())
        true = unbalanced()["y"].to_list()
        probabilities = run.predict(unbalanced()).probabilities.double().numpy()
        weights = run.record.recipe["class_weights"] or [1.0, 1.0]
        losses = [
            -weights[run.classes.index(c)] * np.log(p[run.classes.index(c)])
            for c, p in zip(true, probabilities, strict=True)
        ]
        assert again["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_label_smoothing_is_in_the_loss_and_not_in_the_log_loss(tmp_path: Path) -> None:
    plain = quick_fit("iris", tmp_path / "plain")
    smooth = quick_fit("iris", tmp_path / "smooth", label_smoothing=0.3)
    assert plain.metrics["test"]["loss"] == pytest.approx(plain.metrics["test"]["log_loss"], rel=1e-6)
    assert abs(smooth.metrics["test"]["loss"] - smooth.metrics["test"]["log_loss"]) > 1e-4


def test_a_group_is_in_one_split_only(tmp_path: Path) -> None:
    frame = learning("price", 200)
    told: list[str] = []
    run = quick_fit(frame, tmp_path / "run", target="price", group="street", notify=told.append)
    assert sum(run.record.rows.values()) == 200
    assert run.record.rows["train"] < 150
    assert "column 'street' is left out: rows are grouped by it, so that no value is in two splits" in told
    assert run.schema is not None
    assert "street" not in {column.name for column in run.schema.features}
    from stoker.data.dataset import Table
    from stoker.data.schema import infer_schema
    from stoker.jobs.splitting import split_table

    table = stoker.load_data(frame)
    assert isinstance(table, Table)
    with_street = infer_schema(frame, "price")  # the splits keep the columns that are used, and here it shall be seen
    parts = split_table(table, with_street, run.config.data, 0, notify=told.append)
    streets = [set(part["street"]) for _, part in parts.items()]
    assert {name: part.height for name, part in parts.items()} == run.record.rows
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(streets, 2))
    assert set.union(*streets) == set(frame["street"])


def test_by_time_the_latest_rows_are_for_the_test(tmp_path: Path) -> None:
    frame = learning("price", 100).sample(fraction=1.0, shuffle=True, seed=1)
    run = quick_fit(frame, tmp_path / "run", target="price", time="seen")
    assert run.record.rows == {"train": 60, "valid": 20, "test": 20}
    latest = frame.sort("seen").tail(20)
    assert run.evaluate(latest)["mse"] == pytest.approx(run.metrics["test"]["mse"], rel=1e-9)


def test_without_validation_the_last_epoch_counts(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", valid_size=0, epochs=3)
    assert set(run.metrics) == {"train", "test"}
    assert (run.history.monitor, run.history.best_epoch) == (None, 3)
    assert "The weights are those of the last epoch." in (run.path / "README.md").read_text()


def test_without_a_test_split_it_is_the_validation_that_is_evaluated(tmp_path: Path) -> None:
    path = tmp_path / "homes.csv"
    learning("price").write_csv(path)
    run = quick_fit(path, tmp_path / "run", target="price", test_size=0)
    assert set(run.metrics) == {"train", "valid"}
    assert run.evaluate() == run.metrics["valid"]
    assert "No test split was held back." in (run.path / "README.md").read_text()


def test_sizes_may_be_counts(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", valid_size=11, test_size=7)
    assert run.record.rows == {"train": 132, "valid": 11, "test": 7}


def test_patience_ends_training_early_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 200, "lr": 0.1, "patience": 2, "hidden": (64,)}
    run = quick_fit(learning("sold", 60), tmp_path / "run", target="sold", **settings)
    assert run.stopped == "patience"
    losses = run.history.column("valid_loss")
    assert len(losses) == run.history.best_epoch + 2 < 200
    assert min(losses) == losses[run.history.best_epoch - 1]
    assert run.metrics["valid"]["loss"] == min(losses), "the weights are those of the best epoch"


def test_another_column_may_be_monitored(tmp_path: Path) -> None:
    run = quick_fit("iris", tmp_path / "run", monitor="valid_accuracy", epochs=8, lr=0.02)
    accuracies = run.history.column("valid_accuracy")
    assert run.history.monitor == "valid_accuracy"
    assert run.metrics["valid"]["accuracy"] == max(accuracies)
    assert run.history.best_epoch == 1 + accuracies.index(max(accuracies))


def test_metrics_may_be_chosen(tmp_path: Path) -> None:
    run = quick_fit("iris", tmp_path / "run", metrics=("accuracy",))
    assert set(run.metrics["test"]) == {"loss", "accuracy"}
    assert set(run.evaluate()) == {"loss", "accuracy"}


def test_a_batch_larger_than_the_data_is_all_of_them(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", batch_size=10**6, epochs=3)
    assert run.record.training.steps == 3


@pytest.mark.parametrize("frame", [mixed(10).select("size", "price"), mixed(3).select("rooms", "price")])
def test_very_little_data(frame: pl.DataFrame, tmp_path: Path) -> None:
    run = quick_fit(frame, tmp_path / "run", target="price")
    assert min(run.record.rows.values()) >= 1
    assert len(run.predict(frame).values) == frame.height


def test_three_rows_a_class_are_enough(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1.5, 2.0, 3.0, 4.0, 5.0, 6.0], "y": ["a", "b"] * 3})
    run = quick_fit(frame, tmp_path / "run", target="y", valid_size=2, test_size=2)
    assert run.record.rows == {"train": 2, "valid": 2, "test": 2}


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([True, False], "binary", ("false", "true")),
        ([3, -1, 20], "multiclass", ("-1", "3", "20")),
        ([1.0, 0.0], "binary", ("0", "1")),
        (["a, b", 'say "c"', "d\ne", "$x_{", "`f`"], "multiclass", ("$x_{", "`f`", "a, b", "d\ne", 'say "c"')),
        (["02", "1", "30"], "multiclass", ("1", "02", "30")),
    ],
)
def test_targets_of_every_type(values: list[Any], task: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    frame = mixed(100).select("seen", "kind").with_columns(y=pl.Series([values[i % len(values)] for i in range(100)]))
    run = quick_fit(frame, tmp_path / "run", target="y")
    assert (run.task, run.classes) == (task, classes)
    assert run.notices == [], "not even about pictures"
    table = run.predict(frame).frame(proba=True, top_k=2)
    assert table.columns[1 : 1 + len(classes)] == [f"proba_{name}" for name in classes]
    assert set(table["prediction"]) <= set(classes)
    assert table["prediction"].to_list() == table["top1"].to_list()


def test_durations_are_predicted_in_seconds(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [n + 0.5 for n in range(60)]})
    frame = frame.with_columns(y=pl.duration(minutes=pl.col("x") * 3))
    run = quick_fit(frame, tmp_path / "run", target="y", model="linear", hidden=None, epochs=40, lr=0.1)
    assert run.predict(frame).values == pytest.approx([180 * (n + 0.5) for n in range(60)], abs=900)


def test_notices_tell_what_was_left_out(tmp_path: Path) -> None:
    frame = learning("price").with_columns(
        nothing=pl.lit(7), price=pl.when(pl.int_range(pl.len()) < 9).then(None).otherwise(pl.col("price"))
    )
    frame = pl.concat([frame, frame.tail(40)])
    told: list[str] = []
    run = quick_fit(frame, tmp_path / "run", target="price", notify=told.append)
    assert run.notices == told
    assert told[0] == "column 'nothing' is left out: constant: always '7'"
    assert told[1] == "9 rows of the table without 'price' left out"
    assert (
        told[2].split(" ", 1)[1]
        == "rows of valid also in train, equal in every column: there, learning by heart looks like skill"
    )
    assert len(told) == len(run.record.duplicates) + 2
    card = (run.path / "README.md").read_text()
    assert all(f"- {notice}" in card for notice in told)


def test_a_column_that_was_ignored_on_request_is_no_news(tmp_path: Path) -> None:
    run = quick_fit(learning("price"), tmp_path / "run", target="price", ignore=("street", "seen"))
    assert run.notices == []
    with pytest.raises(stoker.StokerError, match="without 'rooms'"):
        run.predict(learning("price").drop("rooms"))
    assert len(run.predict(learning("price").drop("street", "seen")).values) == 150


def test_a_date_that_never_varies_in_training_is_told_of(tmp_path: Path) -> None:
    frame = learning("price").with_columns(
        pl.when(pl.int_range(pl.len()) < 140).then(pl.datetime(2024, 1, 1)).otherwise(pl.col("seen")).alias("seen")
    )
    run = quick_fit(frame.with_row_index("order"), tmp_path / "run", target="price", time="order", ignore=("order",))
    assert run.notices == ["column 'seen' is left out: it has one value in all rows to train on"]
    assert len(run.predict(frame).values) == 150


@pytest.mark.parametrize(
    "setting",
    [{"task": "regression"}, {"categories": "one-hot"}, {"group": "x"}, {"clip": 3.0}, {"scale_target": False}],
)
def test_settings_of_tables_are_refused_for_images(setting: dict[str, Any], tmp_path: Path) -> None:
    write_images(tmp_path / "a", each=5)
    with pytest.raises(
        stoker.StokerError, match=f"data.{next(iter(setting))}: is for tables, got images. Leave it out."
    ):
        quick_fit(tmp_path / "a", tmp_path / "run", **setting)
    assert not (tmp_path / "run").exists()


def test_a_value_too_large_for_the_network_is_told_of(tmp_path: Path) -> None:
    test = learning("price", 20, seed=1).with_columns(size=pl.when(pl.int_range(20) == 3).then(1e300).otherwise("size"))
    run = quick_fit(learning("price"), tmp_path / "run", target="price", test=test)
    assert len(run.notices) == 1
    assert run.notices[0].startswith("the loss of the test split is ")
    assert '"loss": null' in (run.path / "metrics.json").read_text()
    assert np.isnan(run.metrics["test"]["loss"])
    assert np.isfinite(run.metrics["valid"]["loss"])


@pytest.mark.slow
def test_a_wide_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 1000))
    run = quick_fit((X, X[:, 0]), tmp_path / "run")
    assert run.schema is not None
    assert len(run.schema.features) == 1000
    assert len(run.predict(X[:5]).values) == 5
