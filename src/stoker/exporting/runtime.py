"""ONNX Runtime, told to report nothing: its packages from 1.29 on send what they run to Microsoft, unless told not to.

Source: ``docs/Privacy.md`` of ONNX Runtime. It looks at the environment when it is imported, and never again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

__all__ = ["import_onnxruntime", "silent"]

_VARIABLE = "ORT_DISABLE_TELEMETRY"


def silent(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which ONNX Runtime reports nothing, unless the user has said otherwise there.

    Args:
        environment: Of a process that imports it.
    """
    return {**environment, _VARIABLE: environment.get(_VARIABLE) or "1"}


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, told to be silent.

    Raises:
        ImportError: It is not installed.
    """
    os.environ.update(silent(os.environ))
    import onnxruntime

    return onnxruntime
