"""A run's checked ONNX export as a backend: ONNX Runtime on the CPU, with as many threads as the server shall have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stoker.errors import ConfigError, ExportError
from stoker.exporting.runtime import import_onnxruntime
from stoker.jobs.blocks import Blocks, block_rows

__all__ = ["OnnxBackend", "log_probabilities", "thread_count"]

_CPU = torch.device("cpu")
_MOST_THREADS = 1024
_OUTPUTS = (["prediction"], ["probabilities", "class"])


class OnnxBackend:
    """A model in ONNX, computed by ONNX Runtime.

    It is computed in blocks of one size, as the run's own model is (:mod:`stoker.jobs.blocks`), so that a row's numbers
    do not depend on the rows beside it.

    Args:
        content: The bytes of the file, as :func:`stoker.exporting.current.read_current` gives them.
        kind: ``table`` or ``images``.
        threads: How many compute; see :func:`thread_count`.

    Raises:
        ExportError: It is no such file.
    """

    name: Literal["onnx"] = "onnx"

    def __init__(self, content: bytes, kind: str, threads: int) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait in a loop for the next request would take the processors from who reads it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever kind of its own it has
            raise _refused("ONNX Runtime must load the run's export", " ".join(str(error).split())[:200]) from None
        self._rows = block_rows(kind, _CPU)
        self._outputs = [output.name for output in self._session.get_outputs() if output.name != "label"]
        if self._outputs not in _OUTPUTS:
            raise _refused("the run's export must have its outputs", ", ".join(self._outputs)[:200])

    def predict(self, inputs: dict[str, Tensor]) -> Tensor:
        """Compute outputs: ``[n, 1]``, or the logarithms of probabilities; see :meth:`Backend.predict`."""
        blocks = Blocks(inputs, self._rows, _CPU)
        parts = [self._block(block) for block, _ in blocks.epoch(0)]
        numbers, *classes = (torch.from_numpy(np.concatenate(part)[: blocks.n]) for part in zip(*parts, strict=True))
        return log_probabilities(numbers, classes[0]) if classes else numbers[:, None]

    def _block(self, block: Any) -> list[Any]:
        given = {name: values.numpy() for name, values in block.items()}
        try:
            found: list[Any] = self._session.run(self._outputs, given)
        except Exception as error:
            raise _refused("ONNX Runtime must compute the run's export", " ".join(str(error).split())[:200]) from None
        return found


def _refused(rule: str, got: str) -> ExportError:
    return ExportError("--backend onnx", rule, got, "Export the run again, or take --backend torch.")


def log_probabilities(probabilities: Tensor, classes: Tensor) -> Tensor:
    """What can stand for logits: the softmax of it is the probabilities, its largest number is the class's.

    Where rounding made one number of two probabilities, the class, which was found before, is put above the other by
    the smallest difference that there is.

    Args:
        probabilities: float32 ``[n, classes]``.
        classes: int64 ``[n]``, the most probable one of each row.

    Returns:
        float32 ``[n, classes]``.
    """
    logits = probabilities.log()
    highest, places = logits.max(dim=1)
    rows = (places != classes).logical_and(highest.isfinite()).nonzero()[:, 0]
    above = torch.nextafter(highest[rows], torch.full_like(highest[rows], torch.inf))
    logits[rows, classes[rows]] = above
    return logits


def thread_count(environment: Mapping[str, str] | None = None) -> int:
    """How many threads a server's ONNX Runtime has: ``OMP_NUM_THREADS``, as torch; where that is not set, one.

    ONNX Runtime's own default, all cores, is meant for a process that is alone with them. A server has workers.

    Args:
        environment: By default the process's own.

    Raises:
        ConfigError: The variable is no such number.
    """
    said = (os.environ if environment is None else environment).get("OMP_NUM_THREADS", "").strip()
    first = said.partition(",")[0].strip()  # what follows is for teams of threads within teams
    if not said:
        return 1
    if not (first.isdecimal() and first.isascii() and 1 <= int(first) <= _MOST_THREADS):
        rule = f"must be a number of threads from 1 to {_MOST_THREADS}"
        raise ConfigError("OMP_NUM_THREADS", rule, repr(said[:40]), "Unset it for one.")
    return int(first)
