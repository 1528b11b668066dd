"""A step explained: what is counted, what keeps it eager, and that nothing is changed by it."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_compiled import REASONS, Branches, Counts, hooked, trained
from tiny import DATA, mlp, some
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from stoker.engines.calls import Call
from stoker.engines.explanation import Explanation
from stoker.errors import CheckError, ConfigError, DataError
from stoker.training.trainer import Trainer

IMAGES = some(120, 1, 8, 8), torch.arange(120) % 3


def explained(model: nn.Module, optimizer: Any = "sgd", data: Any = DATA, **settings: Any) -> Explanation:
    batch_size = settings.pop("batch_size", 16)
    settings = {"criterion": "mse", "lr": 0.01, "device": "cpu", **settings}
    return Trainer(model, settings.pop("criterion"), optimizer, **settings).explain(data, batch_size=batch_size)


def counts(found: Explanation, phase: str) -> Counter[str]:
    return Counter(call.operator.removeprefix("aten.") for call in found.calls if call.phase == phase)


def cnn() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))


def test_an_mlp_with_sgd_counted_by_hand() -> None:
    found = explained(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)))
    # x Wᵀ + b twice with a relu between; the mean of (f - y)²
    assert counts(found, "forward") == {
        "permute.default": 2,
        "addmm.default": 2,
        "relu.default": 1,
        "sub.Tensor": 1,
        "pow.Tensor_Scalar": 1,
        "mean.default": 1,
    }
    backward = counts(found, "backward")
    # of a layer the weight's gradient is a product and the bias's a sum; the second layer's input needs one as well
    assert (backward["mm.default"], backward["sum.dim_IntList"]) == (3, 2)
    # 2 (f - y) / n, times the gradient of the loss itself; the gradient where the relu let something through
    assert (backward["sub.Tensor"], backward["mul.Tensor"], backward["full_like.default"]) == (1, 2, 1)
    assert (backward["le.Scalar"], backward["where.self"]) == (1, 1)
    # g + decay · p, p + descent · g for each of four parameters: torch's add(…, alpha) is a product by 1 besides
    assert counts(found, "update") == {"mul.Tensor": 4 * 4, "add.Tensor": 4 * 2}
    products = 16 * 4 * 8 + 16 * 8 * 1  # multiplications of the two layers
    assert found.flops == 2 * (products + products + 16 * 8 * 1)
    assert (found.rows, found.device, found.reason, found.unlowered) == (16, "cpu", None, ())
    rooms = {kind.operator: kind.room for kind in found.kinds}
    assert rooms["aten.mm.default"] == rooms["aten.addmm.default"] == "matrix"
    assert (rooms["aten.sum.dim_IntList"], rooms["aten.mul.Tensor"]) == ("reductions", "elementwise")
    assert None not in rooms.values()


def test_a_cnn_counted_by_hand() -> None:
    found = explained(cnn(), data=IMAGES, criterion="cross-entropy")
    forward, backward = counts(found, "forward"), counts(found, "backward")
    assert (forward["convolution.default"], backward["convolution_backward.default"]) == (1, 1)
    assert (forward["max_pool2d_with_indices.default"], forward["relu.default"], forward["addmm.default"]) == (1, 1, 1)
    assert (backward["max_pool2d_with_indices_backward.default"], backward["mm.default"]) == (1, 2)
    flops = {kind.operator: kind.flops for kind in found.kinds}
    one = 2 * 16 * 4 * (6 * 6) * (1 * 3 * 3)  # outputs times what each is a sum of; images need no gradient
    assert (flops["aten.convolution.default"], flops["aten.convolution_backward.default"]) == (one, one)


def test_the_flops_of_a_recurrent_layer_counted_by_hand() -> None:
    class Last(nn.LSTM):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x)[0][:, -1]

    found = explained(Last(5, 8, batch_first=True), data=(some(60, 7, 5), some(60, 8)))
    flops = {kind.operator: kind.flops for kind in found.kinds if kind.room == "recurrent"}
    one = 2 * 7 * 16 * (4 * 8) * 8  # steps, rows, gates of 8 units each
    assert flops == {"stoker.lstm_forward.default": one, "stoker.lstm_backward.default": one}
    assert "Recurrences are timed as plain loops" in " ".join(str(found).split())


@pytest.mark.parametrize(("make", "criterion", "data"), [(mlp, "mse", DATA), (cnn, "cross-entropy", IMAGES)])
def test_flops_are_those_of_an_eager_step(make: Callable[[], nn.Module], criterion: str, data: Any) -> None:
    model = make()
    losses = {"mse": nn.functional.mse_loss, "cross-entropy": nn.functional.cross_entropy}
    with FlopCounterMode(display=False) as counter:
        loss: Tensor = losses[criterion](model(data[0][:16]), data[1][:16])  # type: ignore[operator]
        loss.backward()  # type: ignore[no-untyped-call]
    assert explained(model, criterion=criterion, data=data).flops == counter.get_total_flops() > 0


def test_dropout_is_a_random_operator_of_the_forward_pass_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    for mode in (True, False):
        found = explained(model.train(mode))  # in evaluation mode it will be trained all the same
        drawn = [kind for kind in found.kinds if kind.room == "random"]
        assert [(kind.operator, dict(kind.calls)) for kind in drawn] == [("aten.rand_like.default", {"forward": 1})]
        assert model.training is mode
    model[1].eval()
    model.train()[1].eval()
    assert not [kind for kind in explained(model).kinds if kind.room == "random"]


def test_clipping_and_momentum_are_in_the_update() -> None:
    plain = explained(mlp())
    clipped = explained(mlp(), momentum=0.9, clip_norm=1.0)
    assert clipped.reason is None
    added = counts(clipped, "update") - counts(explained(mlp(), momentum=0.9), "update")
    # of each parameter, and of their norms; torch 2.14 writes them out, those of 0-d tensors as absolute values
    assert added["linalg_vector_norm.default"] == 5 or added["pow.Tensor_Scalar"] >= 4
    assert counts(clipped, "update").total() > counts(plain, "update").total()
    assert counts(clipped, "backward") == counts(plain, "backward")
    assert "%0.weight.momentum_buffer.T: f32[4, 8]" in clipped.graph  # as the program keeps it
    assert "%2.weight.momentum_buffer: f32[1, 8]" in clipped.graph
    assert "%clip_norm: f32[]" in clipped.graph


def test_times_are_those_of_the_calls() -> None:
    found = explained(mlp(), "adam")
    assert all(call.seconds > 0 for call in found.calls)
    assert sum(kind.seconds for kind in found.kinds) == pytest.approx(found.seconds)
    assert sum(kind.calls.total() for kind in found.kinds) == len(found.calls)
    assert [kind.seconds for kind in found.kinds] == sorted((kind.seconds for kind in found.kinds), reverse=True)


def test_the_graph_is_a_line_an_operator_with_shapes_and_dtypes() -> None:
    found = explained(mlp())
    lines = found.graph.splitlines()
    assert lines[:3] == ["# given", "%0.weight: f32[8, 4]", "%0.bias: f32[8]"]
    assert "%inputs: f32[16, 4]" in lines
    assert "%addmm: f32[16, 8] = aten.addmm.default(%0.bias, %inputs, %permute)" in lines
    assert "loss = %mean" in lines
    assert sum("= aten." in line for line in lines) == len(found.calls)
    assert [line for line in lines if line.startswith("#")] == [
        "# given",
        "# forward",
        "# backward",
        "# results",
        "# given",
        "# update",
        "# results",
    ]


class Several(nn.Module):
    """Inputs by name, a parameter that is called as an operator is, and a layer that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.mm, self.unused = nn.Parameter(torch.ones(2, 2)), nn.Linear(2, 2)

    def forward(self, wide: Tensor, kind: Tensor) -> Tensor:
        return (wide @ self.mm).sum(1, keepdim=True) * kind[:, None]


