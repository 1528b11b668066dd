"""Each update against torch.optim's own, from the same model on the same batches."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn, optim
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

from optimizer_options import KINDS
from stoker.engines.updates.averaging import average_weights, averaging_weights
from stoker.engines.updates.clipping import clip_grad_norm
from stoker.engines.updates.protocol import Counts, UnsupportedOptimizerError, Update
from stoker.engines.updates.radam import rectification
from stoker.engines.updates.registry import UPDATES, update_for
from stoker.engines.updates.state import Cohort, read_state, write_state
from stoker.training.average import WeightAverage

STEPS = 25
# Relative and absolute; parameters and slots are of the order of 1.
TOLERANCE = {torch.float32: (1e-6, 1e-7), torch.float64: (1e-13, 1e-14)}

kinds = pytest.mark.parametrize("kind", sorted(KINDS))
both_dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str
)


class Net(nn.Module):
    """Parameters of two dimensions, of one and of none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 9)
        self.second = nn.Linear(9, 1)
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x))) * self.gain  # type: ignore[no-any-return]


def net(dtype: torch.dtype = torch.float32) -> Net:
    torch.manual_seed(0)
    return Net().to(dtype)


def batches(dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    while True:
        x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        yield x.to(dtype), x.prod(1, keepdim=True).to(dtype)


def made(kind: str, parameters: Any, **more: Any) -> Optimizer:
    build, own = KINDS[kind]
    return build(parameters, **{"lr": 0.01, **own, **more})


def lr_of(step: int) -> float:
    return 0.01 / (1 + 0.1 * step)


def backward(model: nn.Module, batch: tuple[Tensor, Tensor], sign: int = 1) -> None:
    model.zero_grad()
    (sign * nn.functional.mse_loss(model(batch[0]), batch[1])).backward()  # type: ignore[no-untyped-call]


class Pure:
    """Trains with pure updates; between read and write, the optimizer only holds the hyperparameters."""

    def __init__(self, optimizer: Optimizer, parameters: list[Tensor] | None = None) -> None:
        self.optimizer = optimizer
        self.update: Update = update_for(optimizer)
        self.cohorts: list[Cohort] = read_state(optimizer, self.update, parameters)

    def step(self) -> None:
        """One update from the gradients at hand."""
        self.cohorts = [self._stepped(cohort) for cohort in self.cohorts]

    def _stepped(self, cohort: Cohort) -> Cohort:
        group = self.optimizer.param_groups[cohort.group]
        table, counts = self.update.scalars(group, cohort.counts, [float(group["lr"])])
        scalars = {name: torch.tensor(values[0], dtype=cohort.dtype) for name, values in table.items()}
        after = []
        for parameter, slots in zip(cohort.parameters, cohort.slots, strict=True):
            assert parameter.grad is not None
            given = [parameter, parameter.grad, *slots.values()]
            versions = [tensor._version for tensor in given]
            new, new_slots = self.update.apply(
                parameter.detach(), parameter.grad, slots, scalars, self.update.signature(group)
            )
            assert set(new_slots) == set(self.update.slots(group))
            assert [tensor._version for tensor in given] == versions  # nothing changed in place
            with torch.no_grad():
                parameter.copy_(new)
            after.append(new_slots)
        return replace(cohort, counts=counts, slots=tuple(after))

    def write(self) -> None:
        write_state(self.optimizer, self.update, self.cohorts)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def assert_close(mine: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(mine, theirs, strict=True):
        rtol, atol = TOLERANCE[b.dtype]
        form = [(c.dtype, c.device, c.shape, c.stride()) for c in (a, b)]
        assert form[0] == form[1]
        if not torch.allclose(a, b, rtol=rtol, atol=atol):
            torch.testing.assert_close(a, b, rtol=rtol, atol=atol)  # says where; slow


def assert_same_parameters(mine: nn.Module, theirs: nn.Module) -> None:
    assert_close(list(mine.parameters()), list(theirs.parameters()))


def assert_same_state(mine: Optimizer, theirs: Optimizer) -> None:
    a, b = mine.state_dict(), theirs.state_dict()
    assert a["param_groups"] == b["param_groups"]
    assert a["state"].keys() == b["state"].keys()
    for index, expected in b["state"].items():
        held = a["state"][index]
        assert list(held) == list(expected)
        assert_close(list(held.values()), list(expected.values()))


class TestAgainstTorch:
    @kinds
    @both_dtypes
    @pytest.mark.parametrize(
        "more",
        [
            {"weight_decay": 0.1},
            pytest.param({}, marks=pytest.mark.slow),
            pytest.param({"weight_decay": 0.1, "maximize": True}, marks=pytest.mark.slow),
        ],
        ids=str,
    )
    def test_each_step(self, kind: str, dtype: torch.dtype, more: dict[str, Any]) -> None:
        mine, theirs = net(dtype), net(dtype)
        expected = made(kind, theirs.parameters(), foreach=False, **more)
        pure = Pure(made(kind, mine.parameters(), foreach=False, **more))
        sign = -1 if more.get("maximize") else 1  # so that nothing diverges
        for step, batch in zip(range(STEPS), batches(dtype), strict=False):
            for model, optimizer in ((mine, pure.optimizer), (theirs, expected)):
                set_lr(optimizer, lr_of(step))
                backward(model, batch, sign)
            expected.step()
            pure.step()
            pure.write()
            assert_same_parameters(mine, theirs)
            assert_same_state(pure.optimizer, expected)

    @kinds
    def test_settings_that_change_on_the_way(self, kind: str) -> None:
        mine, theirs = net(), net()
        expected = made(kind, theirs.parameters())
        pure = Pure(made(kind, mine.parameters()))
        signature = pure.update.signature(pure.optimizer.param_groups[0])
        for step, batch in zip(range(12), batches(), strict=False):
            for model, optimizer in ((mine, pure.optimizer), (theirs, expected)):
                group = optimizer.param_groups[0]
                if step == 5:
                    group["weight_decay"] = 0.2
                    other = {"momentum": 0.5, "dampening": 0.1, "eps": 1e-4, "alpha": 0.7, "betas": (0.6, 0.9)}
                    other |= {"momentum_decay": 0.1, "lr_decay": 0.3}
                    group.update({name: value for name, value in other.items() if group.get(name)})
                backward(model, batch)
            expected.step()
            pure.step()
        pure.write()
        assert pure.update.signature(pure.optimizer.param_groups[0]) == signature  # the same program
        assert_same_parameters(mine, theirs)
        assert_same_state(pure.optimizer, expected)

    @pytest.mark.parametrize("how", ["foreach", "fused"])
    @pytest.mark.parametrize("kind", ["sgd-momentum", "adam", "adamw-amsgrad", "adagrad"])
    def test_other_ways_to_carry_out_the_same(self, kind: str, how: str) -> None:
        # the fused one takes its operations in another order: equal a step, not to the last bit
        model, batch = net(), batches()
        expected = made(kind, model.parameters(), weight_decay=0.1, **{how: True})
        for _ in range(6):
            backward(model, next(batch))
            mine = copy.deepcopy(model)
            copied = made(kind, mine.parameters(), weight_decay=0.1, **{how: True})
            copied.load_state_dict(copy.deepcopy(expected.state_dict()))
            for a, b in zip(mine.parameters(), model.parameters(), strict=True):
                a.grad = b.grad
            pure = Pure(copied)
            pure.step()
            pure.write()
            expected.step()
            assert_same_parameters(mine, model)
            assert_same_state(copied, expected)

    @kinds
    def test_a_learning_rate_that_is_a_tensor(self, kind: str) -> None:
        mine, theirs = net(), net()
        expected = made(kind, theirs.parameters(), lr=torch.tensor(0.013), foreach=False)
        pure = Pure(made(kind, mine.parameters(), lr=torch.tensor(0.013), foreach=False))
        for _, batch in zip(range(3), batches(), strict=False):
            backward(mine, batch)
            backward(theirs, batch)
            expected.step()
            pure.step()
        assert_same_parameters(mine, theirs)

    @settings(max_examples=60, deadline=None)
    @given(
        kind=st.sampled_from(sorted(KINDS)),
        lr=st.floats(1e-5, 0.1),
        weight_decay=st.floats(0, 1),
        beta1=st.floats(0, 0.99),
        beta2=st.floats(0.5, 0.9999),
        eps=st.floats(1e-10, 1e-2),
    )
    def test_whatever_the_hyperparameters(
        self, kind: str, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
    ) -> None:
        optional = {"betas": (beta1, beta2), "eps": eps, "alpha": beta2}
        build, own = KINDS[kind]
        accepted = build([torch.zeros(1)]).defaults  # type: ignore[call-arg]
        more = {name: value for name, value in optional.items() if name in accepted}
        mine, theirs = net(), net()
        arguments = {**own, **more, "lr": lr, "weight_decay": weight_decay}
        expected = build(theirs.parameters(), **arguments)
        pure = Pure(build(mine.parameters(), **arguments))
        for _, batch in zip(range(7), batches(), strict=False):
            backward(mine, batch)
            backward(theirs, batch)
            expected.step()
            pure.step()
        assert_same_parameters(mine, theirs)

    def test_scalars_of_many_updates_are_those_one_by_one(self) -> None:
        for kind in sorted(KINDS):
            optimizer = made(kind, net().parameters(), weight_decay=0.1)
            update, group = update_for(optimizer), optimizer.param_groups[0]
            lrs = [lr_of(step) for step in range(9)]
            start = update.counts({})
            together, end = update.scalars(group, start, lrs)
            counts: Counts = start
            for i, lr in enumerate(lrs):
                alone, counts = update.scalars(group, counts, [lr])
                assert {name: values[i] for name, values in together.items()} == {
                    name: values[0] for name, values in alone.items()
                }
            assert counts == end
            assert all(values.shape == (9,) and values.dtype == "float64" for values in together.values())


class TestState:
    @kinds
    def test_training_goes_on_in_torch_and_back(self, kind: str) -> None:
        mine, theirs = net(), net()
        expected = made(kind, theirs.parameters(), weight_decay=0.1)
        optimizer = made(kind, mine.parameters(), weight_decay=0.1)
        pure: Pure | None = None
        for step, batch in zip(range(20), batches(), strict=False):
            backward(mine, batch)
            backward(theirs, batch)
            expected.step()
            if step % 10 == 0:  # pure, torch, pure, torch
                pure = Pure(optimizer)
            if pure is not None:
                pure.step()
            else:
                optimizer.step()
            if step % 10 == 4 and pure is not None:
                pure.write()
                pure = None
        assert_same_parameters(mine, theirs)
        assert_same_state(optimizer, expected)

    @kinds
    def test_it_can_be_saved_and_loaded(self, kind: str) -> None:
        mine = net()
        pure = Pure(made(kind, mine.parameters()))
        batch = batches()
        backward(mine, next(batch))
        pure.step()
        pure.write()
        other = copy.deepcopy(mine)
        loaded = made(kind, other.parameters())
        loaded.load_state_dict(copy.deepcopy(pure.optimizer.state_dict()))
        for model, optimizer in ((mine, pure.optimizer), (other, loaded)):
            model.zero_grad()
            (model(torch.ones(2, 4)).sum()).backward()
            optimizer.step()
        assert_same_parameters(mine, other)

    @kinds
    def test_before_the_first_update_nothing_is_written(self, kind: str) -> None:
        mine = net()
        pure = Pure(made(kind, mine.parameters()))
        pure.write()
        assert_same_state(pure.optimizer, made(kind, net().parameters()))

    def test_the_product_that_nadam_counts_is_torchs_to_the_last_bit(self) -> None:
        mine, theirs = net(), net()
        pure, expected = Pure(optim.NAdam(mine.parameters())), optim.NAdam(theirs.parameters())
        for _, batch in zip(range(STEPS), batches(), strict=False):
            backward(mine, batch)
            backward(theirs, batch)
            pure.step()
            expected.step()
            assert pure.cohorts[0].counts["mu_product"] == expected.state[theirs.gain]["mu_product"].item()

    @pytest.mark.parametrize(
        ("kind", "how", "count"),
        [
            ("adam", "foreach", torch.float64),
            ("nadam", "foreach", torch.float64),
            ("rmsprop-both", "foreach", torch.float64),
            ("adagrad", "foreach", torch.float64),
            ("adam", "fused", torch.float32),
        ],
    )
    def test_counts_have_the_default_dtype_unless_fused(self, kind: str, how: str, count: torch.dtype) -> None:
        torch.set_default_dtype(torch.float64)
        try:
            mine, theirs = net(torch.float64), net(torch.float64)
            pure = Pure(made(kind, mine.parameters(), **{how: True}))
            expected = made(kind, theirs.parameters(), **{how: True})
            for _, batch in zip(range(4), batches(torch.float64), strict=False):
                backward(mine, batch)
                backward(theirs, batch)
                pure.step()
                expected.step()
            pure.write()
            assert_same_state(pure.optimizer, expected)
            assert pure.optimizer.state[mine.gain]["step"].dtype == count
        finally:
            torch.set_default_dtype(torch.float32)

    @pytest.mark.parametrize("kind", ["sgd-momentum", "adamw", "rmsprop-both", "nadam", "radam"])
    def test_groups_have_their_own_settings(self, kind: str) -> None:
        mine, theirs = net(), net()

        def groups(model: Net) -> list[dict[str, Any]]:
            own: dict[str, Any] = {"lr": 0.003, "weight_decay": 0.3}
            own |= {"momentum": 0.0} if "momentum" in KINDS[kind][1] else {"betas": (0.5, 0.7)}
            return [{"params": [*model.first.parameters(), model.gain]}, {"params": model.second.parameters(), **own}]

        pure, expected = Pure(made(kind, groups(mine))), made(kind, groups(theirs))
        assert [(cohort.group, len(cohort.parameters)) for cohort in pure.cohorts] == [(0, 3), (1, 2)]
        for _, batch in zip(range(6), batches(), strict=False):
            backward(mine, batch)
            backward(theirs, batch)
            pure.step()
            expected.step()
        pure.write()
        assert_same_parameters(mine, theirs)
        assert_same_state(pure.optimizer, expected)

    @kinds
    def test_parameters_that_come_later_count_for_themselves(self, kind: str) -> None:
        mine, theirs = net(), net()
        optimizer, expected = made(kind, mine.parameters()), made(kind, theirs.parameters())
        for model in (mine, theirs):
            model.first.requires_grad_(False)
        pure: Pure = Pure(optimizer)
        for step, batch in zip(range(8), batches(), strict=False):
            if step == 4:
                pure.write()
                for model in (mine, theirs):
                    model.first.requires_grad_(True)
                pure = Pure(optimizer)
                counted = {cohort.counts["step"]: len(cohort.parameters) for cohort in pure.cohorts}
                # plain SGD counts nothing; with momentum it shows whether there was an update
                expected_counts = {0.0: 5} if kind == "sgd" else {0.0: 2, 1.0 if "sgd" in kind else 4.0: 3}
                assert counted == expected_counts
            backward(mine, batch)
            backward(theirs, batch)
            pure.step()
            expected.step()
        pure.write()
        assert_same_parameters(mine, theirs)
        assert_same_state(optimizer, expected)

    def test_parameters_of_both_dtypes_are_apart(self) -> None:
        wide, narrow = nn.Parameter(torch.ones(3, dtype=torch.float64)), nn.Parameter(torch.ones(3))
        optimizer = optim.Adam([narrow, wide])
        found = read_state(optimizer, update_for(optimizer))
        assert [(cohort.dtype, cohort.parameters) for cohort in found] == [
            (torch.float32, (narrow,)),
            (torch.float64, (wide,)),
        ]

    def test_only_those_that_get_a_gradient(self) -> None:
        model = net()
        optimizer = optim.Adam(model.parameters())
        [cohort] = read_state(optimizer, update_for(optimizer), [model.gain])
        assert [id(parameter) for parameter in cohort.parameters] == [id(model.gain)]
        assert not optimizer.state

    def test_tensors_that_are_there_keep_their_memory(self) -> None:
        model = net()
        optimizer = optim.Adam(model.parameters())
        backward(model, next(batches()))
        optimizer.step()
        held = optimizer.state[model.gain]["exp_avg"]
        pure = Pure(optimizer)
        pure.step()
        pure.write()
        assert optimizer.state[model.gain]["exp_avg"] is held
        assert held is not pure.cohorts[0].slots[0]["exp_avg"]

    def test_channels_last_parameters_get_slots_alike(self) -> None:
        layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        other = copy.deepcopy(layer)
        pure, expected = Pure(optim.Adam(layer.parameters())), optim.Adam(other.parameters())
        for model in (layer, other):
            model(torch.ones(1, 3, 5, 5)).sum().backward()
        pure.step()
        pure.write()
        expected.step()
        assert_same_state(pure.optimizer, expected)


class TestUnsupported:
    @pytest.mark.parametrize("kind", [optim.Adadelta, optim.ASGD, optim.Rprop, optim.LBFGS, optim.Adafactor])
    def test_other_classes(self, kind: Any) -> None:
        reason = rf"^the optimizer {kind.__name__}, which has no pure update$"
        with pytest.raises(UnsupportedOptimizerError, match=reason):
            update_for(kind(net().parameters()))

    def test_a_subclass(self) -> None:
        class Mine(optim.SGD):
            pass

        with pytest.raises(UnsupportedOptimizerError, match=r"^the optimizer Mine, which has no pure update$"):
            update_for(Mine(net().parameters()))

    @pytest.mark.parametrize(
        ("kind", "flag"),
        [
            (kind, flag)
            for kind in UPDATES
            for flag in ("differentiable", "capturable")
            if flag in inspect.signature(kind).parameters
        ],
    )
    def test_steps_that_are_captured_or_differentiated(self, kind: Any, flag: str) -> None:
        optimizer = kind(net().parameters())
        optimizer.param_groups[0][flag] = True
        with pytest.raises(UnsupportedOptimizerError, match=rf"^an optimizer that is {flag}$"):
            update_for(optimizer)

    @pytest.mark.parametrize("name", ["register_step_pre_hook", "register_step_post_hook"])
    def test_hooks(self, name: str) -> None:
        optimizer = optim.SGD(net().parameters())
        handle = getattr(optimizer, name)(lambda *_: None)
        with pytest.raises(UnsupportedOptimizerError, match=r"^a hook on the optimizer's step$"):
            update_for(optimizer)
        handle.remove()
        assert type(update_for(optimizer)) is UPDATES[optim.SGD]

    @pytest.mark.parametrize("name", ["register_optimizer_step_pre_hook", "register_optimizer_step_post_hook"])
    def test_hooks_on_all_optimizers(self, name: str) -> None:
        handle = getattr(torch_optimizer, name)(lambda *_: None)
        try:
            with pytest.raises(UnsupportedOptimizerError, match=r"^a hook on the optimizer's step$"):
                update_for(optim.SGD(net().parameters()))
        finally:
            handle.remove()

    def test_a_step_of_ones_own(self) -> None:
        optimizer = optim.SGD(net().parameters())
        mine: Any = lambda: None  # noqa: E731
        optimizer.step = mine  # type: ignore[method-assign]
        with pytest.raises(UnsupportedOptimizerError, match=r"^an optimizer whose step method was replaced$"):
            update_for(optimizer)

    def test_schedulers_are_no_hindrance(self) -> None:
        optimizer = optim.SGD(net().parameters(), lr=0.1)
        optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        optim.lr_scheduler.LinearLR(optimizer)
        assert "step" in vars(optimizer)  # where they note that it was called
        assert type(update_for(optimizer)) is UPDATES[optim.SGD]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64], ids=str)
    def test_other_dtypes(self, dtype: torch.dtype) -> None:
        with pytest.raises(UnsupportedOptimizerError, match=rf"^an optimizer of {dtype} parameters$"):
            update_for(optim.SGD([nn.Parameter(torch.zeros(2, dtype=dtype))]))

    def test_a_setting_that_the_state_does_not_fit(self) -> None:
        model = net()
        optimizer = optim.Adam(model.parameters())
        backward(model, next(batches()))
        optimizer.step()
        optimizer.param_groups[0]["amsgrad"] = True
        with pytest.raises(UnsupportedOptimizerError, match=r"^an optimizer whose state has no max_exp_avg_sq, "):
            read_state(optimizer, update_for(optimizer))
        with pytest.raises(KeyError, match="max_exp_avg_sq"):  # torch's own word on it
            optimizer.step()


