"""The Open Inference Protocol (V2) over HTTP: tensors by name, in and out.

Source: https://github.com/kserve/open-inference-protocol, ``specification/protocol/inference_rest.md``. A table's
columns are inputs of shape ``[n]`` or ``[n, 1]``: numbers as ``FP64`` (or any other kind of number), booleans as
``BOOL``, categories and times as ``BYTES``, which in JSON is text; ``null`` is missing. Images are one input,
``images``, ``UINT8``. Outputs: ``prediction``, and for classes ``probabilities``. A run never changes: there is one
version of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stoker.jobs.predictions import Predictions
from stoker.serving.images import ImageReader
from stoker.serving.problems import Problem
from stoker.serving.rows import parse_json
from stoker.serving.served import ServedModel, finite, plain_values

__all__ = ["VERSION", "check_name", "check_version", "infer_response", "metadata", "parse_infer"]

VERSION = "1"
"""Of a model: the one that there is."""

_NUMBERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64")
_KINDS = {"numeric": "FP64", "boolean": "BOOL"}
_OUTPUTS = ("prediction", "probabilities")


def metadata(model: ServedModel) -> dict[str, Any]:
    """What goes in and what comes out: ``$metadata_model_response``."""
    if isinstance(model.reader, ImageReader):
        inputs = [{"name": "images", "datatype": "UINT8", "shape": [-1, *model.reader.shape]}]
    else:
        inputs = [
            {"name": column["name"], "datatype": _KINDS.get(column["kind"], "BYTES"), "shape": [-1]}
            for column in model.columns()
        ]
    classes = len(model.run.classes)
    outputs: list[dict[str, Any]] = [
        {"name": "prediction", "datatype": "BYTES" if classes else "FP32", "shape": [-1]},
    ]
    if classes:
        outputs.append({"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]})
    platform = {"torch": "pytorch_stoker", "onnx": "onnx_onnxv1"}.get(model.backend.name, model.backend.name)
    return {"name": model.name, "versions": [VERSION], "platform": platform, "inputs": inputs, "outputs": outputs}


def check_name(name: str, model: ServedModel) -> None:
    """Make sure that a name is the model's.

    Raises:
        Problem: It is another.
    """
    if name != model.name:
        raise Problem(404, "unknown-model", f"model: must be {model.name!r}, got {name[:60]!r}.")


def check_version(version: str, model: ServedModel) -> None:
    """Make sure that a version is the model's.

    Raises:
        Problem: It is another.
    """
    if version != VERSION:
        text = f"version of {model.name!r}: must be {VERSION!r}, got {version[:60]!r}. It need not be named."
        raise Problem(404, "unknown-version", text)


def parse_infer(body: bytes, model: ServedModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read an ``$inference_request``.

    Returns:
        The model's raw tensors, and the request, for :func:`infer_response`.

    Raises:
        Problem: It is not a request of the protocol, or its tensors are not the model's.
    """
    request = parse_json(body)
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list):
        raise _refused("body", 'must be an object with a list "inputs"', "another")
    if "id" in request and not isinstance(request["id"], str):
        raise _refused("id", "must be text", repr(request["id"])[:40])
    _wanted(request, model)
    given: dict[str, dict[str, Any]] = {}
    for tensor in request["inputs"]:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str) or tensor["name"] in given:
            raise _refused("inputs", "must each have a name of its own", "another")
        given[tensor["name"]] = tensor
    if isinstance(model.reader, ImageReader):
        return {"images": _images(given, model.reader)}, request
    names = model.reader.columns.names
    lacking = [name for name in names if name not in given]
    if lacking:
        raise Problem(422, "missing-column", f"input {lacking[0]!r}: must be there, got none.", column=lacking[0])
    cells = {name: _column(given[name]) for name in names}
    counts = {len(values) for values in cells.values()}
    if len(counts) > 1:
        raise _refused("inputs", "must all have one number of rows", ", ".join(map(str, sorted(counts))))
    model.reader.check_count(counts.pop())
    return model.reader.read(cells), request