def test_names_in_the_graph_are_the_users_and_stand_once() -> None:
    data = {"wide": some(60, 2), "kind": torch.ones(60, dtype=torch.int64)}, some(60, 1)
    found = explained(Several(), "adam", data, precision="bf16")
    names = re.findall(r"^%(\S+):", found.graph.partition("\n\n")[0], re.MULTILINE)
    assert len(set(names)) == len(names)
    assert {"mm", "mm_", "inputs.wide", "inputs.kind", "targets"} <= set(names)
    assert "%mm_: bf16[16, 2] = aten.mm.default(" in found.graph
    assert "%inputs.kind: i64[16]" in found.graph
    assert "%unused.weight: f32[2, 2]" in found.graph  # the model has it, and no update moves it
    assert "unused.weight.grad" not in found.graph


# What keeps it eager.


@pytest.mark.parametrize(("make", "settings", "reason"), REASONS)
def test_it_says_what_the_engine_says(make: Any, settings: dict[str, Any], reason: str) -> None:
    settings = dict(settings)
    data, batch_size = settings.get("data", DATA), settings.get("batch_size", 16)
    torch.manual_seed(0)
    trainer = trained(make(), **settings)
    first, *_ = trainer.explain(data, batch_size=batch_size).reasons
    assert first == trainer.engine.reason
    assert re.match(reason, f"eager: {first}")


