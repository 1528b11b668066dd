"""A run that is read again: moved, predicting, evaluating; and what it says about sources that do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from small import learning, quick_fit, write_images

import stoker
from stoker.data.dataset import Table
from stoker.errors import ConfigError, DataError, EncodingError, RunError, RunNotFoundError, SourceNotFoundError
from stoker.jobs.blocks import Blocks, predict_in_blocks
from stoker.jobs.config import build_config
from stoker.jobs.prepare import prepare, trained_part

GRADES = learning("grade")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sources of this module's runs lie."""
    path = tmp_path_factory.mktemp("home")
    GRADES.write_csv(path / "grades.csv")
    return path


@pytest.fixture(scope="module")
def run(home: Path) -> stoker.Run:
    """Of three classes."""
    return quick_fit(home / "grades.csv", home / "run", target="grade", epochs=8, lr=0.02)


@pytest.fixture(scope="module")
def regression(home: Path) -> stoker.Run:
    return quick_fit(learning("price"), home / "regression", target="price")


def test_it_loads_after_being_moved(run: stoker.Run, tmp_path: Path) -> None:
    moved = shutil.move(shutil.copytree(run.path, tmp_path / "copy"), tmp_path / "new place é")
    again = stoker.load(moved)
    assert torch.equal(again.predict(GRADES).outputs, run.predict(GRADES).outputs)
    assert again.metrics == run.metrics
    assert again.evaluate() == run.metrics["test"], "the source is still where it was"
    assert [path.parent.parent for path in again.figures] == [Path(moved)] * 2


def test_its_outputs_are_those_of_the_trainer_that_made_it(run: stoker.Run) -> None:
    """The same network, trained once more by hand, gives the same outputs to the bit."""
    table = stoker.load_data(GRADES)
    assert isinstance(table, Table)
    config = build_config(short={"target": "grade", "epochs": 8, "hidden": (8,), "lr": 0.02})
    ready = prepare(table, config, notify=lambda _: None)
    trainer = stoker.Trainer(trained_part(ready.model, "table"), stoker.MeanCrossEntropy(), "adamw", lr=0.02)
    trainer.fit(*(ready.splits[name] for name in ("train", "valid")), epochs=8, restore_best=True, progress="none")
    outputs = predict_in_blocks(trainer, ready.splits["test"][0], run.block_rows)
    own = run._own_split()
    assert isinstance(own, Table)
    assert torch.equal(run.predict(own).outputs, outputs)


def test_the_whole_model_takes_raw_values(run: stoker.Run) -> None:
    columns = run.artifact.columns
    assert columns is not None
    with torch.no_grad():
        logits = run.model(**columns.read(GRADES))
    assert logits.numpy() == pytest.approx(run.predict(GRADES).outputs.numpy(), abs=1e-6)


def test_evaluating_gives_the_figures_of_the_record_to_the_last_digit(run: stoker.Run, tmp_path: Path) -> None:
    assert run.evaluate() == run.metrics["test"]
    assert stoker.load(run.path).evaluate() == run.metrics["test"], "and again"
    own = run._own_split()
    assert isinstance(own, Table)
    own.frame.write_csv(tmp_path / "same rows.csv")
    assert run.evaluate(tmp_path / "same rows.csv") == run.metrics["test"]
    assert run.evaluate(own.frame.sample(fraction=1.0, shuffle=True, seed=1)) == pytest.approx(run.metrics["test"])


def test_evaluating_changes_nothing(run: stoker.Run) -> None:
    before = run.predict(GRADES).outputs
    state = torch.random.get_rng_state()
    run.evaluate()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(run.predict(GRADES).outputs, before)


def test_rows_without_a_target_are_left_out_and_told_of(run: stoker.Run) -> None:
    told: list[str] = []
    gaps = GRADES.with_columns(grade=pl.when(pl.int_range(150) < 10).then(None).otherwise("grade"))
    assert run.evaluate(gaps, notify=told.append) == run.evaluate(GRADES[10:])
    assert told == ["10 rows without 'grade' left out"]
    with pytest.raises(DataError, match=r"^polars.DataFrame: must have rows with a 'grade', got none\."):
        run.evaluate(GRADES.with_columns(grade=pl.lit(None, dtype=pl.String)))


def test_evaluating_needs_the_target(run: stoker.Run) -> None:
    fix = "Use stoker predict for rows without it."
    with pytest.raises(DataError, match=rf"^polars.DataFrame: must have the target 'grade', got none\. {fix}"):
        run.evaluate(GRADES.drop("grade"))


def test_evaluating_on_a_class_that_training_did_not_know(run: stoker.Run) -> None:
    odd = GRADES.with_columns(
        grade=pl.when(pl.int_range(150) == 4)
        .then(pl.lit("best"))
        .when(pl.int_range(150) < 2)
        .then(None)
        .otherwise("grade")
    )
    rule = r"column 'grade', row 2 \(counting from 0\): must be one of the 3 known classes \('low', 'middle', 'top'\)"
    with pytest.raises(
        EncodingError, match=rf"^polars.DataFrame, {rule}, got 'best'\. .* The 2 rows without a target are"
    ):
        run.evaluate(odd)


