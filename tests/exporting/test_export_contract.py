"""What every format promises of every model: in a fresh process, on rows new to it, the same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from subjects import SUBJECTS, fitted, table

import stoker
from stoker.data.sources import load as load_source
from stoker.exporting.check import wanted
from stoker.exporting.formats import FORMATS
from stoker.exporting.fresh import ask
from stoker.exporting.signature import served

REFUSED = {"own, branching", "own, scaled", "own, otherwise", "own, tied", "own, numpy"}
MODELS = [name for name in SUBJECTS if name not in REFUSED]
PROGRAMS = [name for name, one in FORMATS.items() if one.program]
FEW = {("onnx", "mlp, a number"), ("onnx", "cnn, images"), ("torchscript-trace", "own, a number")}
ASKED_AGAIN = FEW | {
    ("torch-export", "own, by name"),
    ("torchscript-script", "own, by name"),
    ("aoti", "mlp, a number"),
}


def often(form: str, name: str) -> tuple[pytest.MarkDecorator, ...]:
    """ONNX of every model, the other formats of every other one; all of all at length."""
    if (form, name) in FEW:
        return ()
    every = form == "onnx" or (form, name) in ASKED_AGAIN or (MODELS.index(name) + PROGRAMS.index(form)) % 2 == 0
    return (pytest.mark.slow,) if every else (pytest.mark.slow, pytest.mark.long)


CASES = [
    pytest.param(form, name, id=f"{form}, {name}", marks=often(form, name))
    for form in PROGRAMS
    for name in MODELS
    if (form != "aoti" or name in {"mlp, a number", "cnn, images"})  # half a minute of compiling each
    and (form, name) != ("onnx", "own, half")  # ONNX Runtime has no such argmax: see test_export_refused
]


def fresh_rows(name: str, run: stoker.Run) -> tuple[Any, dict[str, Any]]:
    """Rows of another seed, with categories never seen and gaps; as a source, and as what goes into a file."""
    if run.schema is None:
        source = str(Path(run.record.sources["train"].origin))
        data = load_source(source)
        return source, {"images": data.images}  # type: ignore[union-attr]
    frame = table(SUBJECTS[name][0], rows=40, seed=7).drop("y")
    if "street" in frame.columns:
        frame = frame.with_columns(street=pl.when(pl.int_range(40) < 5).then(pl.lit("new")).otherwise("street"))
    if "rooms" in frame.columns:
        frame = frame.with_columns(rooms=pl.when(pl.int_range(40) == 6).then(None).otherwise("rooms"))
    assert run.artifact.columns is not None
    return frame, run.artifact.columns.read(frame)


@pytest.mark.parametrize(("form", "name"), CASES)
def test_answers_are_those_of_predict(form: str, name: str, tmp_path: Path) -> None:
    run = fitted(name)
    source, rows = fresh_rows(name, run)
    # compared by the export itself on these rows; here once more, where that is quick, by other means
    again = form == "onnx" or (form, name) in ASKED_AGAIN
    out = tmp_path / f"model{FORMATS[form].suffix}"
    done = stoker.export(run, form, out=out, bench=False, rows=None if again else source)
    contract = json.loads(done.files[0].contract.read_text())
    assert [entry["name"] for entry in contract["inputs"]] == list(rows)
    assert contract["classes"] == list(run.classes)
    assert contract["compared"]["real_rows"] is True
    assert {path.name for path in tmp_path.iterdir()} == {done.path.name, done.files[0].contract.name}
    if again:
        tolerance = FORMATS[form].tolerance
        for given in ask(FORMATS[form].loader, done.path, rows).by_size.values():
            agrees(given, run.predict(source), relative=tolerance.relative, absolute=10 * tolerance.absolute)
            if form == "onnx" and run.classes:
                assert list(given[2]) == run.predict(source).values


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_what_files_are_compared_with_is_what_predict_says(name: str) -> None:
    run = fitted(name)
    source, rows = fresh_rows(name, run)
    for given in wanted(served(run.artifact), rows).values():
        agrees(given, run.predict(source), relative=1e-5, absolute=1e-6)


def agrees(given: Any, predicted: stoker.Predictions, *, relative: float, absolute: float) -> None:
    if predicted.task == "regression":
        want = predicted.outputs[:, 0].float().numpy()
        np.testing.assert_allclose(given[0], want, rtol=relative, atol=absolute * float(want.std()))
        return
    want = predicted.probabilities.float().numpy()
    np.testing.assert_allclose(given[0], want, rtol=relative, atol=absolute)
    assert [predicted.classes[place] for place in given[1]] == predicted.values
