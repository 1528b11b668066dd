"""What computes a model's outputs: raw tensors in, predictions or logits out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor

from stoker.errors import ConfigError, UnknownNameError
from stoker.jobs.prepare import encoded_inputs
from stoker.jobs.run import Run

__all__ = ["BACKENDS", "Backend", "TorchBackend", "device_of", "open_backend"]

Tell = Callable[[str], None]

BACKENDS = ("auto", "onnx", "torch")


def _silent(_: str) -> None:
    """Tell nobody."""


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
            float32 on the CPU: ``[n, 1]`` in the target's unit, or logits ``[n, classes]``; what has their softmax and
            their largest number in the same place, as logarithms of probabilities, will do. A row's numbers must not
            depend on the rows beside it.
        """


class TorchBackend:
    """The run's own model, computed as ``stoker predict`` computes it, to the last bit.

    Args:
        run: The run.
    """

    name: Literal["torch"] = "torch"

    def __init__(self, run: Run) -> None:
        self._model = run.artifact.model
        self._outputs = run.ready()

    def predict(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._outputs(encoded_inputs(self._model, inputs))


def open_backend(name: str, run: Run, *, folder: Path | None = None, tell: Tell = _silent) -> Backend:
    """Make the backend of a name.

    Args:
        name: One of :data:`BACKENDS`; ``auto`` is ``torch``: its numbers are those of ``stoker predict`` to the last
            bit, it needs nothing else installed, and it serves every run.
        run: What it computes; for ``onnx`` on the CPU.
        folder: See :func:`stoker.serving.onnx_file.checked_model`.
        tell: Told what takes a while.

    Raises:
        UnknownNameError: There is no such backend.
        MissingExtraError: What it needs is not installed.
        ExportError: The run cannot be exported to ONNX.
        RunError: The run is damaged.
        ConfigError: The number of threads that the environment says is none.
    """
    if name not in BACKENDS:
        raise UnknownNameError("--backend", name, BACKENDS)
    if name != "onnx":
        return TorchBackend(run)
    from stoker.serving.onnx_backend import OnnxBackend, thread_count
    from stoker.serving.onnx_file import checked_model

    threads = thread_count()
    return OnnxBackend(checked_model(run, folder, tell), run.artifact.recipe.kind, threads)


def device_of(backend: str, device: str) -> str:
    """Where a backend computes, when the user said ``device``.

    Raises:
        ConfigError: It does not compute there.
    """
    if backend != "onnx" or device in ("auto", "cpu"):
        return "cpu" if backend == "onnx" else device
    fix = "Leave it out, or take --backend torch."
    raise ConfigError("--device", "must be cpu for --backend onnx", device, fix)
