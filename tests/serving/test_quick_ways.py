"""The ways by which a server is quick lead to the same bits, and the same words, as the long ones."""

from __future__ import annotations

import json
from typing import Any

import httpx
import polars as pl
import pytest
import torch
from served_process import TABLE_ROW, Server, client
from served_runs import fit_small, mixed

import stoker
from stoker.jobs.blocks import ReadyModel
from stoker.jobs.prepare import encoded_inputs
from stoker.serving.backends import open_backend
from stoker.serving.served import ServedModel

COUNTS = (1, 2, 31, 32, 33, 100)


def inputs_of(run: stoker.Run, rows: int) -> dict[str, torch.Tensor]:
    """Raw rows that the run has not seen."""
    if run.artifact.columns is None:
        return {"images": torch.randint(0, 256, (rows, 1, 8, 8), dtype=torch.uint8)}
    target = run.artifact.recipe.target or ""
    return run.artifact.columns.read(mixed(target, max(rows, 2), seed=9).head(rows))


@pytest.mark.parametrize("name", ["grade_run", "price_run", "image_run"])
@pytest.mark.parametrize("count", COUNTS)
def test_a_model_that_stands_ready_gives_the_bits_of_predict(
    name: str, count: int, request: pytest.FixtureRequest
) -> None:
    run = stoker.load(request.getfixturevalue(name).path, device="cpu")
    raw = inputs_of(run, count)
    before = {part: values.clone() for part, values in raw.items()}
    wanted = run.outputs(encoded_inputs(run.artifact.model, raw))
    backend = open_backend("torch", run)
    for _ in range(2):
        found = backend.predict(raw)
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)
        assert found.shape[0] == count
    assert all(torch.equal(raw[part].nan_to_num(-7), before[part].nan_to_num(-7)) for part in raw), "nothing is changed"
    assert torch.equal(run.outputs(encoded_inputs(run.artifact.model, raw)), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"model": "wide-deep", "hidden": (8,), "aux_weight": 0.2, "dropout": 0.3},
        {"model": "resnet", "dropout": 0.3, "hidden": None},
        {"model": "mlp", "hidden": (8, 8), "norm": "batch", "dropout": 0.3, "deterministic": True},
        {"model": "mlp", "hidden": (8,), "precision": "bf16"},
        {"preset": "best", "hidden": None},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_so_do_all_kinds_of_networks(settings: dict[str, Any], tmp_path: Any) -> None:
    run = fit_small(tmp_path, "grade", **settings)
    run = stoker.load(run.path, device="cpu")
    for count in (1, 33):
        raw = inputs_of(run, count)
        torch.manual_seed(count)
        before = torch.get_rng_state()
        found = open_backend("torch", run).predict(raw)
        assert torch.equal(torch.get_rng_state(), before), "it draws no random numbers"
        assert torch.equal(found, run.outputs(encoded_inputs(run.artifact.model, raw)))


def test_a_model_of_ones_own_is_called_as_ever(tmp_path: Any) -> None:
    run = stoker.fit(
        mixed("price"), target="price", out=tmp_path / "run", model=Restless, epochs=1, progress="none", engine="eager"
    )
    run = stoker.load(run.path, device="cpu", model=Restless)
    backend = open_backend("torch", run)
    assert not isinstance(run.ready(), ReadyModel)
    assert ServedModel(run, backend).at_once == 0, "it may hang, and the server would with it"
    raw = inputs_of(run, 3)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first, second = backend.predict(raw), backend.predict(raw)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second), "what it draws is put back"


class Restless(torch.nn.Module):
    """Draws random numbers where others do not."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(n_features, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noisy: torch.Tensor = self.layer(x) + torch.rand(x.shape[0], 1)
        return noisy


JSON = {"Content-Type": "application/json"}
BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "a row": (json.dumps(TABLE_ROW).encode(), JSON),
    "CSV for CSV": (
        pl.DataFrame([TABLE_ROW] * 3).write_csv().encode(),
        {"Content-Type": "text/csv", "Accept": "text/csv"},
    ),
    "nothing": (b"", JSON),
    "no JSON": (b"[{", JSON),
    "no rows": (b"[]", JSON),
    "a column too few": (json.dumps({"size": 1}).encode(), JSON),
    "a value that is none": (json.dumps(TABLE_ROW | {"rooms": "many"}).encode(), JSON),
    "another type": (b"x", {"Content-Type": "text/plain"}),
    "too many rows": (b"[" + b"{}," * 20_000 + b"{}]", JSON),
}


@pytest.mark.parametrize("what", BODIES)
def test_without_parameters_it_is_answered_as_with_them(what: str, grades: Server) -> None:
    body, headers = BODIES[what]

    def told(answer: httpx.Response) -> Any:
        return answer.status_code, answer.content, {k: v for k, v in answer.headers.items() if k != "date"}

    with client(grades) as opened:
        plain = told(opened.post("/predict", content=body, headers=headers))
        assert plain == told(opened.post("/predict?proba=false", content=body, headers=headers))
    assert (plain[0] == 200) is (what in ("a row", "CSV for CSV"))


def test_other_methods_are_told_which_to_use(grades: Server) -> None:
    with client(grades) as opened:
        for method in ("GET", "PUT", "DELETE"):
            answer = opened.request(method, "/predict")
            assert (answer.status_code, answer.headers["allow"], answer.json()["code"]) == (405, "POST", "wrong-method")
