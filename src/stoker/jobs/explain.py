"""The training step of a job, looked at before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stoker.engines.explanation import Explanation
from stoker.jobs.config import build_config
from stoker.jobs.fit import job_trainer, load_sources, named_model
from stoker.jobs.prepare import prepare
from stoker.models.own import own_model

__all__ = ["explain"]


def explain(
    source: Any,
    *,
    config: str | Path | None = None,
    assignments: Sequence[str] = (),
    notify: Callable[[str], None] | None = None,
    **settings: Any,
) -> Explanation:
    """Say what each step of ``fit`` with the same arguments consists of; nothing is trained and nothing is kept.

    See :meth:`stoker.training.trainer.Trainer.explain`.

    Args:
        source: Anything that ``fit`` takes.
        config: A TOML file of settings, as for ``fit``.
        assignments: ``"training.lr=0.1"``, over everything else.
        notify: Told in words what the user should know of the data.
        **settings: Any setting by its short name, as for ``fit``.

    Returns:
        Operators by kind, where their time goes, and what keeps the step from being compiled.

    Raises:
        ConfigError: A setting is unknown, out of range, or does not fit the data.
        CheckError: The first batch shows that training would fail or be in vain.
        SourceNotFoundError: A source is not there.
        DataError: The data cannot be used as they are.
        OutOfMemoryError: A batch does not fit.

    Example:
        >>> print(explain("iris", hidden=(50, 40), optimizer="sgd"))
    """
    given = settings.get("model")
    if given is not None and not isinstance(given, str):
        settings["model"] = own_model(given).name
    known = build_config(config, settings, assignments)
    own = named_model(known, given)
    sources = {"train": source, "valid": known.data.valid, "test": known.data.test}
    loaded = load_sources(sources, known.data.target, known.data.skip_bad)
    ready = prepare(
        loaded["train"],
        known,
        valid=loaded.get("valid"),
        test=loaded.get("test"),
        own=own,
        notify=notify if notify is not None else _silent,
    )
    return job_trainer(ready).explain(ready.splits["train"], batch_size=ready.config.training.batch_size)


def _silent(_: str) -> None:
    """Tell nobody."""
