from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchmetrics import Metric

from stoker.data.batches import as_batches
from stoker.data.resident import ResidentBatches
from stoker.errors import DataError, InputTypeError
from stoker.training import evaluation
from stoker.training.evaluation import evaluate, evaluating, evaluation_rows, predict
from stoker.training.objective import build_objective
from stoker.training.scores import Scores
from stoker.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Weights are the same whichever tests ran before."""
    torch.manual_seed(0)


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scores(criterion: nn.Module) -> Scores:
    return Scores(build_objective(criterion, device=CPU), CPU)


def noisy() -> nn.Sequential:
    """Draws random numbers and moves running statistics when it trains; partly frozen in evaluation mode."""
    torch.manual_seed(0)
    frozen, dropout = nn.BatchNorm1d(8), nn.Dropout(0.5)
    frozen.eval()
    return nn.Sequential(nn.Linear(3, 8), frozen, nn.BatchNorm1d(8), dropout, nn.Linear(8, 1)).train(True)


class Drawing(nn.Module):
    """Draws a random number even in evaluation mode, and works in place on its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2) + torch.rand(1) * 0


class TestChangesNothing:
    @pytest.mark.parametrize("shape", ["resident", "loader"])
    def test_neither_model_nor_generator_nor_data(self, shape: str) -> None:
        model = noisy()
        model[1].eval()
        x, y = some(50, 3), some(50, 1)
        trainer = Trainer(model, nn.MSELoss(), "sgd", device="cpu")
        data: Any = (x, y) if shape == "resident" else DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
        modes = [module.training for module in model.modules()]
        assert False in modes
        assert True in modes
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        generator = torch.get_rng_state()
        trainer.evaluate(data)
        trainer.predict(x)
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), generator)
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        assert torch.equal(x, some(50, 3))

    def test_neither_when_the_model_itself_draws_and_works_in_place(self) -> None:
        x = some(50, 3)
        trainer = Trainer(nn.Sequential(Drawing(), nn.Linear(3, 1)), nn.MSELoss(), "sgd", device="cpu")
        generator = torch.get_rng_state()
        first = trainer.predict(x)
        assert torch.equal(trainer.predict(x), first)
        assert torch.equal(x, some(50, 3))
        assert torch.equal(torch.get_rng_state(), generator)

    def test_neither_when_it_fails(self) -> None:
        class Failing(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(3, 1)

            def forward(self, x: Tensor) -> Tensor:
                torch.rand(1)
                raise ZeroDivisionError(len(x))

        model = Failing()
        generator = torch.get_rng_state()
        with pytest.raises(ZeroDivisionError):
            Trainer(model, nn.MSELoss(), "sgd", device="cpu").predict(some(50, 3))
        assert model.training
        assert model.layer.training
        assert torch.equal(torch.get_rng_state(), generator)
        assert torch.is_grad_enabled()

    def test_a_modules_own_train_is_called(self) -> None:
        # such as layers that merge their weights for inference, and part them again for training
        class Merging(nn.Linear):
            calls: list[bool] = []  # noqa: RUF012

            def train(self, mode: bool = True) -> Merging:
                self.calls.append(mode)
                return super().train(mode)

        model = nn.Sequential(Merging(3, 1))
        with evaluating(model):
            assert Merging.calls == [False]
        assert Merging.calls == [False, True]


def test_happens_in_evaluation_mode_without_gradients() -> None:
    seen: list[tuple[bool, bool]] = []

    class Spy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    outputs = predict(Spy(3, 1), as_batches(some(5, 3), with_targets=False), device=CPU)
    assert seen == [(False, False)]
    assert not outputs.requires_grad
    outputs.add_(1)  # and no inference tensors either


class TestLoss:
    @pytest.mark.parametrize("size", [1, 7, 50])
    def test_is_the_mean_over_samples(self, size: int) -> None:
        x, y = some(50, 3), some(50, 1)
        model = nn.Linear(3, 1)
        loader = as_batches(DataLoader(TensorDataset(x, y), batch_size=size))
        found = evaluate(model, loader, scores(nn.L1Loss()), device=CPU)["loss"]
        expected = sk.mean_absolute_error(y, model(x).detach())
        assert found == pytest.approx(expected, rel=1e-6)  # each batch's mean is a float32

    def test_ragged_by_hand(self) -> None:
        x = torch.tensor([[1.0], [1.0], [1.0], [1.0], [3.0]])
        loader = as_batches(DataLoader(TensorDataset(x, torch.zeros(5, 1)), batch_size=4))
        assert evaluate(nn.Identity(), loader, scores(nn.MSELoss()), device=CPU)["loss"] == 2.6

    def test_no_batches(self) -> None:
        empty = as_batches(DataLoader(TensorDataset(some(3, 3), some(3, 1)), batch_size=5, drop_last=True))
        with pytest.raises(DataError, match=r"evaluate: the data must yield at least one batch, got none\."):
            evaluate(nn.Linear(3, 1), empty, scores(nn.MSELoss()), device=CPU)
        with pytest.raises(DataError, match=r"predict: the data must yield at least one batch, got none\."):
            predict(nn.Linear(3, 1), empty, device=CPU)


class TestMetrics:
    def test_regression(self) -> None:
        x, y = some(5000, 3), some(5000, 1)
        model = nn.Linear(3, 1)
        values = Trainer(model, nn.MSELoss(), "sgd", device="cpu").evaluate((x, y))
        preds = model(x).detach()
        assert list(values) == ["loss", "mse", "rmse", "mae", "r2"]
        assert values["rmse"] == math.sqrt(values["mse"])  # to the last bit
        assert values["mse"] == pytest.approx(sk.mean_squared_error(y, preds), rel=1e-6)
        assert values["mae"] == pytest.approx(sk.mean_absolute_error(y, preds), rel=1e-6)
        assert values["r2"] == pytest.approx(sk.r2_score(y, preds), rel=1e-6)

    def test_one_logit_and_two_give_the_same(self) -> None:
        x = some(500, 3)
        y = (x[:, 0] + some(500) > 0).long()
        one = nn.Linear(3, 1)
        two = nn.Linear(3, 2)
        with torch.no_grad():
            two.weight.copy_(torch.cat([torch.zeros(1, 3), one.weight]))
            two.bias.copy_(torch.cat([torch.zeros(1), one.bias]))
        of_one = Trainer(one, nn.BCEWithLogitsLoss(), "sgd", device="cpu").evaluate((x, y.float()[:, None]))
        of_two = Trainer(two, nn.CrossEntropyLoss(), "sgd", device="cpu").evaluate((x, y))
        assert list(of_one) == ["loss", "accuracy", "f1", "auroc", "log_loss"]
        assert of_one == pytest.approx(of_two, rel=1e-6)
        probabilities = one(x).sigmoid().detach()[:, 0]
        assert of_one["auroc"] == pytest.approx(sk.roc_auc_score(y, probabilities), rel=1e-6)
        assert of_one["accuracy"] == sk.accuracy_score(y, probabilities > 0.5)
        assert of_one["log_loss"] == pytest.approx(sk.log_loss(y, probabilities), rel=1e-5)

    def test_do_not_depend_on_the_batches(self) -> None:
        x, y = some(300, 3), torch.randint(0, 5, (300,), generator=torch.Generator().manual_seed(1))
        trainer = Trainer(nn.Linear(3, 5), nn.CrossEntropyLoss(), "sgd", device="cpu")
        whole = trainer.evaluate((x, y))
        parts = trainer.evaluate(DataLoader(TensorDataset(x, y), batch_size=7))
        assert "top3_accuracy" in whole
        assert parts == pytest.approx(whole, rel=1e-6)
        assert {name: parts[name] for name in ("accuracy", "f1", "auroc")} == {
            name: whole[name] for name in ("accuracy", "f1", "auroc")
        }

    def test_scores_are_fed_every_batch_and_computed_once(self) -> None:
        calls: list[tuple[torch.Size, torch.Size, int]] = []

        class Noting:
            def update(self, outputs: Tensor, targets: Tensor, rows: int) -> None:
                calls.append((outputs.shape, targets.shape, rows))

            def compute(self) -> dict[str, float]:
                return {"calls": len(calls)}

        loader = as_batches(DataLoader(TensorDataset(some(5, 3), some(5, 1)), batch_size=2))
        assert evaluate(nn.Linear(3, 1), loader, Noting(), device=CPU) == {"calls": 3}
        assert calls == [((2, 1), (2, 1), 2), ((2, 1), (2, 1), 2), ((1, 1), (1, 1), 1)]


class TestPredict:
    @pytest.mark.parametrize("rows", [1, 100, 5000])
    def test_is_what_the_model_says_in_order(self, rows: int) -> None:
        x = some(rows, 3)
        model = nn.Linear(3, 2)
        torch.testing.assert_close(Trainer(model, "mse", "sgd", device="cpu").predict(x), model(x).detach())

    def test_shuffled_batches_are_read_in_order(self) -> None:
        x = some(100, 3)
        shuffled = ResidentBatches(x, some(100, 1), shuffle=True)
        assert torch.equal(predict(nn.Identity(), shuffled, device=CPU), x)

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda x: TensorDataset(x),
            lambda x: DataLoader(TensorDataset(x), batch_size=7),
            lambda x: DataLoader(x, batch_size=7),
            lambda x: x.numpy(),
            lambda x: x.numpy()[::-1][::-1],
            lambda x: (x,),
            lambda x: {"input": x},
        ],
    )
    def test_of_whatever_holds_inputs(self, wrap: Any) -> None:
        x = some(50, 3)
        assert torch.equal(predict(nn.Identity(), as_batches(wrap(x), with_targets=False), device=CPU), x)

    def test_of_a_data_set(self) -> None:
        class Inputs(Dataset[Tensor]):
            def __len__(self) -> int:
                return 50

            def __getitem__(self, index: int) -> Tensor:
                return some(50, 3)[index]

        trainer = Trainer(nn.Linear(3, 1), "mse", "sgd", device="cpu")
        found = trainer.predict(Inputs(), batch_size=8)
        torch.testing.assert_close(found, trainer.predict(some(50, 3)))

    def test_keeps_the_models_structure(self) -> None:
        class Many(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return {"both": (x, x[:, 0]), "list": [x + 1], "none": None}

        x = some(9000, 3)
        found = predict(Many(), as_batches(x, with_targets=False), device=CPU)
        assert torch.equal(found["both"][0], x)
        assert torch.equal(found["both"][1], x[:, 0])
        assert torch.equal(found["list"][0], x + 1)
        assert found["none"] is None

    def test_is_no_view_of_anything(self) -> None:
        x = some(5, 3)
        found = predict(nn.Identity(), as_batches(x, with_targets=False), device=CPU)
        found.zero_()
        assert torch.equal(x, some(5, 3))

    def test_outputs_without_rows_are_refused(self) -> None:
        class State(nn.LSTM):
            """Its hidden state counts layers first."""

        text = r"predict: the first dimension of every output must be the batch's 5 rows, got shape \[1, 5, 2\]\. Wrap"
        with pytest.raises(InputTypeError, match=text):
            predict(State(3, 2, batch_first=True), as_batches(some(5, 4, 3), with_targets=False), device=CPU)

    def test_outputs_that_are_no_tensors_are_refused(self) -> None:
        class Text(nn.Module):
            def forward(self, x: Tensor) -> str:
                return "a" * len(x)

        text = r"predict: the model must return tensors, in tuples and dicts if it likes, got str\."
        with pytest.raises(InputTypeError, match=text):
            predict(Text(), as_batches(some(5, 3), with_targets=False), device=CPU)

    def test_bf16_gives_float32_near_the_exact(self) -> None:
        x = some(50, 3)
        model = nn.Linear(3, 1)
        exact = Trainer(model, "mse", "sgd", device="cpu").predict(x)
        near = Trainer(model, "mse", "sgd", device="cpu", precision="bf16").predict(x)
        assert near.dtype == torch.float32
        assert not torch.equal(near, exact)
        torch.testing.assert_close(near, exact, rtol=0.02, atol=0.02)  # bfloat16 has 8 bits of mantissa

    def test_a_models_own_dtype_stays(self) -> None:
        model = nn.Linear(3, 1, dtype=torch.bfloat16)
        found = predict(model, as_batches(some(5, 3).bfloat16(), with_targets=False), device=CPU)
        assert found.dtype == torch.bfloat16


class TestRows:
    def test_a_table_is_evaluated_in_large_pieces(self) -> None:
        assert evaluation_rows(ResidentBatches(some(9, 8), batch_size=4)) == evaluation.EVALUATION_ROWS
        categories = torch.zeros(9, 5, dtype=torch.int64)
        named = {"numeric": some(9, 8), "categorical": categories}
        assert evaluation_rows(ResidentBatches(named, batch_size=4)) == evaluation.EVALUATION_ROWS
        wide = torch.zeros(9, 1 << 20)  # 4 MiB a row, of 16
        assert evaluation_rows(ResidentBatches(wide, batch_size=2)) == 4

    def test_images_and_tokens_in_four_training_batches(self) -> None:
        assert evaluation_rows(ResidentBatches(torch.zeros(9, 1, 8, 8), batch_size=4)) == 16
        assert evaluation_rows(ResidentBatches(torch.zeros(9, 512, dtype=torch.int64), batch_size=4)) == 16
        assert evaluation_rows(ResidentBatches(torch.zeros(9, 1, 1024, 1024), batch_size=2)) == 4  # 4 MiB a row

    def test_never_fewer_than_a_batch(self) -> None:
        huge = torch.zeros(1).expand(6, 5 << 20)  # 20 MiB a row
        assert evaluation_rows(ResidentBatches(huge, batch_size=3)) == 3


def test_metrics_of_the_users_own_are_copied_for_each_split() -> None:
    class Off(Metric):
        """Keeps what it needs in plain attributes, and has a setting."""

        def __init__(self) -> None:
            super().__init__()
            self.total, self.rows, self.factor = 0.0, 0, 1.0

        def update(self, preds: Tensor, target: Tensor) -> None:
            self.total += float((preds - target).abs().sum())
            self.rows += len(preds)

        def compute(self) -> Tensor:
            return torch.tensor(self.factor * self.total / self.rows)

    x, y = some(40, 3), some(40, 1)
    mine = Off()
    trainer = Trainer(nn.Linear(3, 1), "mse", "sgd", device="cpu", metrics={"off": mine, "mae": "mae"})
    for data in ((x, y), (x * 10, y), (x, y)):
        found = trainer.evaluate(data)
        assert found["off"] == pytest.approx(found["mae"], rel=1e-5)
    mine.factor = 5.0
    assert trainer.evaluate((x, y))["off"] == pytest.approx(5 * found["mae"], rel=1e-5)


def test_metrics_are_used_again_and_forget() -> None:
    calls: list[int] = []

    def inner(preds: Tensor, target: Tensor) -> float:
        calls.append(len(preds))
        if len(calls) == 1:  # evaluates while it is evaluated
            assert trainer.evaluate((x[:7], y[:7]))["f"] == 7
        return float(len(preds))

    x, y = some(40, 3), some(40, 1)
    trainer = Trainer(nn.Linear(3, 1), "mse", "sgd", device="cpu", metrics={"f": inner, "mse": "mse"})
    first = trainer.evaluate((x, y))
    assert calls == [40, 7]
    assert first["f"] == 40
    assert trainer.evaluate((x[:5], y[:5]))["f"] == 5
    assert trainer.evaluate((x, y)) == first
    assert {len(metrics._states) for metrics in trainer._spare_metrics.values()} == {2}
    assert all(metrics.rows == 0 for metrics in trainer._spare_metrics.values())
