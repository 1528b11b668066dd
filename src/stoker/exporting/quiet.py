"""Exporters talk a lot: warnings, logs and printed graphs. It is all kept, for when something goes wrong."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field

__all__ = ["Heard", "listening"]


@dataclass
class Heard:
    """What was said.

    Attributes:
        warnings: In order.
        printed: What was printed or logged.
    """

    warnings: list[warnings.WarningMessage] = field(default_factory=list)
    printed: io.StringIO = field(default_factory=io.StringIO)

    @property
    def text(self) -> str:
        """All of it."""
        lines = [f"{one.filename}:{one.lineno}: {one.category.__name__}: {one.message}" for one in self.warnings]
        return "\n".join([*lines, self.printed.getvalue()])


@contextmanager
def listening() -> Iterator[Heard]:
    """Keep what libraries say in the block, and from the terminal."""
    heard = Heard()
    handler = logging.StreamHandler(heard.printed)
    root = logging.getLogger()
    quiet = [(logger, logger.handlers[:], logger.propagate) for logger in _talkative()]
    for logger, _, _ in quiet:
        logger.handlers, logger.propagate = [handler], False
    root.addHandler(handler)
    others = [other for other in root.handlers if other is not handler]
    for other in others:
        root.removeHandler(other)
    try:
        with warnings.catch_warnings(record=True) as caught, redirect_stdout(heard.printed):
            warnings.simplefilter("always")
            heard.warnings = caught
            with redirect_stderr(heard.printed):
                yield heard
    finally:
        root.removeHandler(handler)
        for other in others:
            root.addHandler(other)
        for logger, handlers, propagate in quiet:
            logger.handlers, logger.propagate = handlers, propagate


def _talkative() -> list[logging.Logger]:
    """The loggers that have a handler of their own, as torch's have."""
    known = (logger for logger in logging.Logger.manager.loggerDict.values() if isinstance(logger, logging.Logger))
    return [logger for logger in known if logger.handlers and logger.name.startswith(("torch", "onnx"))]
