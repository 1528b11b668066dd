"""Programs where torch's device is none of the CPU's, as far as that can be tried on one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import pytest
import torch
from tiny import DATA, assert_near, mlp
from torch import nn

from stoker import Trainer
from stoker.data.resident import ResidentBatches
from stoker.engines.explain import obstacles
from stoker.engines.plan import unsupported
from stoker.engines.step import Epoch, Step
from stoker.engines.xla import crossing, device
from stoker.engines.xla.program import Program
from stoker.errors import LoweringError


@pytest.fixture
def by_dlpack(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's tensors cross as another device's do."""
    monkeypatch.setattr(crossing, "_by_numpy", lambda _: False)


def trained(model: nn.Module, engine: str, **settings: Any) -> Trainer:
    trainer = Trainer(model, "mse", lr=0.01, device="cpu", metrics=(), engine=engine, **settings)
    trainer.fit(DATA, epochs=4, batch_size=16, progress="none", check=False)
    return trainer


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 24, bias=False), nn.BatchNorm1d(24), nn.Tanh(), nn.Linear(24, 1))


@pytest.mark.usefixtures("by_dlpack")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("make", [mlp, normed])
def test_state_that_crosses_by_dlpack_trains_as_eagerly(make: Any, optimizer: str, made: list[Program]) -> None:
    mine, theirs = make(), make()
    trainer = trained(mine, "compiled", optimizer=optimizer, ema=0.9)
    trained(theirs, "eager", optimizer=optimizer, ema=0.9)
    assert (trainer.engine.reason, len(made)) == (None, 1)
    assert_near(mine, theirs)


@pytest.mark.usefixtures("by_dlpack")
def test_what_a_program_gives_up_is_none_of_torchs_memory() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    (array,) = crossing.copied([tensor])
    assert isinstance(array, jax.Array)
    assert crossing.same_bits(tensor, array)
    tensor.add_(1)
    assert array.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert not crossing.same_bits(tensor, array)
    crossing.overwrite([tensor], [array])
    assert tensor.tolist() == array.tolist()


@pytest.mark.parametrize("by_numpy", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int8])
def test_bits_are_compared(by_numpy: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossing, "_by_numpy", lambda _: by_numpy)
    tensor = torch.tensor([[0.0, 1.0], [-2.0, 3.0]]).to(dtype)
    (array,) = crossing.copied([tensor])
    assert crossing.same_bits(tensor, array)
    if dtype.is_floating_point:
        assert not crossing.same_bits(-tensor.abs() * 0.0, crossing.copied([tensor.abs() * 0.0])[0])
        nothing = tensor * float("nan")
        assert crossing.same_bits(nothing, crossing.copied([nothing])[0])
    assert not crossing.same_bits(tensor + 1, array)


@pytest.fixture
def fresh() -> Iterator[None]:
    device._jax_device.cache_clear()
    yield
    device._jax_device.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_the_device_is_the_one_that_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def local_devices(backend: str) -> list[Any]:
        seen.append((backend, os.environ[device.PREALLOCATE]))
        return [SimpleNamespace(local_hardware_id=place) for place in (1, 0)]

    monkeypatch.delenv(device.PREALLOCATE, raising=False)
    monkeypatch.setattr(jax, "local_devices", local_devices)
    assert device._jax_device(torch.device("cuda:1")).local_hardware_id == 1
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert device._jax_device(torch.device("cuda")).local_hardware_id == 0
    with pytest.raises(LoweringError, match=r"device: must be one that JAX has, got cuda:5\. Install JAX for it\."):
        device._jax_device(torch.device("cuda:5"))
    assert set(seen) == {("cuda", "false")}  # what is left of the GPU's memory is torch's
    assert device.PREALLOCATE not in os.environ
    monkeypatch.setenv(device.PREALLOCATE, "true")  # what the user says holds
    device._jax_device(torch.device("cuda:0"))
    assert seen[-1] == ("cuda", "true")


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("said", "elsewhere"), [(None, False), ("true", True)])
def test_the_client_is_told_to_run_programs_in_the_thread_that_calls(
    said: str | None, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def local_devices(backend: str) -> list[Any]:
        seen.append((backend, jax.config.values[device.ELSEWHERE]))
        return [SimpleNamespace()]

    before = jax.config.values[device.ELSEWHERE]
    monkeypatch.delenv("JAX_CPU_ENABLE_ASYNC_DISPATCH", raising=False)
    if said is not None:  # what the user says holds
        monkeypatch.setenv("JAX_CPU_ENABLE_ASYNC_DISPATCH", said)
    monkeypatch.setattr(jax, "local_devices", local_devices)
    device._jax_device(torch.device("cpu"))
    assert seen == [("cpu", elsewhere)]
    assert jax.config.values[device.ELSEWHERE] == before  # for clients that others start


@pytest.mark.usefixtures("fresh")
def test_a_jax_without_that_setting_starts_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "ELSEWHERE", "jax_no_such_setting")
    assert device._jax_device(torch.device("cpu")).platform == "cpu"


@pytest.mark.parametrize(("said", "waits"), [({}, True), ({"JAX_CPU_ENABLE_ASYNC_DISPATCH": "true"}, False)])
def test_a_call_of_a_program_comes_back_when_it_is_done(said: dict[str, str], waits: bool) -> None:
    code = """
import jax, torch
from stoker.engines.xla.device import on

with on(torch.device("cpu")):
    long = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda _, y: jax.numpy.tanh(y @ y), x))
    x = jax.numpy.ones((300, 300))
    long(x).block_until_ready()  # compiled
    print(long(x).is_ready())
"""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_CPU_ENABLE_ASYNC_DISPATCH"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environment | said, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(waits)]


@pytest.mark.usefixtures("fresh")
def test_where_jax_was_told_to_have_no_cpu_training_is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    def local_devices(backend: str) -> list[Any]:
        raise RuntimeError(f"Unknown backend: {backend}")  # as with JAX_PLATFORMS=cuda

    monkeypatch.setattr(jax, "local_devices", local_devices)
    assert trained(mlp(), "compiled", optimizer="sgd").engine_reason == "eager: JAX has no cpu"


def test_a_device_that_jax_lacks_is_named() -> None:
    assert device.lacking(torch.device("cpu")) is None
    if not torch.cuda.is_available():
        assert device.lacking(torch.device("cuda:0")) == "JAX has no cuda:0"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("place", "by_kind", "in_all"),
    [
        ("cpu", None, []),
        ("cuda:0", None, []),
        ("cuda:5", None, ["JAX has no cuda:5"]),
        ("mps", "the device is mps", ["the device is mps"]),
    ],
)
def test_a_step_is_explained_by_the_rule_that_it_is_compiled_by(
    place: str, by_kind: str | None, in_all: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda backend: [SimpleNamespace(local_hardware_id=0)])  # noqa: ARG005
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = Step(model, nn.MSELoss(), optimizer, device=torch.device(place))
    batches = ResidentBatches(*DATA, batch_size=16, shuffle=False, seed=0)
    assert unsupported(step, Epoch(batches, 0, batches.epoch(0))) == by_kind
    assert obstacles(step, batches) == in_all