def infer_response(found: Predictions, request: dict[str, Any], model: ServedModel) -> dict[str, Any]:
    """Predictions as an ``$inference_response``, with the outputs that were asked for."""
    n = len(found.outputs)
    classes = len(found.classes)
    outputs = {}
    for name in _wanted(request, model):
        if name == "prediction":
            data = plain_values(found)
            outputs[name] = {"datatype": "BYTES" if classes else "FP32", "shape": [n], "data": data}
        else:
            flat = [finite(value) for value in found.probabilities.flatten().tolist()]
            outputs[name] = {"datatype": "FP32", "shape": [n, classes], "data": flat}
    answer: dict[str, Any] = {"model_name": model.name, "model_version": VERSION}
    if "id" in request:
        answer["id"] = request["id"]
    return answer | {"outputs": [{"name": name, **tensor} for name, tensor in outputs.items()]}


def _wanted(request: dict[str, Any], model: ServedModel) -> list[str]:
    known = _OUTPUTS if model.run.classes else _OUTPUTS[:1]
    outputs = request.get("outputs")
    if not outputs:
        return list(known)
    names: list[str] = []
    for output in outputs if isinstance(outputs, list) else [outputs]:
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in known:
            raise _refused("outputs", f"must be among {', '.join(known)}", repr(output)[:60])
        if name in names:  # else a small request could have the same numbers written any number of times
            raise _refused("outputs", "must each be another", f"{name} twice")
        names.append(name)
    return names


def _shape(tensor: dict[str, Any]) -> tuple[int, ...]:
    shape = tensor.get("shape")
    whole = isinstance(shape, list) and all(type(size) is int and 0 <= size < 1 << 31 for size in shape)
    if not whole or not shape:
        raise _refused(f"input {tensor['name']!r}", "must have a shape of whole numbers", repr(shape)[:60])
    return tuple(shape)


def _data(tensor: dict[str, Any], shape: tuple[int, ...]) -> list[Any]:
    """The elements in row-major order, be they given flat or nested as the shape says."""
    data = tensor.get("data")
    where = f"input {tensor['name']!r}"
    if not isinstance(data, list):
        raise _refused(where, "must have a list of data", type(data).__name__)
    for _ in shape[1:]:
        if not (data and all(isinstance(part, list) for part in data)):
            break
        data = [value for part in data for value in part]
    if len(data) != math.prod(shape):
        raise _refused(where, f"must have the {math.prod(shape):,} elements of its shape", f"{len(data):,}")
    return data


def _column(tensor: dict[str, Any]) -> list[Any]:
    name, shape, datatype = tensor["name"], _shape(tensor), tensor.get("datatype")
    if len(shape) > 2 or shape[1:] not in ((), (1,)):
        raise _refused(f"input {name!r}", "must have the shape [n] or [n, 1]", str(list(shape)))
    if datatype not in (*_NUMBERS, "BOOL", "BYTES"):
        raise _refused(f"input {name!r}", "must have a datatype of the protocol", repr(datatype)[:40])
    data = _data(tensor, shape)
    kinds = {"BOOL": bool, "BYTES": str}.get(datatype, (int, float))
    for row, value in enumerate(data):
        if value is not None and (not isinstance(value, kinds) or (kinds == (int, float) and isinstance(value, bool))):
            text = f"input {name!r}, row {row} (counting from 0): must be {datatype}, got {str(value)[:40]!r}."
            plain = value if isinstance(value, str | int | float) and finite(value) is not None else None
            raise Problem(422, "invalid-value", text, column=name, row=row, value=plain)
    return data


def _images(given: dict[str, dict[str, Any]], reader: ImageReader) -> Tensor:
    if "images" not in given:
        raise _refused("input 'images'", "must be there", "none")
    tensor = given["images"]
    shape = _shape(tensor)
    if shape[1:] != reader.shape or tensor.get("datatype") != "UINT8":
        wanted = f"must be UINT8 of the shape [n, {', '.join(map(str, reader.shape))}]"
        raise _refused("input 'images'", wanted, f"{str(tensor.get('datatype'))[:20]} {list(shape)}")
    reader.check_count(shape[0])
    data = _data(tensor, shape)
    if not all(type(value) is int and 0 <= value <= 255 for value in data):
        raise _refused("input 'images'", "must hold whole numbers from 0 to 255", "others")
    return torch.from_numpy(np.array(data, np.uint8).reshape(shape))


def _refused(where: str, rule: str, got: str) -> Problem:
    return Problem(422, "invalid-request", f"{where}: {rule}, got {got}.")
