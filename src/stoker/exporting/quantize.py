"""8-bit ONNX: weights and activations as int8, with what that costs in accuracy, measured before and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stoker.data.dataset import Task
from stoker.errors import ExportError
from stoker.exporting.fresh import Answers, ask
from stoker.exporting.quiet import listening
from stoker.exporting.rows import Real
from stoker.exporting.runtime import import_onnxruntime
from stoker.metrics.metric_set import MetricSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_LOST", "apart", "drift", "measured", "quantize_int8", "refuse_if_worse"]

CALIBRATION_ROWS = 512
MOST_LOST = 0.05
HELD_OUT = {
    "test": "the test split",
    "valid": "the validation split",
    "train": "the training rows",
    "rows": "the rows that were named",
}
QUANTIZED = ("MatMul", "Gemm", "Conv")


def quantize_int8(path: Path, rows: dict[str, Tensor]) -> None:
    """Put an int8 model in the place of a float one: static quantization, its ranges taken from rows.

    Ranges that are fixed, unlike dynamic ones, make a row's answer independent of the rows beside it. Weights have a
    scale for each output channel. The encoder stays in float64, and so its numbers exact.

    Args:
        path: The ONNX file.
        rows: What ranges are taken from, by input name; see :func:`apart`.

    Raises:
        ExportError: There is nothing to quantize, or ONNX Runtime refuses.
    """
    import onnx

    import_onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    count = len(next(iter(rows.values())))
    places = torch.arange(min(count, CALIBRATION_ROWS)) * count // max(1, min(count, CALIBRATION_ROWS))

    class Rows(CalibrationDataReader):  # type: ignore[misc]  # which has no types
        def __init__(self) -> None:
            self.left: Iterator[dict[str, NDArray[Any]]] = iter(
                [{name: values[places].numpy() for name, values in rows.items()}]
            )

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.left, None)

    made = path.with_name(f"int8-{path.name}")
    with listening() as heard:
        try:
            quantize_static(
                str(path),
                str(made),
                Rows(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
            kinds = {node.op_type for node in onnx.load(str(made)).graph.node}
        except OSError:
            raise
        except Exception as error:
            refused = ExportError("--quantize int8", "ONNX Runtime must take the model", str(error).strip()[:240])
            refused.log = heard.text
            raise refused from error
    if "QuantizeLinear" not in kinds:
        rule = f"needs an operator to quantize ({', '.join(QUANTIZED)})"
        raise ExportError("--quantize int8", rule, "none in this model", "Leave --quantize out.")
    made.replace(path)


def apart(real: Real) -> tuple[dict[str, Tensor], Real, str]:
    """Rows to take ranges from, and others to measure on.

    Returns:
        Training rows, by input name, and the real rows; or, where no training rows beside those are known, every second
        of the real rows and the others; and in words which it is.

    Raises:
        ExportError: There is one row alone.
    """
    if real.training is not None and real.held_out != "train":
        return real.training, real, f"training rows; measured on {HELD_OUT[real.held_out]}"
    count = len(next(iter(real.inputs.values())))
    if count < 2:
        fix = "Name more: --rows SOURCE."
        raise ExportError("--quantize int8", "needs one row to take ranges from and another to measure on", count, fix)
    assert real.targets is not None  # the caller has checked
    first, second = ({name: values[start::2] for name, values in real.inputs.items()} for start in (0, 1))
    told = f"every second of {HELD_OUT[real.held_out]}; measured on the others"
    numbers = None if real.numbers is None else real.numbers[1::2]
    return first, replace(real, inputs=second, targets=real.targets[1::2], numbers=numbers), told


def measured(path: Path, real: Real, task: Task, n_classes: int) -> tuple[dict[str, float], Answers]:
    """The accuracy, or the root mean squared error, of an ONNX file on rows with targets; in a fresh process."""
    assert real.targets is not None  # the caller has checked
    answers = ask("onnx", path, real.inputs)
    outputs = torch.from_numpy(answers.by_size[max(answers.by_size)][0])
    name = "rmse" if task == "regression" else "accuracy"
    metrics = MetricSet([name], task, n_classes)
    if task == "regression":
        metrics.update(outputs[:, None], real.targets)
    else:
        metrics.update(outputs.clamp(min=torch.finfo(torch.float32).tiny).log(), real.targets)
    return metrics.compute(), answers


def drift(got: dict[int, tuple[Any, ...]], want: dict[int, tuple[Any, ...]]) -> dict[str, Any]:
    """How far an int8 file's answers are from the model's, by batch size, on the rows that are compared.

    Returns:
        ``largest_difference`` of a number that is finite in both and, for a classification, ``changed_classes``: how
        many rows have another class on top, in the largest batches.
    """
    largest = 0.0
    for size, expected in want.items():
        apart = np.abs(got[size][0].astype(np.float64) - expected[0].astype(np.float64))
        largest = max(largest, float(apart[np.isfinite(apart)].max(initial=0.0)))
    found: dict[str, Any] = {"largest_difference": largest}
    size = max(want)
    if len(want[size]) > 1:
        found["changed_classes"] = int((got[size][1] != want[size][1]).sum())
    return found


def refuse_if_worse(before: dict[str, float], after: dict[str, float]) -> None:
    """Refuse what lost too much: 0.05 of the accuracy, or 5 % of a root mean squared error.

    Raises:
        ExportError: It did.
    """
    (name, was), now = next(iter(before.items())), next(iter(after.values()))
    worse = was - now if name == "accuracy" else (now - was) / max(abs(was), 1e-30)
    if not worse <= MOST_LOST:
        rule = f"must cost at most {MOST_LOST:g} of the {name}"
        rule = rule if name == "accuracy" else f"must cost at most {MOST_LOST:.0%} of the {name}"
        fix = "This model loses too much as int8; leave --quantize out."
        raise ExportError("--quantize int8", rule, f"{name} {now:.5g} after {was:.5g}", fix)