def test_all_reasons_are_told_and_the_graph_is_there_all_the_same() -> None:
    loader = DataLoader(TensorDataset(*DATA), batch_size=16)
    found = explained(hooked(), "lbfgs", loader, accumulate=2, ema=0.9)
    assert found.reasons == (
        "the data are not resident tensors",
        "the optimizer LBFGS, which has no pure update",
        "a hook on 1",
    )
    assert found.reason == "; ".join(found.reasons)
    plain = explained(mlp())
    for phase in ("forward", "backward"):
        assert counts(found, phase) == counts(plain, phase)
    assert counts(found, "update") == {}
    assert ", without the update\n" in str(found)


@torch.library.custom_op("stoker_tests::doubled_by_an_operator_of_ones_own", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return x * 2


doubled.register_fake(torch.empty_like)


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(self.layer(doubled(x))).mean() + x[:, :1]  # type: ignore[no-any-return]


def test_every_operator_without_a_lowering_is_named() -> None:
    found = explained(Strange())
    names = ("aten._linalg_svd.default", "stoker_tests.doubled_by_an_operator_of_ones_own.default")
    assert found.unlowered == names
    assert found.reasons == (f"operators without a lowering to XLA: {', '.join(names)}",)
    assert {kind.operator for kind in found.kinds if kind.room is None} == set(names)
    text = str(found)
    assert "\nwithout a lowering " in text
    assert "aten._linalg_svd.default" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_cannot_be_captured_is_told() -> None:
    found = explained(Branches())
    assert (found.calls, found.kinds, found.graph, found.flops) == ((), (), "", 0)
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith("the step cannot be traced (")
    assert str(found).startswith("One step of 16 rows on cpu: it cannot be captured\n\nWhat keeps this step ")


def test_without_jax_operators_are_counted_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = explained(mlp())
    monkeypatch.setitem(sys.modules, "jax", None)
    for name in [name for name in sys.modules if name.startswith("stoker.engines.xla")]:
        monkeypatch.delitem(sys.modules, name)
    found = explained(mlp())
    assert found.reasons == ("JAX is not installed",)
    assert [call.operator for call in found.calls] == [call.operator for call in whole.calls]
    assert {kind.room for kind in found.kinds} == {None}
    assert "\noperators " in str(found)


# What it leaves alone.


def test_nothing_is_changed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), Counts(), nn.Linear(1, 1))
    model[0] = nn.Linear(4, 4)
    model[1] = nn.BatchNorm1d(4)
    trainer = trained(model, "adam", engine="eager", epochs=1)
    model[1].eval()
    modules, gradients = dict(model.named_modules()), [parameter.grad for parameter in model.parameters()]

    def state() -> Any:
        tensors = [*model.state_dict().values(), *(g for g in gradients if g is not None)]
        tensors += [value for one in trainer.optimizer.state.values() for value in one.values()]
        return [tensor.clone() for tensor in tensors], [random.getstate(), str(np.random.get_state()), model[3].calls]

    before, rng = state(), torch.get_rng_state()
    groups = [{name: value for name, value in group.items() if name != "params"} for group in _groups(trainer)]
    modes = [module.training for module in model.modules()]
    found = trainer.explain(DATA, batch_size=16)
    assert counts(found, "forward")["rand_like.default"] == 1
    after = state()
    assert len(before[0]) > 20
    assert all(torch.equal(one, other) for one, other in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]
    assert torch.equal(rng, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()] == [True, True, False, True, True, True, True]
    assert dict(model.named_modules()) == modules
    assert all(one is p.grad for one, p in zip(gradients, model.parameters(), strict=True))
    assert groups == [{name: v for name, v in group.items() if name != "params"} for group in _groups(trainer)]


