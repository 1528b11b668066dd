"""The model card: true to the record, and Markdown whatever the data are called."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import stoker
from stoker.runs.card import model_card

METRICS = {
    "train": {"loss": 0.5, "rmse": 12345.678},
    "valid": {"loss": 0.75, "rmse": 0.000012345},
    "test": {"loss": math.nan, "rmse": 2.0},
}


def record(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "name": "homes",
        "recipe": {"kind": "table", "task": "regression", "target": "price", "classes": []},
        "rows": {"train": 6000, "valid": 2000, "test": 2000},
        "sources": {"train": {"origin": "homes.csv", "rows": 10_000, "fingerprint": "sha256:12"}},
        "duplicates": {},
        "notices": [],
        "settings": {
            "data": {"target": "price", "group": None, "valid_size": 0.2, "numeric": []},
            "model": {"name": "mlp", "hidden": [8, 4]},
            "training": {"epochs": 3, "lr": 0.001, "momentum": None, "deterministic": False, "seed": 0},
        },
        "training": {
            "monitor": "valid_loss",
            "best_epoch": 2,
            "stopped": "finished",
            "epochs": 3,
            "steps": 1200,
            "seconds": 4.26,
            "device": "cpu",
            "engine": "eager",
            "parameters": 1234,
        },
        "versions": {"stoker": "0.1.0", "torch": "2.13.0"},
    }
    for name, change in changes.items():
        whole[name] = {**whole[name], **change} if isinstance(change, dict) else change
    return whole


def test_the_whole_card() -> None:
    assert model_card(
        record(duplicates={"of test also in train": 3}, notices=["column 'id' is left out"]), METRICS
    ) == (
        """\
---
library_name: stoker
pipeline_tag: tabular-regression
tags:
- stoker
- pytorch
- tabular-regression
metrics:
- rmse
model-index:
- name: homes
  results:
  - task:
      type: tabular-regression
      name: Tabular regression
    dataset:
      type: homes
      name: homes
      split: test
    metrics:
    - type: rmse
      value: 2.0
      name: "rmse (test)"
      verified: false
  - task:
      type: tabular-regression
      name: Tabular regression
    dataset:
      type: homes
      name: homes
      split: valid
    metrics:
    - type: rmse
      value: 1.2345e-05
      name: "rmse (valid)"
      verified: false
---

# homes

A network that predicts the number `price` from the columns of a table.

## How good it is

| split | rows | loss | rmse |
| --- | ---: | ---: | ---: |
| train | 6,000 | 0.5 | 12346 |
| valid | 2,000 | 0.75 | 1.2345e-05 |
| test | 2,000 | – | 2 |

The weights are those of epoch 2, the best by `valid_loss`. The test split was used once, after training.

Rows of test also in train: 3.

![Learning curves](figures/learning_curves.png)
![Predicted against true](figures/predicted_vs_true.png)

## What it was trained on

- train: `homes.csv`, 10,000 rows, `sha256:12`
- rows per split: train 6,000, valid 2,000, test 2,000
- column 'id' is left out

## How

- data: target price, valid_size 0.2
- model: name mlp, hidden [8, 4]; 1,234 parameters
- training: epochs 3, lr 0.001, seed 0
- it ran to its last epoch; 3 epochs, 1,200 steps, 4.3 s on cpu (eager)
- versions: stoker 0.1.0, torch 2.13.0

## What to mind

- The numbers hold for rows like those of the test split; measure it anew on others (`stoker evaluate`).
- Nobody has looked into how errors are spread over groups of people or things. `stoker report` shows the most wrong \
rows and what the network relies on.
- Categories that did not occur in training are all taken for the same, *unknown*.

## How to use it

