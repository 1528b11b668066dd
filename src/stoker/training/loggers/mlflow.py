"""A training as a run in MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stoker.training.history import StopReason
from stoker.training.loggers.logger import Logger, required

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    from stoker.training.history import History

__all__ = ["MLflowLogger"]

# "running" is how a history stands that an error ended.
STATUS: dict[StopReason, str] = {
    "finished": "FINISHED",
    "patience": "FINISHED",
    "callback": "FINISHED",
    "interrupted": "KILLED",
    "non-finite": "FAILED",
    "running": "FAILED",
    "imported": "FINISHED",
}
SEND_EVERY = 2.0  # seconds; a request may take longer than an epoch of a small network
MOST_METRICS = 1000  # that MLflow takes in one request
MOST_PARAMS = 100  # likewise


class MLflowLogger(Logger):
    """Makes an MLflow run of each training: metrics, parameters, and in the end its status.

    Metrics: see :class:`stoker.training.loggers.logger.Logger`; they are sent every two seconds and at the end. The
    plan of the training and ``params`` become the run's parameters; ``stopped``, ``best_epoch`` and ``engine_reason``
    (what made the steps, and why) its tags. The status is ``FINISHED``, ``KILLED`` after Ctrl-C, and ``FAILED`` where
    an error or a loss that is not finite ended it.

    It keeps to a run of its own: one that ``mlflow.start_run`` began is left alone. Needs the extra ``mlflow``; for
    logging to a server, the package ``mlflow-skinny`` does.

    Args:
        experiment: Its name; made if need be. By default as MLflow is configured: ``MLFLOW_EXPERIMENT_NAME``, or the
            experiment ``Default``.
        run_name: By default MLflow makes one up.
        tracking_uri: Such as ``"http://localhost:5000"`` or ``"sqlite:///mlflow.db"``. By default as MLflow is
            configured: ``MLFLOW_TRACKING_URI``, or a database in the current directory.
        every: Of how many updates one is logged; reading a loss waits for the device.
        params: What else becomes a parameter of the run, by name.
        tags: Of the run, by name.

    Raises:
        MissingExtraError: MLflow is not installed.
        ConfigError: ``every`` is no count.

    Attributes:
        run_id: Of the last run begun, or ``None``.

    Example:
        >>> trainer.fit(train, valid, callbacks=[MLflowLogger(experiment="housing")])
    """

    def __init__(
        self,
        *,
        experiment: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        every: int = 50,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(every, params)
        mlflow = required("MLflowLogger", "mlflow", "mlflow")
        self.tracking_uri: str = tracking_uri or mlflow.get_tracking_uri()
        self.run_id: str | None = None
        self._experiment = experiment
        self._run_name = run_name
        self._tags = {name: str(value) for name, value in (tags or {}).items()}
        self._client: MlflowClient | None = None
        self._waiting: list[Metric] = []
        self._due = 0.0

    def _place(self) -> str:
        return f"MLflow at {self.tracking_uri}"

    def _open(self, params: dict[str, Any], *, continued: bool) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=self.tracking_uri)
        self._waiting.clear()
        self._due = time.monotonic() + SEND_EVERY
        if continued and self.run_id is not None:
            self._client.update_run(self.run_id, status="RUNNING")
            return  # its parameters are there, and MLflow lets none change
        run = self._client.create_run(self._experiment_id(self._client), tags=self._tags, run_name=self._run_name)
        self.run_id = run.info.run_id
        try:
            for part in _parts([Param(name, str(value)) for name, value in params.items()], MOST_PARAMS):
                self._client.log_batch(self.run_id, params=part)
        except Exception:
            self._client.set_terminated(self.run_id, "FAILED")
            raise

    def _experiment_id(self, client: MlflowClient) -> str:
        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
        found = client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else client.create_experiment(name))

    def _write(self, values: dict[str, float], at: int) -> None:
        self._waiting += _metrics(values, at)
        if time.monotonic() >= self._due:
            self._send()

    def _send(self) -> None:
        assert self._client is not None
        assert self.run_id is not None
        waiting, self._waiting = self._waiting, []
        for part in _parts(waiting, MOST_METRICS):
            self._client.log_batch(self.run_id, metrics=part)
        self._due = time.monotonic() + SEND_EVERY

    def _close(self, history: History, best: dict[str, float]) -> None:
        assert self._client is not None
        assert self.run_id is not None
        self._waiting += _metrics(best, history.best_epoch)
        try:
            self._send()
            self._client.set_tag(self.run_id, "stopped", history.stopped)
            self._client.set_tag(self.run_id, "best_epoch", str(history.best_epoch))
            self._client.set_tag(self.run_id, "engine_reason", history.engine)
        finally:
            self._client.set_terminated(self.run_id, STATUS[history.stopped])

    def _record(self, values: dict[str, float]) -> None:
        self._waiting = _metrics(values, 0)
        self._send()


def _metrics(values: Mapping[str, float], at: int) -> list[Metric]:
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    return [Metric(name, float(value), now, at) for name, value in values.items()]


def _parts(items: list[Any], most: int) -> Iterable[list[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]
