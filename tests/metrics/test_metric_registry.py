from __future__ import annotations

import pickle
import subprocess
import sys
from typing import get_args

import pytest

from stoker.data.dataset import Task
from stoker.errors import ConfigError, UnknownNameError
from stoker.metrics.metric_set import MetricSet
from stoker.metrics.registry import METRICS, default_metrics, direction, entry_for, lookup

TASKS: tuple[Task, ...] = get_args(Task)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", "min"),
        ("mse", "min"),
        ("rmse", "min"),
        ("mae", "min"),
        ("r2", "max"),
        ("accuracy", "max"),
        ("top3_accuracy", "max"),
        ("top20_accuracy", "max"),
        ("f1", "max"),
        ("auroc", "max"),
        ("log_loss", "min"),
    ],
)
def test_direction(name: str, expected: str) -> None:
    assert direction(name) == expected


def test_direction_of_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"metric: must be .* got 'lost'\. Did you mean 'loss'\? Known: loss, mse"
    ):
        direction("lost")


def test_unknown_metric_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"got 'acuracy'\. Did you mean 'accuracy'\? Known: mse, rmse, mae, r2"):
        lookup("acuracy")


@pytest.mark.parametrize("name", ["top_k_accuracy", "top0_accuracy", "top_accuracy", "top03_accuracy", "TOP3_ACCURACY"])
def test_misspelt_top_k_names_point_to_the_right_spelling(name: str) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'top3_accuracy'"):
        lookup(name)


def test_top_k_is_found_for_any_k() -> None:
    entry = lookup("top5_accuracy")
    assert entry.name == "top5_accuracy"
    assert "5 highest" in entry.meaning
    assert entry.state != lookup("top3_accuracy").state


def test_a_metric_of_another_task_lists_those_of_this_one() -> None:
    with pytest.raises(
        ConfigError, match=r"'accuracy': serves binary and multiclass, got the task regression\. .*mse, rmse"
    ):
        entry_for("accuracy", "regression")
    with pytest.raises(
        ConfigError, match=r"'top3_accuracy': serves multiclass, got the task binary\. .*accuracy, f1, auroc"
    ):
        entry_for("top3_accuracy", "binary")
    with pytest.raises(ConfigError, match=r"'r2': serves regression, got the task multiclass"):
        entry_for("r2", "multiclass")


def test_an_unknown_task_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match=r"task: .* got 'clustering'\. Known: regression, binary, multiclass"):
        default_metrics("clustering")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="got 'multilabel'"):
        entry_for("accuracy", "multilabel")  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n_classes", [2, 3, 4, 5, 100])
def test_the_defaults_serve_their_task(task: Task, n_classes: int) -> None:
    n_classes = {"regression": 0, "binary": 2}.get(task, n_classes)
    names = default_metrics(task, n_classes)
    assert MetricSet(names, task, n_classes).names == names
    assert ("top3_accuracy" in names) == (task == "multiclass" and n_classes >= 5)


def test_each_entry_is_complete() -> None:
    for name, entry in METRICS.items():
        assert name == entry.name
        assert entry.meaning
        assert set(entry.tasks) <= set(TASKS)


def test_errors_survive_pickling() -> None:
    with pytest.raises(UnknownNameError) as caught:
        lookup("acuracy")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_torchmetrics_is_imported_only_when_a_metric_is_built() -> None:
    code = (
        "import sys; from stoker.metrics import metric_set, registry;"
        "registry.default_metrics('binary'); registry.direction('f1');"
        "assert 'torchmetrics' not in sys.modules; assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