```python
import stoker

run = stoker.load("path/to/this/directory")
run.predict("new_rows.csv").frame()
```
"""
    )


@pytest.mark.parametrize(
    ("kind", "task", "tag"),
    [
        ("table", "regression", "tabular-regression"),
        ("table", "binary", "tabular-classification"),
        ("table", "multiclass", "tabular-classification"),
        ("images", "multiclass", "image-classification"),
    ],
)
def test_the_tag_is_the_hubs(kind: str, task: str, tag: str) -> None:
    card = model_card(record(recipe={"kind": kind, "task": task, "classes": ["a", "b"]}), METRICS)
    assert f"\npipeline_tag: {tag}\n" in card
    picture = "predicted_vs_true" if task == "regression" else "confusion_matrix"
    assert f"(figures/{picture}.png)" in card


@pytest.mark.parametrize(
    ("stopped", "text"),
    [
        ("finished", "ran to its last epoch"),
        ("patience", "stopped early"),
        ("interrupted", "was interrupted, and what was trained until then kept"),
        ("non-finite", "stopped because the loss became NaN or infinite"),
    ],
)
def test_how_it_ended(stopped: str, text: str) -> None:
    assert f"- it {text}" in model_card(record(training={"stopped": stopped}), METRICS)


def test_without_validation_or_test() -> None:
    whole = record(training={"monitor": None}) | {"rows": {"train": 6000}}
    card = model_card(whole, {"train": METRICS["train"]})
    assert "The weights are those of the last epoch. No test split was held back." in card
    assert "- No rows were held back: how good it is on others, nobody has measured." in card


def test_a_test_split_that_was_not_used() -> None:
    card = model_card(record(), {"train": METRICS["train"]})
    assert "The weights are those of epoch 2, the best by `valid_loss`. The test split was not used." in card
    assert "- The rows held back were not used: how good it is on others, nobody has measured." in card


def test_many_classes_are_not_all_listed() -> None:
    classes = [f"class {number}" for number in range(25)]
    card = model_card(record(recipe={"task": "multiclass", "classes": classes}), METRICS)
    assert "one of 25 classes (`class 0`, " in card
    assert "`class 19` and 5 more), from" in card


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "`a b`"),
        ("`tick`", "`` `tick` ``"),
        ("a``b", "```a``b```"),
        ("*stars* | pipes", "`*stars* | pipes`"),
        ("", "` `"),
        ("  spaced  ", "`spaced`"),
    ],
)
def test_names_of_any_form_stay_one_line_of_code(name: str, shown: str) -> None:
    card = model_card(
        record(name="new\nline", recipe={"target": name}, notices=[f"column\n{name}\nis left out"]), METRICS
    )
    assert f"predicts the number {shown} from the columns of a table." in card
    assert "# new line\n" in card
    assert card.partition("\n# ")[2].count("\n- ") == 11, "what is listed stays one line"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)\>"),
        ("[click](https://example.org)", r"\[click\](https://example.org)"),
        ("![picture](x.png)", r"\!\[picture\](x.png)"),
        ("a `tick` and *stars* and __bars__", r"a \`tick\` and \*stars\* and \_\_bars\_\_"),
        ("&lt; | ~~gone~~ $x$", r"\&lt; \| \~\~gone\~\~ \$x\$"),
        ("# a heading", r"\# a heading"),
        ("- a list", r"\- a list"),
        ("1. a list", r"1\. a list"),
        ("---", r"\---"),
        ("-0.5", "-0.5"),
        ("0.25", "0.25"),
        ("back\\slash", r"back\\slash"),
        ("valid_size of 0.5 - fine", "valid_size of 0.5 - fine"),
        ("two\nlines", "two lines"),
    ],
)
def test_text_of_any_origin_is_shown_as_it_is(given: str, shown: str) -> None:
    settings = {**record()["settings"], "preset": given, "model": {"name": given, "hidden": [given]}}
    card = model_card(record(name=given, notices=[given], settings=settings), {"train": {given: 1.0}})
    body = card.partition("\n---\n")[2]
    assert f"\n# {shown}\n" in body
    assert f"\n- {shown}\n" in body
    assert f"\n- preset: {shown}\n" in body
    assert f"\n- model: name {shown}, hidden [{shown}]; " in body
    assert f"| split | rows | {shown} |\n" in body


def head_of(card: str) -> Any:
    """The YAML head, read as the Hub does."""
    yaml = pytest.importorskip("yaml")
    start, head, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(head)


def check_head(head: Any) -> None:
    """The rules of hub-docs' ``modelcard.md``, as they apply to a card without data sets and licence."""
    assert isinstance(head["library_name"], str)
    assert all(isinstance(tag, str) for tag in head["tags"])
    assert all(isinstance(name, str) for name in head.get("metrics", []))
    (model,) = head["model-index"]
    assert model.keys() == {"name", "results"}
    assert isinstance(model["name"], str)
    for result in model["results"]:
        assert result.keys() == {"task", "dataset", "metrics"}
        assert result["task"]["type"] == head["pipeline_tag"]
        assert all(isinstance(result["dataset"][field], str) for field in ("type", "name", "split"))
        assert result["metrics"]
        for metric in result["metrics"]:
            assert isinstance(metric["type"], str)
            assert isinstance(metric["value"], float)
            assert math.isfinite(metric["value"])


def test_the_head_holds_the_results_as_the_hub_reads_them() -> None:
    metrics = {"train": {"loss": 1.0, "auroc": 0.9}, "test": {"loss": 0.1, "auroc": 1e-05, "f1": math.nan}}
    head = head_of(model_card(record(recipe={"task": "binary", "classes": ["a", "b"]}), metrics))
    check_head(head)
    assert head["metrics"] == ["roc_auc"]
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"] == {"type": "homes", "name": "homes", "split": "test"}
    assert [(one["type"], one["value"]) for one in result["metrics"]] == [("roc_auc", 1e-05)]


@pytest.mark.parametrize(
    "name",
    [
        "new\nline",
        'a "quoted" \\ one',
        "yes",
        "12",
        "1e5",
        "- a: {b}",
        "été 日本 🙂",
        "a\x00b\x85c\u2028d\x7f",
        "# no",
        "a: b",
        "",
    ],
)
def test_whatever_a_source_is_called_the_head_is_yaml(name: str) -> None:
    head = head_of(model_card(record(name=name), METRICS))
    check_head(head)
    assert head["model-index"][0]["name"] == (" ".join(name.split()) or "model")


def test_without_numbers_there_are_no_results() -> None:
    head = head_of(model_card(record(), {"train": {"loss": 1.0, "rmse": 2.0}}))
    check_head(head)
    assert "metrics" not in head
    assert head["model-index"][0]["results"] == []


def test_a_card_of_a_run_keeps_the_rules(tmp_path: Path) -> None:
    run = stoker.fit("iris", out=tmp_path / "run", epochs=1, hidden=(4,), progress="none", device="cpu", engine="eager")
    head = head_of((run.path / "README.md").read_text())
    check_head(head)
    shown = {one["type"]: one["value"] for one in head["model-index"][0]["results"][0]["metrics"]}
    assert shown == {
        "roc_auc" if name == "auroc" else name: value for name, value in run.metrics["test"].items() if name != "loss"
    }


def test_a_model_of_the_users_own_is_named_where_it_is_loaded() -> None:
    settings = {**record()["settings"], "model": {"name": "nets:Net", "args": {"n_hidden": 5}}}
    assert 'stoker.load("path/to/this/directory", model="nets:Net")' in model_card(record(settings=settings), METRICS)
