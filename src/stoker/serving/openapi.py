"""What OpenAPI is told of the bodies, with an example made from the schema."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from stoker.serving.images import ImageReader
from stoker.serving.oip import metadata
from stoker.serving.served import ServedModel

__all__ = ["PREDICT_HELP", "describe", "describe_infer"]

PREDICT_HELP = (
    "Predict rows or images. What cannot be read is answered with 422, and with the column, the row and the value at "
    "fault. With Accept: text/csv the answer is the CSV that stoker predict prints."
)

_PROBLEM = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        "error": {"type": "string", "description": "What is wrong, and what to do."},
        "code": {"type": "string", "description": "The same, for programs."},
        "column": {"type": "string"},
        "row": {"type": "integer", "description": "Counted from 0."},
        "value": {"description": "What was sent."},
    },
}
_LONGEST_EXAMPLE = 100  # values
_TYPES = {"numeric": "number", "boolean": "boolean"}


def describe(model: ServedModel) -> dict[str, Any]:
    """The body and the answers of ``/predict``."""
    if isinstance(model.reader, ImageReader):
        binary = {"schema": {"type": "string", "format": "binary"}}
        files = {"type": "array", "items": {"type": "string", "format": "binary"}}
        form = {"schema": {"type": "object", "properties": {"file": files}}}
        content: dict[str, Any] = {"image/png": binary, "image/jpeg": binary, "multipart/form-data": form}
        names = {"image": {"type": "string"}}
    else:
        example = model.example()
        content = {
            "application/json": {"schema": _rows(model), "example": example},
            "text/csv": {"schema": {"type": "string"}, "example": _csv(example)},
        }
        names = {}
    value = {"type": "string" if model.run.classes else "number"}
    row = {"type": "object", "properties": {**names, "prediction": value, "probabilities": {"type": "object"}}}
    answer = {"type": "object", "properties": {"predictions": {"type": "array", "items": row}}}
    problem = {"content": {"application/json": {"schema": _PROBLEM}}}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "Predictions.", "content": {"application/json": {"schema": answer}, "text/csv": {}}},
            "413": {"description": "Too large, or too many rows.", **problem},
            "415": {"description": "Another content type.", **problem},
            "422": {"description": "Rows that cannot be read.", **problem},
            "503": {"description": "Too much to do, or stopping.", **problem},
        },
    }


def describe_infer(model: ServedModel) -> dict[str, Any]:
    """The body of ``/v2/models/NAME/infer``."""
    inputs = [{**tensor, "shape": [1, *tensor["shape"][1:]], "data": []} for tensor in metadata(model)["inputs"]]
    example = model.example()
    for tensor in inputs:
        shape = tensor["shape"]
        tensor["data"] = [example[0][tensor["name"]]] if example else [0] * math.prod(shape)
    content: dict[str, Any] = {"schema": {"type": "object", "required": ["inputs"]}}
    if sum(len(tensor["data"]) for tensor in inputs) <= _LONGEST_EXAMPLE:
        content["example"] = {"inputs": inputs}
    problem = {"content": {"application/json": {"schema": _PROBLEM}}}
    return {
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {"422": {"description": "Tensors that cannot be read.", **problem}},
    }


def _rows(model: ServedModel) -> dict[str, Any]:
    columns = model.columns()
    properties = {column["name"]: _property(column) for column in columns}
    row = {"type": "object", "required": list(properties), "properties": properties}
    return {"type": "array", "items": row}


def _property(column: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {"type": [_TYPES.get(column["kind"], "string"), "null"]}
    if "range" in column:
        low, high = column["range"]
        about["description"] = f"From {low} to {high} in training; others are taken too."
        about["examples"] = [column["example"]]
    if "categories" in column:
        about["examples"] = column["categories"][:20]
    return about


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