def _groups(trainer: Trainer) -> list[dict[str, Any]]:
    return trainer.optimizer.param_groups


def test_a_training_goes_on_as_without_it() -> None:
    weights = []
    for explains in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Linear(8, 1))
        trainer = Trainer(model, "mse", "adam", lr=0.01, device="cpu", metrics=())
        for _ in range(2):
            if explains:
                trainer.explain(DATA, batch_size=16)
            trainer.fit(DATA, epochs=1, batch_size=16, progress="none")
        weights.append([tensor.clone() for tensor in model.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


# What it refuses.


def test_data_that_cannot_be_trained_on() -> None:
    with pytest.raises(DataError, match=r"^explain: the data must yield at least one batch, got none"):
        explained(mlp(), data=DataLoader(TensorDataset(*DATA), batch_size=500, drop_last=True))
    with pytest.raises(CheckError, match="targets: must have the shape of the model's outputs"):
        explained(mlp(), data=(DATA[0], DATA[1][:, 0]))
    with pytest.raises(ConfigError, match=r"^optimizer: is made when a lazy model has seen a batch"):
        explained(nn.LazyLinear(1))


# The text.


@pytest.mark.parametrize("length", [31, 32, 33, 34, 35, 70])
def test_a_long_name_stands_beside_its_figures(length: int) -> None:
    name = "".join(chr(ord("a") + place % 26) for place in range(length))
    found = Explanation(32, "cpu", (Call(name, "update", 1e-6, 0),), {name: None}, (), (name,), "")
    lines = str(found).splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("  abc"))
    last = next(place for place, line in enumerate(lines) if line.startswith("in all"))
    assert lines[first].endswith("100.0%")
    assert "".join(line.split()[0] for line in lines[first:last]) == name


def test_the_table_of_a_step() -> None:
    long = "their_own.an_operator_with_quite_a_long_name_indeed.default"
    calls = (
        Call("aten.addmm.default", "forward", 4e-6, 1_500_000),
        Call("aten.mul.Tensor", "forward", 1e-6, 0),
        Call("aten.mul.Tensor", "backward", 1e-6, 0),
        Call("aten.mm.default", "backward", 3e-6, 3_000_000),
        Call(long, "update", 1e-6, 0),
    )
    rooms = {"aten.addmm.default": "matrix", "aten.mm.default": "matrix", "aten.mul.Tensor": "elementwise", long: None}
    reasons = (f"operators without a lowering to XLA: {long}", "a hook on 1")
    found = Explanation(32, "cpu", calls, rooms, reasons, (long,), "")
    assert str(found).splitlines() == [
        "One step of 32 rows on cpu: 5 operators of 4 kinds",
        "",
        "                                    forward  backward  update    time  MFLOP",
        "matrix                                    1         1           70.0%    4.5",
        "  addmm                                   1                     40.0%    1.5",
        "  mm                                                1           30.0%    3.0",
        "elementwise                               1         1           20.0%",
        "  mul.Tensor                              1         1           20.0%",
        "without a lowering                                          1   10.0%",
        "  their_own.an_operator_with_quite                          1   10.0%",
        "  _a_long_name_indeed",
        "in all                                    2         2       1  100.0%    4.5",
        "time                                  50.0%     40.0%   10.0%",
        "",
        "Time: that of each operator carried out alone by PyTorch, the median of 5 calls;",
        "10 µs in all. A whole step takes another time: what is around the calls is not",
        "in it, and a compiler makes one of many operators. FLOP are those of matrix",
        "products and convolutions, by formula.",
        "",
        "What keeps this step from being compiled:",
        "- operators without a lowering to XLA:",
        "  their_own.an_operator_with_quite_a_long_name_indeed.default",
        "- a hook on 1",
    ]


def test_the_text_of_what_can_be_compiled_fits_eighty_columns() -> None:
    for found in (explained(mlp(), "adam"), explained(cnn(), "adam", IMAGES, criterion="cross-entropy")):
        lines = str(found).splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[-1] == "Nothing found keeps this step from being compiled."