def test_a_source_that_is_gone(run: stoker.Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(home / "grades.csv", tmp_path / "elsewhere.csv")
    try:
        rule = r"^evaluate: the run's train source must be where it was, seen from here, got .*grades\.csv\. "
        with pytest.raises(
            SourceNotFoundError, match=rule + "Say which source to evaluate on: stoker evaluate RUN SOURCE"
        ):
            run.evaluate()
        assert run.evaluate(tmp_path / "elsewhere.csv")["accuracy"] > 0.5
    finally:
        shutil.move(tmp_path / "elsewhere.csv", home / "grades.csv")


def test_a_source_that_has_changed(run: stoker.Run, home: Path) -> None:
    text = (home / "grades.csv").read_text()
    try:
        (home / "grades.csv").write_text(text.replace("middle", "medium"))
        rule = (
            r"^evaluate: the run's train source must be as it was in training, got other contents in .*grades\.csv\. "
        )
        with pytest.raises(DataError, match=rule):
            run.evaluate()
    finally:
        (home / "grades.csv").write_text(text)


def test_a_source_that_was_an_object(regression: stoker.Run) -> None:
    with pytest.raises(SourceNotFoundError, match=r"must be where it was, seen from here, got polars.DataFrame\."):
        regression.evaluate()
    assert regression.evaluate(learning("price"))["r2"] < 1


def test_all_rows_were_trained_on(tmp_path: Path) -> None:
    GRADES.write_csv(tmp_path / "grades.csv")
    run = quick_fit(tmp_path / "grades.csv", tmp_path / "run", target="grade", valid_size=0, test_size=0)
    assert set(run.metrics) == {"train"}
    with pytest.raises(DataError, match=r"^evaluate: the run must have held back rows, got none\. Say a source"):
        run.evaluate()


def test_further_columns_and_another_order_change_nothing(run: stoker.Run) -> None:
    wanted = run.predict(GRADES).outputs
    other = GRADES.with_columns(more=pl.lit(3)).select("more", *reversed(GRADES.columns[:-1]))
    assert torch.equal(run.predict(other).outputs, wanted)


def test_columns_that_are_missing_are_all_named(run: stoker.Run) -> None:
    rule = "table: must have every column that the model was trained on, got a table without 'rooms', 'kind'"
    with pytest.raises(EncodingError, match=rf"^{rule}\. Did you mean 'Rooms'\?"):
        run.predict(GRADES.drop("kind").rename({"rooms": "Rooms"}))


def test_text_where_a_number_belongs_is_named_by_column_row_and_value(run: stoker.Run, tmp_path: Path) -> None:
    lines = GRADES.write_csv().splitlines()
    lines[8] = "many" + lines[8][lines[8].index(",") :]
    (tmp_path / "odd.csv").write_text("\n".join(lines))
    with pytest.raises(
        EncodingError, match=r"^column 'size', row 7 \(counting from 0\): must be a number, got 'many'\."
    ):
        run.predict(tmp_path / "odd.csv")


def test_a_category_never_seen_is_like_any_other_never_seen(run: stoker.Run) -> None:
    one, other = (run.predict(GRADES.with_columns(street=pl.lit(name))).outputs for name in ("here", "there"))
    assert torch.equal(one, other)
    assert bool(one.isfinite().all())


@pytest.mark.parametrize("cell", [None, "", "NA"])
def test_rows_of_nothing_but_missing_values(cell: str | None, run: stoker.Run) -> None:
    rows = pl.DataFrame({name: pl.Series([cell] * 3, dtype=pl.String) for name in GRADES.columns})
    outputs = run.predict(rows).outputs
    assert bool(outputs.isfinite().all())
    assert outputs[0].numpy() == pytest.approx(outputs[2].numpy(), abs=1e-6)


def test_one_row_and_no_row(run: stoker.Run) -> None:
    assert run.predict(GRADES[3:4]).values == run.predict(GRADES).values[3:4]
    with pytest.raises(DataError, match=r"must have rows and columns, got the shape \(0, 7\)"):
        run.predict(GRADES[:0])


@pytest.mark.parametrize("size", [1, 2, 7, 31, 32, 33, 64])
def test_a_row_is_predicted_alike_whatever_stands_beside_it(size: int, run: stoker.Run) -> None:
    """To the last bit, which networks given batches of several sizes do not do."""
    parts = [run.predict(GRADES[start : start + size]).outputs for start in range(0, 150, size)]
    assert torch.equal(torch.cat(parts), run.predict(GRADES).outputs)


def test_blocks_are_of_one_size_filled_up_with_the_first_row() -> None:
    x = torch.arange(10.0).reshape(5, 2)
    blocks = Blocks({"numeric": x}, 3, torch.device("cpu"))
    found = [inputs["numeric"] for inputs, targets in blocks.epoch(0) if targets is None]
    assert [block.tolist() for block in found] == [x[:3].tolist(), [[6.0, 7.0], [8.0, 9.0], [6.0, 7.0]]]
    assert (len(blocks), blocks.rows, blocks.batch_size, blocks.n) == (2, 6, 3, 5)
    found[0].zero_()
    assert x.sum() == 45, "a model that works in place changes its copy alone"


def test_probabilities(run: stoker.Run) -> None:
    found = run.predict(GRADES)
    assert found.probabilities.sum(dim=1).numpy() == pytest.approx(np.ones(150), abs=1e-6)
    table = found.frame(proba=True, top_k=3)
    assert table.columns == [
        "prediction",
        *(f"proba_{name}" for name in ("low", "middle", "top")),
        *(name for rank in (1, 2, 3) for name in (f"top{rank}", f"top{rank}_proba")),
    ]
    for row in table.head(20).iter_rows(named=True):
        by_class = {name: row[f"proba_{name}"] for name in run.classes}
        ranked = sorted(by_class, key=lambda name: -by_class[name])
        assert [row["top1"], row["top2"], row["top3"]] == ranked
        assert [row[f"top{rank}_proba"] for rank in (1, 2, 3)] == [by_class[name] for name in ranked]
        assert row["prediction"] == ranked[0]


@pytest.mark.parametrize("top_k", [0, 4, -1])
def test_more_classes_than_there_are(top_k: int, run: stoker.Run) -> None:
    with pytest.raises(ConfigError, match=rf"^--top-k: must be from 1 to the number of classes, 3, got {top_k}\."):
        run.predict(GRADES).frame(top_k=top_k)


def test_a_number_has_no_probability(regression: stoker.Run) -> None:
    found = regression.predict(learning("price"))
    with pytest.raises(ConfigError, match=r"^--proba: is for classification, got a regression\. Leave it out\."):
        found.frame(proba=True)
    with pytest.raises(ConfigError, match=r"^--top-k: is for classification, got a regression\. Leave it out\."):
        found.frame(top_k=1)
    with pytest.raises(ConfigError, match=r"^probabilities: are for classification, got a regression\."):
        _ = found.probabilities
    assert found.frame().columns == ["prediction"]
    assert found.frame()["prediction"].dtype == pl.Float64


def test_images_for_a_table_and_a_table_for_images(run: stoker.Run, tmp_path: Path) -> None:
    images = np.zeros((3, 8, 8), np.uint8)
    with pytest.raises(DataError, match=r"^numpy.ndarray: must be a table, as this run's model takes, got images\."):
        run.predict(images)
    of_images = quick_fit(write_images(tmp_path / "animals"), tmp_path / "run", model="mlp")
    with pytest.raises(DataError, match=r"^polars.DataFrame: must be images of the shape \(1, 8, 8\), got a table\."):
        of_images.predict(GRADES)
    with pytest.raises(DataError, match=r"^numpy.ndarray: must be images of the shape \(1, 8, 8\), got \(1, 5, 5\)"):
        of_images.predict(np.zeros((3, 5, 5), np.uint8))
    assert of_images.predict(images).values == ["cat"] * 3
    unlabelled = tmp_path / "animals" / "cat"
    assert len(of_images.predict(unlabelled).values) == 15
    with pytest.raises(DataError, match=r"cat: images to evaluate on must have labels, got none\. .* stoker predict"):
        of_images.evaluate(unlabelled)
    with pytest.raises(
        DataError, match=r"other: must have no other classes than the run, got ox\. The run knows cat, dog"
    ):
        of_images.evaluate(write_images(tmp_path / "other", ("cat", "ox"), each=2))
    assert of_images.evaluate(write_images(tmp_path / "dogs", ("dog",), each=2))["accuracy"] <= 1.0


def test_images_of_another_size_are_brought_into_the_runs(tmp_path: Path) -> None:
    from PIL import Image

    run = quick_fit(write_images(tmp_path / "animals"), tmp_path / "run", model="mlp", epochs=20, lr=0.02)
    Image.new("RGB", (50, 40), (100, 100, 100)).save(tmp_path / "large.png")
    assert run.predict(tmp_path / "large.png").frame().to_dict(as_series=False) == {
        "image": ["large.png"],
        "prediction": ["dog"],
    }


def test_sources_that_are_not_there(run: stoker.Run) -> None:
    with pytest.raises(SourceNotFoundError, match=r"'no/such\.csv': must be an existing file or directory"):
        run.predict("no/such.csv")


@pytest.mark.parametrize("what", ["nothing", "file", "empty"])
def test_no_run_there(what: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    rule = "must be a directory that stoker fit made" if what == "empty" else "no such directory"
    with pytest.raises(RunNotFoundError, match=rf"^run: {rule}, got .*{what}\."):
        stoker.load(tmp_path / what)


def test_a_run_that_may_not_be_entered(run: stoker.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", forbid)
    with pytest.raises(RunError, match=r"run: must be readable, got Permission denied\. Look at its permissions\."):
        stoker.load(run.path)


def test_what_a_run_tells_about_itself(run: stoker.Run) -> None:
    assert repr(run) == f"Run({str(run.path)!r})"
    assert (run.task, run.classes, run.stopped, run.notices) == ("multiclass", ("low", "middle", "top"), "finished", [])
    assert run.schema is not None
    assert run.schema.target is not None
    assert run.schema.target.name == "grade"
    assert len(run.history) == 8
