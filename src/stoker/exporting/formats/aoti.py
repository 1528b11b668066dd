"""AOTInductor: the model compiled to machine code, which runs without Python."""

from __future__ import annotations

from pathlib import Path

import torch

from stoker.errors import ExportError
from stoker.exporting.check import Tolerance
from stoker.exporting.formats.base import Format, Options, Subject, failed
from stoker.exporting.formats.torch_export import exported_program
from stoker.exporting.quiet import listening

__all__ = ["AOTI"]


def _write(subject: Subject, path: Path, options: Options) -> None:
    del options
    _require_compiler()
    program = exported_program(subject, "aoti")
    program.example_inputs = (subject.example, {})  # here they say what to compile for, and are not kept
    with listening() as heard:
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        except OSError:
            raise
        except Exception as error:
            raise failed("aoti", error, heard.text, "--format torch-export needs no compiling.") from error


def _require_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        fix = "Install one (apt install g++) or name it in the variable CXX; --format torch-export needs none."
        raise ExportError("--format aoti", "needs a C++ compiler", "none", fix) from None


AOTI = Format(
    name="aoti",
    suffix=".aoti.pt2",
    loader="aoti",
    tolerance=Tolerance(1e-5, 1e-4),
    write=_write,
)
