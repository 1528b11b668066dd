"""Pictures of a run, and its HTML report: ``stoker.report(run)`` is :func:`stoker.report.html.page.report`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

__all__: list[str] = []


class _Room(ModuleType):
    """This module, which can be called: once it is imported, ``stoker.report`` is the room and not the function."""

    def __call__(self, *runs: Any, **settings: Any) -> Path:
        from stoker.report.html.page import report

        return report(*runs, **settings)


sys.modules[__name__].__class__ = _Room
