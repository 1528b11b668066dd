"""What a study asks: objective, space and direction, of the settings of ``fit`` or of a function of the user's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker.data.dataset import ImageSet
from stoker.errors import ConfigError, InputTypeError
from stoker.jobs.config import build_config, raw_settings
from stoker.metrics.registry import direction as metric_direction
from stoker.settings import read_toml
from stoker.tuning.objectives import BuildObjective, FitObjective, OwnObjective
from stoker.tuning.settings import check_space, default_space, placed
from stoker.tuning.space import Space, parse_space
from stoker.tuning.study import Direction

__all__ = ["Asked", "Question", "of_function", "of_source"]

Notify = Callable[[str], None]
PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Asked:
    """What was asked for, whatever is tuned.

    Attributes:
        metric, direction, pruner, seed: See :func:`stoker.tuning.tune.tune`.
        tell: Told what the user should know.
    """

    metric: str | None
    direction: Direction | None
    pruner: str | None
    seed: int | None
    tell: Notify

    @property
    def name(self) -> str:
        """The metric, without the ``valid_`` that some write before it."""
        return (self.metric or "loss").removeprefix("valid_")

    def settled(self) -> Direction:
        """The direction that the metric has."""
        better: Direction = "minimize" if metric_direction(self.name) == "min" else "maximize"
        if self.direction not in (None, better):
            fix = "Leave --direction out: it follows from the metric."
            raise ConfigError("--direction", f"must be {better} for {self.name}", self.direction, fix)
        return better


@dataclass(frozen=True)
class Question:
    """What a study asks.

    Attributes:
        objective: What a trial is.
        seed: Of the sampler.
        space: What is tried; ``None`` where the objective says it.
        direction: Which values are better.
        name: The study's, if it is given no other.
        about: What must be the same for whoever joins.
    """

    objective: FitObjective | BuildObjective | OwnObjective
    seed: int
    space: Space | None
    direction: Direction
    name: str
    about: dict[str, Any]


def of_source(
    source: Any,
    space: Space | Mapping[str, Any] | None,
    asked: Asked,
    valid: Any,
    test: Any,
    config: str | Path | None,
    assignments: Sequence[str],
    settings: dict[str, Any],
) -> Question:
    """A study of the settings of ``fit``.

    Args:
        source: See :func:`stoker.tuning.tune.tune`, as of all that follow.
        space: What is tried.
        asked: What was asked for.
        valid: A split's own source.
        test: Likewise.
        config: A file of settings.
        assignments: Settings as text.
        settings: Settings by name.

    Raises:
        UnknownNameError: A parameter or a setting is not known.
        ConfigError: A setting is out of range, or cannot be tuned.
        DataError: The data cannot be used.
    """
    file = {} if config is None else read_toml(Path(config))
    declared = file.pop("space", None)
    if declared is not None and not isinstance(declared, Mapping):
        raise ConfigError("space", "must be a table of parameters", repr(declared), "Begin it with [space].")
    model = settings.get("model")
    if model is not None and not isinstance(model, str):
        from stoker.models.own import own_model

        settings["model"] = own_model(model).name
    else:
        model = None
    raw = raw_settings(file, settings | {"seed": asked.seed}, assignments)
    known = build_config(raw)
    direction = asked.settled()
    space = declared if space is None else space
    chosen = None if space is None else space if isinstance(space, Space) else parse_space(space)
    placed(dict.fromkeys(chosen or ()))  # unknown names are told before the data are read
    objective = FitObjective(source, raw, chosen, asked.name, valid=valid, test=test, model=model)
    images = isinstance(objective.load()["train"], ImageSet)
    if chosen is None:
        chosen = default_space(known, raw, images=images)
        objective.space = chosen
    check_space(chosen, raw, asked.name, default_model="cnn" if images else "mlp")
    data = objective.begin(asked.tell)
    shared = known.model_dump(mode="json")
    for local in ("device", "engine"):
        shared["training"].pop(local)  # may differ from machine to machine
    about = {
        "source": data.provenance.fingerprint,
        "metric": asked.name,
        "settings": shared,
        "space": json.loads(json.dumps(chosen.to_dict())),
    }
    # The splits that have a source of their own.
    about |= {name: one.provenance.fingerprint for name, one in objective.load().items() if name != "train"}
    return Question(objective, known.training.seed, chosen, direction, f"{data.provenance.name}-tune", about)


def of_function(
    function: Callable[..., Any],
    space: Space | Mapping[str, Any] | None,
    asked: Asked,
    args: Sequence[Any],
    settings: dict[str, Any],
    told: dict[str, Any],
) -> Question:
    """A study of the user's own Trainer or function.

    Args:
        function: ``build(params)`` if there is a space, else ``objective(trial, *args)``.
        space: What is tried.
        asked: What was asked for.
        args: For an objective.
        settings: For :meth:`stoker.Trainer.fit`.
        told: ``train``, ``valid``, and what is not for a function, by name.

    Raises:
        ConfigError: Something is given that means nothing here.
        InputTypeError: A function that builds a Trainer has no data.
    """
    for name in ("config", "test"):
        if told[name] is not None:
            raise ConfigError(name, "is for a source of data", "a function of your own", "Leave it out.")
    name = str(getattr(function, "__name__", type(function).__name__)).strip("<>")
    if space is None:
        for setting in [*settings, *(one for one in ("train", "valid") if told[one] is not None)]:
            fix = "Pass what it needs as args."
            raise ConfigError(setting, "means nothing for an objective of your own", repr(setting), fix)
        if asked.metric is not None:
            raise ConfigError("metric", "is what an objective of your own returns", asked.metric, "Leave it out.")
        reports = asked.pruner not in (None, "none")
        own = OwnObjective(function, args, reports=reports)
        return Question(
            own,
            asked.seed or 0,
            None,
            asked.direction or "minimize",
            name,
            {"objective": name, "seed": asked.seed or 0},
        )
    chosen = space if isinstance(space, Space) else parse_space(space)
    if told["train"] is None or told["valid"] is None:
        raise InputTypeError("tune", "needs train and valid for a function that builds a Trainer", "none", "Pass both.")
    build = BuildObjective(function, chosen, asked.name, train=told["train"], valid=told["valid"], fit=settings)
    about = {
        "build": name,
        "metric": asked.name,
        "seed": asked.seed or 0,
        "settings": {name: value for name, value in settings.items() if isinstance(value, PLAIN)},
        "space": json.loads(json.dumps(chosen.to_dict())),
    }
    return Question(build, asked.seed or 0, chosen, asked.settled(), name, about)
