"""``torch.export``: the model as a graph of ATen operators, in PyTorch's ``.pt2`` archive."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from stoker.exporting.check import Tolerance
from stoker.exporting.formats.base import Format, Options, Subject, failed
from stoker.exporting.quiet import listening

__all__ = ["TORCH_EXPORT", "exported_program"]


def exported_program(subject: Subject, name: str) -> ExportedProgram:
    """The model as a graph for batches of any size.

    Raises:
        ExportError: It cannot be one.
    """
    batch = Dim("batch", min=0)
    shapes = {value: {0: batch} for value in subject.rows}
    with listening() as heard:
        try:
            with torch.no_grad():
                program = torch.export.export(subject.module, subject.example, dynamic_shapes=shapes)
        except Exception as error:
            raise failed(name, error, heard.text) from error
    program.example_inputs = None  # which are kept as a pickle, and are the user's rows
    for kept in (program.state_dict, program.constants):
        for key, value in kept.items():
            if isinstance(value, torch.Tensor) and value.numel() == 0:
                # An empty view of something, as files of weights give it, is taken for a part of what is not there.
                kept[key] = torch.empty(value.shape, dtype=value.dtype)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # where in whose files it was traced
    return program


def _write(subject: Subject, path: Path, options: Options) -> None:
    del options
    program = exported_program(subject, "torch-export")
    with listening() as heard:
        try:
            torch.export.save(program, path, extra_files={"contract.json": subject.contract})
        except OSError:
            raise
        except Exception as error:
            raise failed("torch-export", error, heard.text) from error


TORCH_EXPORT = Format(
    name="torch-export",
    suffix=".pt2",
    loader="torch-export",
    tolerance=Tolerance(1e-6, 1e-5),
    write=_write,
)
