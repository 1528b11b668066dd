"""A training's numbers as event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoker.training.loggers.logger import Logger, required

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

    from stoker.training.history import History

__all__ = ["TensorBoardLogger"]

FLUSH_SECONDS = 10


class TensorBoardLogger(Logger):
    """Writes event files that ``tensorboard --logdir DIRECTORY`` draws while training goes on.

    Scalars: see :class:`stoker.training.loggers.logger.Logger`. Besides, the plan of the training and ``params`` as a
    table (the text ``plan``), how it ended (the text ``end``), what made the steps and why (the text ``engine``), and,
    for the HParams tab, ``params`` beside ``best/…``.

    Needs the extra ``tensorboard``.

    Args:
        directory: Where to; made if need be. One for each training: files that are there already are added to.
        every: Of how many updates one is logged; reading a loss waits for the device.
        params: Numbers, truth values or texts by name, such as ``{"hidden": 50}``.
        text: Texts in Markdown by name, for the Text tab.

    Raises:
        MissingExtraError: TensorBoard is not installed.
        ConfigError: ``every`` is no count.

    Example:
        >>> trainer.fit(train, valid, callbacks=[TensorBoardLogger("logs/first")])
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        every: int = 50,
        params: Mapping[str, Any] | None = None,
        text: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(every, params)
        required("TensorBoardLogger", "tensorboard", "tensorboard")
        self.directory = Path(directory)
        self._text = dict(text or {})
        self._writer: SummaryWriter | None = None

    def _place(self) -> str:
        return str(self.directory)

    def _open(self, params: dict[str, Any], *, continued: bool) -> None:  # noqa: ARG002  # another file, beside the first
        self._writer = self._new_writer()
        rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in params.items()]
        self._writer.add_text("plan", "\n".join(["| | |", "| --- | --- |", *rows]))
        for name, content in self._text.items():
            self._writer.add_text(name, content)
        self._writer.flush()

    def _new_writer(self) -> SummaryWriter:
        from torch.utils.tensorboard.writer import SummaryWriter

        return SummaryWriter(str(self.directory), flush_secs=FLUSH_SECONDS)

    def _write(self, values: dict[str, float], at: int) -> None:
        assert self._writer is not None  # it is open
        for name, value in values.items():
            self._writer.add_scalar(name, value, at)

    def _close(self, history: History, best: dict[str, float]) -> None:
        writer, self._writer = self._writer, None
        assert writer is not None
        try:
            writer.add_text("end", f"{history.stopped}; best epoch: {history.best_epoch}")
            writer.add_text("engine", history.engine)
            plain = {
                name: value if isinstance(value, (bool, int, float, str)) else str(value)
                for name, value in self._params.items()
            }
            writer.add_hparams(plain, best, run_name=".", global_step=history.best_epoch)
        finally:
            writer.close()

    def _record(self, values: dict[str, float]) -> None:
        with self._new_writer() as writer:
            for name, value in values.items():
                writer.add_scalar(name, value)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