class TestSignature:
    @kinds
    def test_numbers_are_no_part_of_it(self, kind: str) -> None:
        optimizer = made(kind, net().parameters())
        update, group = update_for(optimizer), optimizer.param_groups[0]
        numbers = {"lr": 1.0, "weight_decay": 0.5, "eps": 0.1, "betas": (0.1, 0.2), "alpha": 0.4, "dampening": 0.2}
        assert update.signature({**group, **numbers}) == update.signature(group)

    def test_switches_are(self) -> None:
        group = optim.SGD([torch.zeros(1)], momentum=0.9, nesterov=True, maximize=True).param_groups[0]
        assert UPDATES[optim.SGD](group).signature(group) == {"momentum", "nesterov", "maximize"}
        assert UPDATES[optim.SGD](group).signature({**group, "momentum": 0.0}) == {"nesterov", "maximize"}
        group = optim.AdamW([torch.zeros(1)], amsgrad=True).param_groups[0]
        assert UPDATES[optim.AdamW](group).signature(group) == {"amsgrad", "decoupled_weight_decay"}


def traced(function: Callable[..., Any], *example: Any, core: bool = False) -> fx.GraphModule:
    table = core_aten_decompositions() if core else None
    graph: fx.GraphModule = make_fx(function, tracing_mode="fake", decomposition_table=table)(*example)  # type: ignore[arg-type]
    changing = [node for node in graph.graph.nodes if node.op == "call_function" and node.target._schema.is_mutable]
    assert changing == []
    return graph


