"""Load an exported file and answer with it, in a process of its own that knows nothing of Stoker.

This file is run as a script, and imports no more than whoever uses the exported file would:

    python -P loader.py KIND FILE ROWS.npz ANSWERS.npz SECONDS

KIND says how the file is loaded: ``onnx``, ``torch-export``, ``aoti``, ``torchscript``, ``state-dict`` or
``safetensors``. The rows are arrays by input name, in order. The answers are arrays, of each output at each batch
size, and ``timings``: seconds to load, seconds of a call with one row, rows a second in batches of 256. With 0 SECONDS
nothing is timed.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["LARGE", "SIZES", "main", "save", "timed"]

SIZES = (1, 2, 7, 64)
LARGE = 256
Rows = dict[str, "np.ndarray[Any, Any]"]
Answer = Callable[[Rows], "tuple[np.ndarray[Any, Any], ...]"]


def _onnx(file: str) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def answer(rows: Rows) -> tuple[np.ndarray[Any, Any], ...]:
        # texts come as objects, which could not be written without pickle
        outputs = (np.asarray(output) for output in session.run(None, rows))
        return tuple(output.astype(str) if output.dtype == object else output for output in outputs)

    return answer


def _of_torch(call: Callable[..., Any]) -> Answer:
    import torch

    def answer(rows: Rows) -> tuple[np.ndarray[Any, Any], ...]:
        with torch.inference_mode():
            outputs = call(*(torch.from_numpy(values) for values in rows.values()))
        return tuple(output.numpy() for output in (outputs if isinstance(outputs, (tuple, list)) else (outputs,)))

    return answer


def _torch_export(file: str) -> Answer:
    import torch

    return _of_torch(torch.export.load(file).module())


def _aoti(file: str) -> Answer:
    import torch

    return _of_torch(torch._inductor.aoti_load_package(file))


def _torchscript(file: str) -> Answer:
    import torch

    return _of_torch(torch.jit.load(file))  # type: ignore[no-untyped-call]


PROGRAMS: dict[str, Callable[[str], Answer]] = {
    "onnx": _onnx,
    "torch-export": _torch_export,
    "aoti": _aoti,
    "torchscript": _torchscript,
}


def _tensors(kind: str, file: str) -> Rows:
    import torch

    if kind == "safetensors":
        from safetensors.torch import load_file

        state = load_file(file)
    else:
        state = torch.load(file, weights_only=True)["state_dict"]
    # as bytes, since numpy does not have all of torch's types
    return {name: tensor.contiguous().reshape(-1).view(torch.uint8).numpy() for name, tensor in state.items()}


def timed(answer: Callable[[Any], Any], rows: Any, seconds: float) -> float:
    """Seconds of a call: the least mean of five parts, after calls that warm it up."""
    for _ in range(3):
        answer(rows)
    best = float("inf")
    for _ in range(5):
        calls, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds / 5 or calls == 0:
            answer(rows)
            calls += 1
        best = min(best, spent / max(calls, 1))
    return best


def save(path: str, arrays: Rows) -> None:
    """What ``numpy.savez`` does, whatever the arrays are called, and never with a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)


def main(kind: str, file: str, rows_file: str, answers_file: str, seconds: float) -> None:
    """See the top of the file."""
    with np.load(rows_file, allow_pickle=False) as stored:
        rows = {name: stored[name] for name in stored.files}
    answers: dict[str, np.ndarray[Any, Any]] = {}
    if kind not in PROGRAMS:
        save(answers_file, _tensors(kind, file))
        return
    importlib.import_module("onnxruntime" if kind == "onnx" else "torch")  # whose time is not the file's
    began = time.perf_counter()
    answer = PROGRAMS[kind](file)
    loaded = time.perf_counter() - began
    count = len(next(iter(rows.values())))
    for size in SIZES:
        parts = [
            answer({name: values[start : start + size] for name, values in rows.items()})
            for start in range(0, count, size)
        ]
        for place, outputs in enumerate(zip(*parts, strict=True)):
            answers[f"{size}.{place}"] = np.concatenate(outputs)
    latency = throughput = float("nan")
    if seconds > 0:
        one = {name: values[:1] for name, values in rows.items()}
        many = {name: np.resize(values, (LARGE, *values.shape[1:])) for name, values in rows.items()}
        latency, throughput = timed(answer, one, seconds), LARGE / timed(answer, many, seconds)
    answers["timings"] = np.array([loaded, latency, throughput])
    save(answers_file, answers)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], float(sys.argv[5]))
