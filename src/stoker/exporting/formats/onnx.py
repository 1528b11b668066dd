"""ONNX, for ONNX Runtime and others: labels come out as text beside the class's number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stoker.errors import ExportError
from stoker.exporting.check import Tolerance
from stoker.exporting.formats.base import Format, Options, Subject, failed
from stoker.exporting.quiet import listening
from stoker.exporting.runtime import import_onnxruntime

__all__ = ["ONNX", "optimized"]

LARGEST = 2_000_000_000  # bytes: what one protobuf message holds


def _write(subject: Subject, path: Path, options: Options) -> None:
    import onnx

    size = sum(tensor.nbytes for tensor in subject.module.state_dict().values())
    if size > LARGEST:
        fix = "Use --format torch-export."
        raise ExportError("--format onnx", "one file holds at most 2 GB", f"{size / 1e9:.1f} GB of weights", fix)
    with listening() as heard:
        try:
            with torch.no_grad():
                made = torch.onnx.export(
                    subject.module,
                    subject.example,
                    dynamo=True,
                    dynamic_shapes={name: {0: "batch"} for name in subject.rows},
                    output_names=subject.signature.outputs,
                    verbose=False,
                )
            assert made is not None  # as it is given no file
            model: Any = made.model_proto
            _forget_places(model)
            _add_labels(model, subject.artifact.recipe.classes)
            onnx.helper.set_model_props(model, {"stoker.contract": subject.contract})
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:
            raise failed("onnx", error, heard.text) from error
    path.write_bytes(model.SerializeToString())
    if options.optimize:
        optimized(path)


def _add_labels(model: Any, classes: tuple[str, ...]) -> None:
    """``label = labels[class]``: ONNX has texts."""
    from onnx import TensorProto, helper

    if not classes:
        return
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    constant = next(name for name in ("labels", "stoker.labels") if name not in taken)
    texts: Any = [name.encode() for name in classes]  # for which its types have no place
    model.graph.initializer.append(helper.make_tensor(constant, TensorProto.STRING, [len(texts)], texts))
    model.graph.node.append(helper.make_node("Gather", [constant, "class"], ["label"], name="label"))
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.STRING, ["batch"]))


def _forget_places(model: Any) -> None:
    """Take out where in whose files each operator was traced, which is nobody's business and most of a small file."""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        for part in (graph, *graph.node, *graph.value_info):
            del part.metadata_props[:]
        for node in graph.node:
            node.ClearField("doc_string")
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]


def optimized(path: Path) -> None:
    """Have ONNX Runtime put its optimised graph in the place of a file: for it alone, but for any CPU."""
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.log_severity_level = 3
    made = path.with_name(f"optimized-{path.name}")
    settings.optimized_model_filepath = str(made)
    onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    made.replace(path)


ONNX = Format(
    name="onnx",
    suffix=".onnx",
    loader="onnx",
    tolerance=Tolerance(1e-5, 1e-4),
    write=_write,
    packages=("onnx", "onnxscript", "onnxruntime"),
    optimizes=True,
    quantizes=True,
)