class TestTracing:
    @kinds
    @both_dtypes
    @pytest.mark.parametrize("core", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["as-is", "core"])
    def test_one_program_serves_all_steps_and_hyperparameters(self, kind: str, dtype: torch.dtype, core: bool) -> None:
        model = net(dtype)
        optimizer = made(kind, model.parameters(), weight_decay=0.1)
        update, group = update_for(optimizer), optimizer.param_groups[0]
        [cohort] = read_state(optimizer, update)
        signature = update.signature(group)

        def scalars_of(counts: Counts) -> tuple[dict[str, Tensor], Counts]:
            table, after = update.scalars(group, counts, [float(group["lr"])])
            return {name: torch.tensor(values[0], dtype=dtype) for name, values in table.items()}, after

        def step(parameters: Any, gradients: Any, slots: Any, scalars: Any) -> Any:
            found = [update.apply(p, g, s, scalars, signature) for p, g, s in zip(parameters, gradients, slots)]  # noqa: B905
            return [p for p, _ in found], [s for _, s in found]

        parameters = [parameter.detach().clone() for parameter in cohort.parameters]
        slots: Any = [{name: slot.clone() for name, slot in own.items()} for own in cohort.slots]
        scalars, counts = scalars_of(cohort.counts)
        program = traced(step, parameters, [parameter.clone() for parameter in parameters], slots, scalars, core=core)
        numbers = {
            argument
            for node in program.graph.nodes
            for argument in (*node.args, *node.kwargs.values())
            if isinstance(argument, float)
        }
        assert numbers <= {1.0, -1.0, 0.5}  # the last where lerp changes its formula
        assert not list(program.buffers())  # nor any tensor that was closed over

        counts = cohort.counts
        for step_number, batch in zip(range(9), batches(dtype), strict=False):
            group["lr"] = lr_of(step_number)
            group["weight_decay"] = 0.1 * step_number
            group.update({"eps": 1e-4, "betas": (0.5, 0.97)} if step_number > 4 and "betas" in group else {})
            backward(model, batch)
            gradients = [parameter.grad for parameter in cohort.parameters]
            scalars, counts = scalars_of(counts)
            parameters, slots = program(parameters, gradients, slots, scalars)
            optimizer.step()
            assert_close(parameters, [parameter.detach() for parameter in cohort.parameters])

    def test_clipping_and_averaging(self) -> None:
        def step(gradients: list[Tensor], limit: Tensor, averages: list[Tensor], weight: Tensor) -> Any:
            return clip_grad_norm(gradients, limit)[0], average_weights(averages, gradients, weight)

        example = [torch.ones(2, 3), torch.tensor(1.0)]
        program = traced(step, example, torch.tensor(1.0), copy.deepcopy(example), torch.tensor(1.0))
        clipped, averaged = program(
            [torch.full((2, 3), 2.0), torch.tensor(1.0)], torch.tensor(2.5), example, torch.tensor(0.5)
        )
        torch.testing.assert_close(clipped, [torch.full((2, 3), 1.0), torch.tensor(0.5)])
        torch.testing.assert_close(averaged, [torch.full((2, 3), 1.5), torch.tensor(1.0)])


