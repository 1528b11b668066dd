"""Each fault in a real model that has it: what is said, of what, and what to do."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checking import C, Calls, X, Y, findings, labels, mlp, only, some
from torch import Tensor, nn

from stoker.errors import InputTypeError, UnknownNameError
from stoker.training.criteria import MeanCrossEntropy
from stoker.training.objective import Loss

LABELS = (Y > 0).float()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class TestTargets:
    @pytest.mark.parametrize("criterion", [nn.MSELoss(), F.mse_loss, nn.HuberLoss(), nn.PoissonNLLLoss(), F.l1_loss])
    def test_that_would_broadcast(self, criterion: Any) -> None:
        severity, text = only(findings(mlp(), criterion, targets=Y[:, 0]))
        assert severity == "error"
        assert text == (
            "targets: must have the shape of the model's outputs, [64, 1], got [64], so that each row would be "
            "compared with all others. Reshape one of the two, such as y[:, None]."
        ).replace("64", "100")

    @pytest.mark.parametrize(
        "criterion",
        [
            lambda o, y: (o - y).square().mean(),
            lambda o, y: torch.sub(y, o).abs().mean(),
            lambda o, y: F.mse_loss(o, y),
            lambda o, y: torch.where(y > 0, o, -o).mean(),
        ],
    )
    def test_that_would_broadcast_in_a_criterion_of_ones_own(self, criterion: Any) -> None:
        severity, text = only(findings(mlp(), criterion, targets=Y[:, 0]))
        assert severity == "error"
        assert "must have the shape of the model's outputs, [100, 1], got [100], so that" in text

    def test_that_would_broadcast_in_one_of_several_outputs(self) -> None:
        model = Calls(lambda m, x: {"a": m.fc(x), "b": m.fc(x)[:, 0]})
        severity, text = only(findings(model, {"a": "mse", "b": "mse"}, targets={"a": Y, "b": Y}))
        assert severity == "error"
        assert text.startswith("targets of output 'b': must have the shape of the model's outputs, [100], got [100, 1]")

    @pytest.mark.parametrize(
        "criterion", ["cross-entropy", nn.CrossEntropyLoss(), nn.MultiMarginLoss(), F.cross_entropy]
    )
    def test_classes_from_1_on(self, criterion: Any) -> None:
        severity, text = only(findings(mlp(3), criterion, targets=C + 1))
        row = int((C == 2).nonzero()[0])
        assert severity == "error"
        assert text == (
            "targets: class indices must be from 0 to 2, as the output has 3 classes, got 3, first in row "
            f"{row} of the batch. Classes count from 0: subtract 1."
        )

    def test_a_class_too_many_in_the_last_row_of_a_large_batch(self) -> None:
        targets = torch.cat([C[:99], torch.tensor([7])])
        _, text = only(findings(mlp(3), "cross-entropy", targets=targets))
        assert "got 7, first in row 99 of the batch. Give the model's output 8 classes, or number the" in text

    def test_a_class_below_zero(self) -> None:
        _, text = only(findings(mlp(3), "cross-entropy", targets=C - 1))
        assert "got -1, first in row" in text
        assert "Rows without a label are marked with the criterion's ignore_index, and dropped otherwise." in text

    def test_one_logit_for_two_classes(self) -> None:
        _, text = only(findings(mlp(), "cross-entropy", targets=C % 2))
        assert "from 0 to 0, as the output has 1 class, got 1, first" in text
        assert "One logit for two classes wants nn.BCEWithLogitsLoss" in text

    def test_pixels_of_a_class_too_many(self) -> None:
        targets = labels(5 * 64, 4).reshape(5, 8, 8)
        _, text = only(findings(nn.Conv2d(1, 3, 1), nn.CrossEntropyLoss(), some(5, 1, 8, 8), targets))
        assert "class indices must be from 0 to 2, as the output has 3 classes, got 3, first in row 0" in text

    def test_labels_of_minus_one_and_one(self) -> None:
        severity, text = only(findings(mlp(), nn.BCEWithLogitsLoss(), targets=Y.sign()))
        assert severity == "error"
        assert text.startswith("targets: BCEWithLogitsLoss takes targets from 0 to 1, got -1 to 1. Labels of two")

    @pytest.mark.parametrize(
        ("criterion", "outputs", "targets", "text"),
        [
            (
                nn.CrossEntropyLoss(),
                3,
                C.float(),
                "takes class indices of dtype int64, got float32. Cast them: y.long().",
            ),
            (nn.CrossEntropyLoss(), 3, C.int(), "takes class indices of dtype int64, got int32. Cast them: y.long()."),
            (nn.CrossEntropyLoss(), 3, C[:, None], "takes class indices of shape [100], got [100, 1]. Reshape them"),
            (
                nn.CrossEntropyLoss(),
                3,
                F.one_hot(C),
                "or one-hot targets that are floating point, got one-hot int64. P",
            ),
            (
                nn.BCEWithLogitsLoss(),
                1,
                LABELS.long(),
                "takes targets of the outputs' dtype, float32, got int64. Cast ",
            ),
            (nn.HuberLoss(), 1, C[:, None], "takes targets of the outputs' dtype, float32, got int64. Cast them: y.fl"),
            (nn.HuberLoss(), 1, Y.double(), "takes targets of the outputs' dtype, float32, got float64. Cast them: y."),
        ],
    )
    def test_of_another_dtype_or_shape(self, criterion: Any, outputs: int, targets: Tensor, text: str) -> None:
        severity, found = only(findings(mlp(outputs), criterion, targets=targets))
        assert severity == "error"
        assert found.startswith(f"targets: {type(criterion).__name__} takes ")
        assert text in found


class TestActivations:
    @pytest.mark.parametrize(
        ("last", "criterion", "outputs"),
        [
            (nn.Softmax(dim=1), nn.CrossEntropyLoss(), 3),
            (nn.Softmax(dim=1), MeanCrossEntropy(), 3),
            (nn.Softmax(dim=1), functools.partial(F.cross_entropy, label_smoothing=0.1), 3),
            (nn.Sigmoid(), nn.CrossEntropyLoss(), 3),
            (nn.Sigmoid(), nn.BCEWithLogitsLoss(), 1),
            (nn.Softmax(dim=1), nn.MultiMarginLoss(), 3),
        ],
    )
    def test_before_a_criterion_that_takes_logits(self, last: nn.Module, criterion: Any, outputs: int) -> None:
        severity, text = only(findings(mlp(outputs, last), criterion, targets=C if outputs == 3 else LABELS))
        kind = type(last).__name__
        takes = "scores" if isinstance(criterion, nn.MultiMarginLoss) else "logits"
        assert severity == "warning"
        assert text.startswith(f"module '3' ({kind}): {kind.lower()} comes before ")
        assert f"which takes {takes}: it learns slowly, or not at all. Let the model return what {kind.lower()}" in text

    def test_as_a_function_cut_and_cast_afterwards(self) -> None:
        model = Calls(lambda m, x: m.fc(x).sigmoid().squeeze(1).double().float()[:, None])
        severity, text = only(findings(model, nn.BCEWithLogitsLoss(), targets=LABELS))
        assert severity == "warning"
        assert text.startswith("outputs: sigmoid comes before BCEWithLogitsLoss, which takes logits")

    def test_in_one_of_several_outputs(self) -> None:
        model = Calls(lambda m, x: {"kind": m.kind(x).softmax(1), "y": m.fc(x)}, kind=nn.Linear(4, 3))
        severity, text = only(findings(model, {"kind": "cross-entropy", "y": "mse"}, targets={"kind": C, "y": Y}))
        assert severity == "warning"
        assert text.startswith("output 'kind': softmax comes before MeanCrossEntropy")

    def test_log_softmax_twice(self) -> None:
        severity, text = only(findings(mlp(3, nn.LogSoftmax(dim=1)), nn.CrossEntropyLoss(), targets=C))
        assert severity == "warning"
        assert text == (
            "module '3' (LogSoftmax): log_softmax comes before CrossEntropyLoss, which applies it itself. It changes "
            "nothing but time: leave it out, or use nn.NLLLoss."
        )

    def test_logits_where_log_probabilities_are_taken(self) -> None:
        severity, text = only(findings(mlp(3), nn.NLLLoss(), targets=C))
        assert severity == "warning"
        assert text.startswith("outputs: NLLLoss takes log-probabilities, which are not above 0, got -")
        assert text.endswith("End the model with nn.LogSoftmax(dim=1), or use nn.CrossEntropyLoss, which takes logits.")

    def test_probabilities_where_log_probabilities_are_taken(self) -> None:
        severity, text = only(findings(mlp(3, nn.Softmax(dim=1)), nn.NLLLoss(), targets=C))
        assert severity == "warning"
        assert text.startswith("module '3' (Softmax): NLLLoss takes log-probabilities, which are not above 0, got 0.")

    def test_logits_where_probabilities_are_taken(self) -> None:
        severity, text = only(findings(mlp(), nn.BCELoss(), targets=LABELS))
        assert severity == "error"
        assert text.startswith("outputs: BCELoss takes probabilities from 0 to 1, got -")
        assert text.endswith("Use nn.BCEWithLogitsLoss, which takes logits, or end the model with a sigmoid.")


class TestSeveral:
    def test_the_one_that_fails_is_told(self) -> None:
        model = Calls(lambda m, x: {"a": m.fc(x), "b": m.fc(x), "c": m.fc(x)})
        targets = {"a": C[:, None], "b": LABELS.long(), "c": C[:, None]}
        severity, text = only(findings(model, {"a": "mse", "b": nn.BCEWithLogitsLoss(), "c": "mse"}, targets=targets))
        assert severity == "error"
        assert text.startswith("targets of output 'b': BCEWithLogitsLoss takes targets of the outputs' dtype, float32")

    def test_none_is_blamed_for_another(self) -> None:
        def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
            raise KeyError("weights")

        model = Calls(lambda m, x: {"a": m.fc(x), "b": m.fc(x)})
        with pytest.raises(KeyError, match="weights"):
            findings(model, {"a": "mse", "b": criterion}, targets={"a": C[:, None], "b": Y})


class TestGradients:
    def test_that_some_parameters_do_not_get(self) -> None:
        model = Calls(lambda m, x: m.fc(x + m.cut(x).detach()), cut=nn.Linear(4, 4), unused=nn.Linear(2, 2))
        severity, text = only(findings(model))
        assert severity == "warning"
        assert text == (
            "cut.weight, cut.bias, unused.weight, unused.bias: no gradient reaches these parameters, so they are not "
            "trained. Use them in forward, without detach or no_grad, freeze them with requires_grad_(False), or "
            "remove them."
        )

    def test_that_many_parameters_do_not_get(self) -> None:
        model = Calls(lambda m, x: m.fc(x), rest=nn.ModuleList(nn.Linear(2, 2) for _ in range(9)))
        _, text = only(findings(model))
        assert "rest.3.bias and 10 more: no gradient" in text

    def test_that_no_parameter_gets(self) -> None:
        severity, text = only(findings(Calls(lambda m, x: m.fc(x).detach())))
        assert severity == "error"
        assert text.startswith("the model (Calls): no trained parameter gets a gradient: the outputs are cut off from")

    def test_that_no_parameter_gets_though_the_loss_has_one(self) -> None:
        model = Calls(lambda m, x: m.fc(x).detach() + x.requires_grad_()[:, :1])
        severity, text = only(findings(model, inputs=X.clone()))
        assert severity == "error"
        assert text.startswith("criterion: no trained parameter gets a gradient, though the outputs have one")

    def test_that_the_criterion_cuts_off(self) -> None:
        severity, text = only(findings(mlp(3), lambda o, y: (o.argmax(1) != y).float().mean(), targets=C))
        assert severity == "error"
        assert text.startswith("criterion: no trained parameter gets a gradient, though the outputs have one: the loss")
        assert "no detach, item, numpy, round or argmax." in text

    def test_that_are_nan(self) -> None:
        model = Calls(lambda m, x: m.fc(x) + (0 * m.scale(x).relu()).sqrt(), scale=nn.Linear(4, 1))
        severity, text = only(findings(model))
        assert severity == "error"
        assert text.startswith("scale.weight, scale.bias: the gradient is NaN or infinite, though the loss is finite.")

    def test_that_are_zero(self) -> None:
        severity, text = only(findings(Calls(lambda m, x: m.fc(x).round() + x[:, :1])))
        assert severity == "warning"
        assert text.startswith("the model (Calls): every gradient is zero, so that the first step changes nothing.")


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


class TestNotFinite:
    def test_names_the_first_module_that_makes_nan(self) -> None:
        model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Tanh(), Logarithm()), nn.Linear(8, 8), nn.Linear(8, 1))
        severity, text = only(findings(model))
        assert severity == "error"
        assert text == (
            "module '1.1' (Logarithm): makes NaN of finite inputs. Look there for a division by zero, a logarithm or "
            "root of what is not positive, or large weights."
        )

    def test_names_the_first_module_that_makes_infinity(self) -> None:
        model = Calls(lambda m, x: m.fc(m.norm(x * 0)), norm=Calls(lambda _, x: 1 / x, fc=None))
        _, text = only(findings(model))
        assert text.startswith("module 'norm' (Calls): makes infinity of finite inputs.")

    def test_in_the_models_own_forward(self) -> None:
        _, text = only(findings(Calls(lambda m, x: m.fc(x) / 0)))
        assert text.startswith("the model (Calls): makes infinity of finite inputs.")

    def test_inputs(self) -> None:
        inputs = X.clone()
        inputs[5, 1] = torch.nan
        severity, text = only(findings(mlp(), inputs=inputs))
        assert severity == "error"
        assert (
            text == "inputs: hold NaN in row 5, and the loss becomes so. Fill or drop missing values before training."
        )

    def test_a_module_rather_than_inputs_that_the_model_fills(self) -> None:
        inputs = X.clone()
        inputs[5, 1] = torch.nan
        model = Calls(lambda m, x: m.fc(m.log(x.nan_to_num())), log=Logarithm())
        _, text = only(findings(model, inputs=inputs))
        assert text.startswith("module 'log' (Logarithm): makes NaN of finite inputs.")

    def test_inputs_by_name(self) -> None:
        class Named(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(4, 1)

            def forward(self, near: Tensor, far: Tensor) -> Any:
                return self.fc(near) + self.fc(far)

        _, text = only(findings(Named(), inputs={"near": X, "far": X / 0}))
        assert text.startswith("inputs['far']: hold infinity in row 0, and the loss")

    def test_targets(self) -> None:
        _, text = only(findings(mlp(), targets=torch.where(Y > 1, torch.nan, Y)))
        row = int((Y > 1).nonzero()[0, 0])
        assert text.startswith(f"targets: hold NaN in row {row}, and the loss becomes so. Drop rows without a target.")

    def test_weights(self) -> None:
        model = mlp()
        model.get_parameter("2.bias").data.fill_(torch.inf)
        _, text = only(findings(model))
        assert text == "2.bias: holds infinity before training. Initialise it anew."

    def test_criterion(self) -> None:
        _, text = only(findings(mlp(), lambda o, y: (o - y).mean() / 0))
        assert text.startswith("criterion: makes NaN or infinity of finite outputs and targets. Look there for")


class TestDependence:
    @pytest.mark.parametrize(
        "forward",
        [
            lambda m, x: m.fc(torch.ones_like(x)),
            lambda m, x: m.fc.bias.expand(len(x), 1),
            lambda m, x: m.fc(x * 0.0),
        ],
    )
    def test_on_the_inputs_there_is_none(self, forward: Any) -> None:
        found = [str(finding) for finding in findings(Calls(forward)) if finding.severity == "error"]
        assert len(found) == 1
        assert found[0].startswith(
            "the model (Calls): the loss does not depend on the inputs: with others, the outputs are the same to the b"
        )

    def test_on_whole_numbers_there_is_none(self) -> None:
        class Tokens(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.EmbeddingBag(5, 1)

            def forward(self, tokens: Tensor) -> Any:
                return self.embed(torch.zeros_like(tokens))

        severity, text = only(findings(Tokens(), inputs=labels(400, 5).reshape(100, 4)))
        assert severity == "error"
        assert text.startswith("the model (Tokens): the loss does not depend on the inputs")

    def test_the_mean_over_the_batch_is_the_same_for_every_row(self) -> None:
        severity, text = only(findings(Calls(lambda m, x: m.fc(x).mean(0).expand(len(x), 1))))
        assert severity == "warning"
        assert text.startswith("the model (Calls): the outputs are the same for every row of the batch, though the inp")

    def test_units_that_are_all_off(self) -> None:
        model = mlp()
        model.get_parameter("0.bias").data.fill_(-1000.0)
        severity, text = only(findings(model))
        assert severity == "error"
        assert text.endswith("Look whether forward uses its arguments, and for units that are all off or saturated.")


class TestInPlace:
    def test_names_the_operation_its_line_and_what_needs_the_value(self) -> None:
        def forward(model: Any, x: Tensor) -> Any:
            hidden = model.act(model.fc(x))
            hidden += 1  # overwritten
            return hidden

        line = forward.__code__.co_firstlineno + 2
        severity, text = only(findings(Calls(forward, act=nn.Sigmoid())))
        assert severity == "error"
        assert text == (
            f"the model (Calls): the in-place operation add_ in {__file__.rsplit('/', 1)[-1]}, line {line} overwrites "
            "a value that the backward pass of module 'act' (Sigmoid) needs. Write it out of place: x = x + 1 instead "
            "of x += 1, nn.ReLU() instead of nn.ReLU(inplace=True)."
        )

    def test_names_a_module(self) -> None:
        _, text = only(findings(mlp(1, nn.Tanh(), nn.Hardtanh(inplace=True))))
        assert text.startswith("module '4' (Hardtanh): the in-place operation hardtanh")
        assert "overwrites a value that the backward pass of module '3' (Tanh) needs" in text

    def test_passes_by_those_that_are_allowed(self) -> None:
        def forward(model: Any, x: Tensor) -> Any:
            hidden = F.relu(model.fc(x), inplace=True).exp()
            hidden[0] = 0
            return hidden

        _, text = only(findings(Calls(forward)))
        assert text.startswith(
            "the model (Calls): the in-place operation __setitem__ in test_preflight_faults.py, line "
        )
        assert "the backward pass of the model (Calls) needs" in text

    def test_on_a_parameter(self) -> None:
        def forward(model: Any, x: Tensor) -> Any:
            model.fc.weight.mul_(0.9)
            return model.fc(x)

        severity, text = only(findings(Calls(forward)))
        assert severity == "error"
        assert re.match(
            r"the model \(Calls\): an in-place operation \(mul_ in test_preflight_faults\.py, line \d+\) changes what ",
            text,
        )


class TestDtypes:
    def test_double_inputs(self) -> None:
        severity, text = only(findings(mlp(), inputs=X.double()))
        assert severity == "error"
        assert text == (
            "module '0' (Linear): takes float32, got float64. The inputs are float64: cast them, x.float()."
        )

    @pytest.mark.parametrize(
        ("model", "shape"), [(nn.Conv1d(4, 1, 1), (9, 4, 1)), (nn.GRU(4, 1), (9, 4)), (nn.BatchNorm1d(4), (9, 4))]
    )
    def test_double_inputs_of_other_layers(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        _, text = only(findings(model, lambda o, _: o[0].sum(), inputs=some(*shape).double(), targets=None))
        assert text.startswith(f"the model ({type(model).__name__}): takes float32, got float64. The inputs are")

    def test_bytes(self) -> None:
        _, text = only(findings(mlp(), inputs=(X.abs() * 9).byte()))
        assert text.startswith(
            "module '0' (Linear): takes float32, got uint8. The inputs are uint8: cast them, x.float"
        )

    def test_double_made_within(self) -> None:
        _, text = only(findings(Calls(lambda m, x: m.fc(x * torch.ones(4, dtype=torch.float64)))))
        assert text == "module 'fc' (Linear): takes float32, got float64. Cast what forward computes for it, x.float()."

    def test_indices_that_are_numbers(self) -> None:
        _, text = only(findings(nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(12, 1)), inputs=X.abs()))
        assert text.startswith(
            "module '0' (Embedding): takes indices of dtype int64, got float32. The inputs are float"
        )

    def test_double_sneaks_in(self) -> None:
        class Scale(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * torch.ones(1, dtype=torch.float64)

        severity, text = only(findings(mlp(1, Scale())))
        assert severity == "warning"
        assert text == (
            "module '3' (Scale): makes float64 of other dtypes. Look for NumPy arrays and torch.float64 constants in "
            "it, and make them float32."
        )

    def test_double_targets(self) -> None:
        severity, text = only(findings(mlp(), targets=Y.double()))
        assert severity == "warning"
        assert text == "targets: are float64, and the loss becomes so. Cast them: y.float()."

    def test_double_criterion(self) -> None:
        severity, text = only(findings(mlp(), lambda o, y: (o - y).double().square().mean()))
        assert (severity, text) == ("warning", "criterion: makes float64 of other dtypes. Make its tensors float32.")

    def test_some_parameters_are_double(self) -> None:
        model = Calls(lambda m, x: m.fc(x) + m.scale.float(), scale=nn.Parameter(torch.ones(1, dtype=torch.float64)))
        severity, text = only(findings(model))
        assert severity == "warning"
        assert (
            text
            == "scale: the parameters are float64, others of the model are not. Make them of one dtype: model.float()."
        )


class TestPlaces:
    def test_parameters_without_values(self) -> None:
        model = mlp()
        model[2] = nn.Linear(8, 1, device="meta")
        severity, text = only(findings(model))
        assert severity == "error"
        assert text.startswith(
            "2.weight, 2.bias: the model's parameters must be on cpu, got some on meta. Give the mod"
        )

    def test_a_buffer_elsewhere(self) -> None:
        model = Calls(lambda m, x: m.fc(x * m.scale))
        model.register_buffer("scale", torch.ones(4, device="meta"))
        severity, text = only(findings(model))
        assert severity == "error"
        assert text == (
            "the model: its tensors are on several devices: scale on meta, the others on cpu. Move it as a whole, "
            "model.to('cpu'), before anything else."
        )

    def test_a_tensor_that_does_not_move_with_its_module(self) -> None:
        inner = Calls(lambda m, x: x * m.scale, fc=None)
        inner.scale = torch.ones(4, device="meta")
        severity, text = only(findings(Calls(lambda m, x: m.fc(m.inner(x)), inner=inner)))
        assert severity == "error"
        assert text == (
            "module 'inner' (Calls): its attribute 'scale' is on meta, its inputs on cpu. Let it move with the module: "
            "self.register_buffer('scale', tensor)."
        )

    def test_an_optimizer_of_what_the_model_was(self) -> None:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters())
        model[2] = nn.Linear(8, 1)
        severity, text = only(findings(model, optimizer=optimizer))
        assert severity == "error"
        assert text.startswith(
            "2.weight, 2.bias: the optimizer holds other parameters of the same shapes: it was made bef"
        )

    def test_an_optimizer_whose_memory_stayed_behind(self) -> None:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters())
        memory = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(8, 4, device="meta")}
        optimizer.state[model.get_parameter("0.weight")] = memory
        severity, text = only(findings(model, optimizer=optimizer))
        assert severity == "error"
        assert text.startswith(
            "0.weight: the optimizer's exp_avg is on meta, the parameter on cpu. It was made before the"
        )


class TestOthersErrors:
    def test_one_row_and_batch_normalisation(self) -> None:
        severity, text = only(findings(mlp(8, nn.BatchNorm1d(8)), lambda o, _: o.sum(), inputs=X[:1]))
        assert severity == "error"
        assert text.startswith(
            "module '3' (BatchNorm1d): needs more than one value per channel in training, but the batch"
        )

    def test_those_of_the_model_keep_their_words_and_say_where(self) -> None:
        model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(7, 1)))
        with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied") as caught:
            findings(model)
        assert caught.value.__notes__ == ["It was raised in module '1.1' (Linear), given float32 [100, 8]."]

    def test_those_of_the_criterion_keep_their_words(self) -> None:
        def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
            raise KeyError("weights")

        with pytest.raises(KeyError, match="weights"):
            findings(mlp(), criterion)

    def test_an_output_that_is_not_there(self) -> None:
        with pytest.raises(
            UnknownNameError, match=r"outputs: must be one of the known names, got 'mian'\. Did you mean"
        ):
            findings(Calls(lambda m, x: {"main": m.fc(x)}), {"mian": Loss("mse")}, targets={"mian": Y})

    def test_a_loss_that_is_no_number(self) -> None:
        with pytest.raises(
            InputTypeError, match=r"criterion: must return one number, .* got a tensor of shape \[100, 1\]"
        ):
            findings(mlp(), nn.MSELoss(reduction="none"))


def test_errors_come_first_and_all_are_told() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Any:
            return self.a(x).softmax(1), self.b(x), self.c(x)

    found = findings(Two(), {0: "cross-entropy", 1: "cross-entropy", 2: "mse"}, targets=(C, C + 1, Y[:, 0]))
    assert [finding.severity for finding in found] == ["error", "error", "warning"]
    assert [finding.where for finding in found[:2]] == ["targets of output 1", "targets of output 2"]
