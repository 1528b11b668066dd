"""The sides: who trains. Each is a module with one function, and an entry here.

``train(job, data, epochs, batch_size, mark, **settings)`` trains the job's network from
:func:`~benchmarks.jobs.first_weights` with plain SGD for so many epochs, each over all rows in an order of its own with
the smaller last batch trained on, calls ``mark()`` at the end of each epoch when its work is done (not merely queued),
and returns :class:`Trained`. Whatever the side's framework needs is imported at the top of its module: importing it is
not measured, calling ``train`` is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from benchmarks.jobs import Array, Kind

Mark: TypeAlias = Callable[[], None]
ALL: tuple[Kind, ...] = ("mlp", "cnn", "lstm", "embedding")


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        outputs: The trained network: from some rows of the inputs to predictions or logits, as NumPy arrays.
        note: What the side says about how it trained.
        imports_s: Seconds of imports made before the call that another engine of the same framework makes within it.
    """

    outputs: Callable[[tuple[Array, ...]], Array]
    note: str = ""
    imports_s: float = 0.0


@dataclass(frozen=True)
class Side:
    """Who trains.

    Attributes:
        name: By which it is asked for.
        label: For tables.
        module: Whose ``train`` it is.
        settings: Given to ``train``.
        environment: Variables of its process.
        kinds: Of networks that it trains; a job of another kind makes no sense for it.
        jobs: The only jobs that it trains; empty for all.
    """

    name: str
    label: str
    module: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[Kind, ...] = ALL
    jobs: tuple[str, ...] = ()

    def trainer(self) -> Callable[..., Trained]:
        """Import what it needs.

        Raises:
            Exception: Whatever importing it raises; ``ImportError`` in most cases.
        """
        return cast(Callable[..., Trained], importlib.import_module(f"benchmarks.sides.{self.module}").train)


SIDES: Mapping[str, Side] = {
    side.name: side
    for side in (
        Side("stoker-auto", "Stoker, auto", "stoker", {"engine": "auto"}),
        Side("stoker-compiled", "Stoker, compiled", "stoker_compiled", {"engine": "compiled"}),
        Side("stoker-eager", "Stoker, eager", "stoker", {"engine": "eager"}),
        Side("jax", "JAX by hand", "jax"),
        Side("resident", "PyTorch by hand, resident tensors", "resident"),
        Side("loop", "PyTorch by hand, DataLoader", "loop"),
        Side("transforms", "PyTorch by hand, torchvision's transforms", "transforms", jobs=("fashion",)),
        Side("scikit-learn", "scikit-learn", "scikit_learn", kinds=("mlp",)),
        Side("keras-jax", "Keras on JAX", "keras", environment={"KERAS_BACKEND": "jax"}),
        Side("keras-torch", "Keras on torch", "keras", environment={"KERAS_BACKEND": "torch"}),
        Side("skorch", "skorch", "skorch"),
        Side("lightning", "Lightning", "lightning"),
    )
}