def test_rectification() -> None:
    # worked by hand for β₂ = 0.9: ρ∞ = 19, and ρ after 10 updates 19 − 20·0.9¹⁰/(1 − 0.9¹⁰) = 8.2932…
    length = 19 - 20 * 0.9**10 / (1 - 0.9**10)
    assert length == pytest.approx(8.2932, abs=1e-5)
    expected = ((length - 4) * (length - 2) * 19 / (15 * 17 * length)) ** 0.5
    assert rectification(0.9, 10) == pytest.approx(expected)
    assert rectification(0.999, 5) is None
    assert rectification(0.999, 6) is not None


class TestClipping:
    @pytest.mark.parametrize("limit", [1e-3, 1.0, 5.0, 1e6])
    def test_is_torchs(self, limit: float) -> None:
        generator = torch.Generator().manual_seed(2)
        gradients = [torch.randn(shape, generator=generator) for shape in ((), (3,), (4, 5), (2, 3, 4))]
        parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        expected_norm = nn.utils.clip_grad_norm_(parameters, limit)
        before = copy.deepcopy(gradients)
        clipped, norm = clip_grad_norm(gradients, torch.tensor(limit))
        torch.testing.assert_close(norm, expected_norm, rtol=1e-6, atol=0)
        for mine, parameter in zip(clipped, parameters, strict=True):
            torch.testing.assert_close(mine, parameter.grad, rtol=1e-6, atol=0)
        torch.testing.assert_close(gradients, before, rtol=0, atol=0)

    def test_both_dtypes(self) -> None:
        gradients = [torch.tensor(3.0), torch.tensor([4.0], dtype=torch.float64)]
        clipped, norm = clip_grad_norm(gradients, torch.tensor(1.0, dtype=torch.float64))
        assert [gradient.dtype for gradient in clipped] == [torch.float32, torch.float64]
        assert norm.item() == 5.0
        assert clipped[0].item() == pytest.approx(0.6)

    def test_no_gradients(self) -> None:
        clipped, norm = clip_grad_norm([], torch.tensor(1.0))
        assert (clipped, norm.item()) == ([], 0.0)

    def test_nan_spreads_as_in_torch(self) -> None:
        clipped, norm = clip_grad_norm([torch.tensor([1.0, float("nan")]), torch.ones(1)], torch.tensor(1.0))
        assert bool(norm.isnan())
        assert all(bool(gradient.isnan().all()) for gradient in clipped)


class TestAveraging:
    @pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.999])
    def test_is_the_weight_averages(self, decay: float) -> None:
        model = net()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        expected = WeightAverage(model, decay)
        mine = [torch.full_like(parameter, 7.0) for parameter in model.parameters()]  # which the first forgets
        weights = [*averaging_weights(decay, 0, 4), *averaging_weights(decay, 4, 4)]
        for weight, batch in zip(weights, batches(), strict=False):
            backward(model, batch)
            optimizer.step()
            expected.update()
            now = [parameter.detach() for parameter in model.parameters()]
            mine = average_weights(mine, now, torch.tensor(weight, dtype=torch.float32))
            with expected.applied():
                torch.testing.assert_close(mine, [p.detach() for p in model.parameters()], rtol=1e-6, atol=1e-7)

    def test_weights(self) -> None:
        assert averaging_weights(0.75, 0, 3).tolist() == [1.0, 0.25, 0.25]
        assert averaging_weights(0.75, 2, 2).tolist() == [0.25, 0.25]
        assert averaging_weights(0.75, 0, 0).tolist() == []
