"""What computes a model's outputs: raw tensors in, predictions or logits out."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from stoker.errors import ConfigError, UnknownNameError
from stoker.jobs.prepare import encoded_inputs
from stoker.jobs.run import Run

__all__ = ["BACKENDS", "Backend", "TorchBackend", "open_backend"]

BACKENDS = ("auto", "onnx", "torch")


class Backend(Protocol):
    """What the server asks of whatever runs a model. It is called from one thread at a time."""

    @property
    def name(self) -> str:
        """What it is: a word for ``/info``, and the platform of the Open Inference Protocol."""

    def predict(self, inputs: dict[str, Tensor]) -> Tensor:
        """Compute outputs.

        Args:
            inputs: Raw values. Of a table ``"numeric"``, float64 ``[n, features]``, and ``"categorical"``, int64
                ``[n, columns]``, as :meth:`stoker.data.columns.Columns.read` gives them, each only if the model has
                such; of images ``"images"``, uint8 ``[n, channels, height, width]``.

        Returns:
            float32 on the CPU: ``[n, 1]`` in the target's unit, or logits ``[n, classes]``. A row's numbers must not
            depend on the rows beside it.
        """


class TorchBackend:
    """The run's own model, computed as ``stoker predict`` computes it, to the last bit.

    Args:
        run: The run.
    """

    name: Literal["torch"] = "torch"

    def __init__(self, run: Run) -> None:
        self._run = run

    def predict(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._run.outputs(encoded_inputs(self._run.artifact.model, inputs))


def open_backend(name: str, run: Run) -> Backend:
    """Make the backend of a name.

    Args:
        name: One of :data:`BACKENDS`; ``auto`` is ``torch``, whose numbers are those of ``stoker predict``.
        run: What it computes.

    Raises:
        UnknownNameError: There is no such backend.
        ConfigError: It is not available.
    """
    if name not in BACKENDS:
        raise UnknownNameError("--backend", name, BACKENDS)
    if name == "onnx":
        raise ConfigError("--backend", "onnx needs stoker's ONNX export, which is not there yet", "", "Take torch.")
    return TorchBackend(run)
