"""The formats, one file each, behind one protocol; here they are by name."""

from __future__ import annotations

from stoker.exporting.formats.aoti import AOTI
from stoker.exporting.formats.base import Format, Options, Subject
from stoker.exporting.formats.onnx import ONNX
from stoker.exporting.formats.tensors import SAFETENSORS, STATE_DICT
from stoker.exporting.formats.torch_export import TORCH_EXPORT
from stoker.exporting.formats.torchscript import SCRIPT, TRACE

__all__ = ["FORMATS", "Format", "Options", "Subject"]

FORMATS: dict[str, Format] = {
    made.name: made for made in (ONNX, TORCH_EXPORT, AOTI, TRACE, SCRIPT, STATE_DICT, SAFETENSORS)
}
