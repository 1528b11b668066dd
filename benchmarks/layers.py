"""What a layer costs once compiled: capture, compilation, and microseconds per step beside eager.

    python benchmarks/layers.py [--layer lstm] [--hidden 64] [--length 28] [--steps 100]

Sequences of 28 numbers a step, batch 32, one layer and a linear one over its last output, SGD, cross-entropy; or (cnn)
images of 28 × 28 through convolutions of 16 and 32 channels, the eager ones with channels last. A compiled step is one
turn of a loop within one program, as in the compiled engine; each figure is the median of five turns of so many steps,
compiled and eager in turn.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import torch
import torch.nn.functional as F
from jax import lax
from torch import Tensor, nn

from stoker.engines.decompositions import trace
from stoker.engines.xla.dtypes import from_torch
from stoker.engines.xla.interpret import to_jax

WIDTH, BATCH, CLASSES, RATE = 28, 32, 10, 0.01
LAYERS: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Classifier(nn.Module):
    def __init__(self, layer: str, hidden: int) -> None:
        super().__init__()
        self.recurrent = LAYERS[layer](WIDTH, hidden, batch_first=True)
        self.last = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.recurrent(x)[0][:, -1])
        return logits


def cnn() -> nn.Module:
    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(32 * 7 * 7, CLASSES))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def step_of(model: nn.Module) -> Callable[..., Any]:
    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    def step(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Any:
        gradients, value = torch.func.grad_and_value(loss)(parameters, x, y)
        return [value, *(parameter - RATE * gradients[name] for name, parameter in parameters.items())]

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", choices=[*LAYERS, "cnn"], default="lstm")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--length", type=int, default=28)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    form = (1, WIDTH, WIDTH) if given.layer == "cnn" else (given.length, WIDTH)
    x, y = torch.randn(BATCH, *form), torch.randint(0, CLASSES, (BATCH,))
    model = cnn() if given.layer == "cnn" else Classifier(given.layer, given.hidden)
    by_hand, its_x = copy.deepcopy(model), x
    if given.layer == "cnn":
        by_hand, its_x = by_hand.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=RATE)

    def eager() -> float:
        for _ in range(given.steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(by_hand(its_x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return loss.item()

    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    trace(
        step_of(nn.Linear(WIDTH, CLASSES)),
        dict(nn.Linear(WIDTH, CLASSES).named_parameters()),
        x.flatten(1)[:, :WIDTH],
        y,
    )  # imports
    capturing, graph = timed(lambda: trace(step_of(model), parameters, x, y))
    function = to_jax(graph)

    def turns(weights: list[Any], x: Any, y: Any) -> Any:
        return lax.fori_loop(0, given.steps, lambda _, state: function(*state[1:], x, y), [x.ravel()[0], *weights])

    state = [from_torch(x).flat[0], *(from_torch(parameter) for parameter in parameters.values())]
    with jax.enable_x64(True):
        batch = jax.device_put((from_torch(x), from_torch(y)))
        state = jax.device_put(state)
        compiling, program = timed(jax.jit(turns).lower(state[1:], *batch).compile)
        seconds: dict[str, list[float]] = {"compiled": [], "eager": []}
        for _ in range(5):
            taken, state = timed(lambda: jax.block_until_ready(program(state[1:], *batch)))  # type: ignore[no-untyped-call]  # noqa: B023
            seconds["compiled"].append(taken / given.steps)
            taken, loss = timed(eager)
            seconds["eager"].append(taken / given.steps)
    size = "" if given.layer == "cnn" else f", hidden {given.hidden}"
    print(f"{given.layer}{size}, {' × '.join(map(str, form))}, batch {BATCH}; {len(graph.graph.nodes)} nodes")
    print(f"capture {capturing:.2f} s, compilation {compiling:.2f} s")
    print("µs per step:", ", ".join(f"{side} {statistics.median(all_) * 1e6:,.0f}" for side, all_ in seconds.items()))
    print(f"loss after {5 * given.steps} steps: compiled {float(state[0]):.6f}, eager {loss:.6f}")


if __name__ == "__main__":
    main()
