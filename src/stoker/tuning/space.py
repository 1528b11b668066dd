"""Search spaces: what is tried, declared in Python or TOML, suggested by a trial, or listed as a grid."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, TypeAlias

from stoker.errors import ConfigError, InputTypeError, UnknownNameError

if TYPE_CHECKING:
    import optuna

__all__ = ["Categorical", "Float", "Int", "Layers", "Parameter", "Space", "parse_space"]

When: TypeAlias = "Mapping[str, Any] | None"
Choose: TypeAlias = "Callable[[str, Float | Int | Categorical], Any]"
GRID_LIMIT = 100_000
EXAMPLE = 'Such as lr = { low = 1e-5, high = 1e-1, log = true }, or activation = ["relu", "gelu"].'


@dataclass(frozen=True)
class Float:
    """A number from ``low`` to ``high``, both among them.

    Args:
        low: The least.
        high: The largest.
        log: Draw its logarithm evenly, as for learning rates.
        step: Only ``low``, ``low + step``, …
        when: Only where other parameters have these values: ``{"optimizer": "sgd"}``; a list means any of them.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: When = None

    def check(self, where: str) -> None:
        """Find what is wrong with it.

        Raises:
            ConfigError: The range is empty, or its settings do not fit together.
        """
        _check_range(where, self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        """Its value in this trial."""
        if self.step is None:
            return trial.suggest_float(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.values(name)[-1], step=self.step)

    def values(self, name: str) -> list[float]:
        """All of them, for a grid.

        Raises:
            ConfigError: They cannot be counted: it has no ``step``.
        """
        if self.step is None:
            fix = "Give it a step, or a list of choices, or use another sampler."
            raise ConfigError(f"space.{name}", "must be countable for a grid", f"{self.low} to {self.high}", fix)
        low, high, step = (Decimal(str(value)) for value in (self.low, self.high, self.step))  # 0.3 is three times 0.1
        return [float(low + place * step) for place in range(int((high - low) // step) + 1)]

    @property
    def ends(self) -> tuple[float, ...]:
        """The values at its ends, by which it is tried out whether they are valid."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Int:
    """A whole number from ``low`` to ``high``, both among them; see :class:`Float`."""

    low: int
    high: int
    log: bool = False
    step: int = 1
    when: When = None

    def check(self, where: str) -> None:
        """See :meth:`Float.check`.

        Raises:
            ConfigError: A limit or the step is no whole number, or the range is empty.
        """
        for value in (self.low, self.high, self.step):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(where, "must have whole numbers for low, high and step", repr(value), "Use Float.")
        _check_range(where, self.low, self.high, log=self.log, step=None if self.step == 1 else self.step)

    def suggest(self, trial: optuna.Trial, name: str) -> int:
        """Its value in this trial."""
        high = self.low + (self.high - self.low) // self.step * self.step
        return trial.suggest_int(name, self.low, high, step=self.step, log=self.log)

    def values(self, name: str) -> list[int]:  # noqa: ARG002  # as the others have it
        """All of them, for a grid."""
        return list(range(self.low, self.high + 1, self.step))

    @property
    def ends(self) -> tuple[int, ...]:
        """See :attr:`Float.ends`."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Categorical:
    """One of some choices: numbers, text, true or false, ``None``, or lists of these.

    Args:
        choices: What there is to choose from.
        when: See :class:`Float`.
    """

    choices: Sequence[Any]
    when: When = None

    def check(self, where: str) -> None:
        """See :meth:`Float.check`.

        Raises:
            ConfigError: There is no choice, one is there twice, or one could not be kept as JSON.
        """
        if isinstance(self.choices, str) or not isinstance(self.choices, Sequence):
            raise ConfigError(where, "must have a list of choices", repr(self.choices), EXAMPLE)
        if not self.choices:
            raise ConfigError(where, "must have at least one choice", "none", EXAMPLE)
        labels = []
        for choice in self.choices:
            try:
                labels.append(json.dumps(choice, allow_nan=False))
            except (TypeError, ValueError):
                rule = "must choose among finite numbers, text, true or false, and lists of these"
                raise ConfigError(where, rule, repr(choice)) from None
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ConfigError(where, "must not have a choice twice", twice, "Leave one out.")

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Its value in this trial; in the study a list stands as its JSON text."""
        by_label = {_label(choice): choice for choice in self.choices}
        return by_label[trial.suggest_categorical(name, list(by_label))]

    def values(self, name: str) -> list[Any]:  # noqa: ARG002
        """All of them, for a grid."""
        return list(self.choices)

    @property
    def ends(self) -> tuple[Any, ...]:
        """All choices."""
        return tuple(self.choices)


@dataclass(frozen=True)
class Layers:
    """The widths of hidden layers: how many there are, then the width of each.

    In the study they are ``<name>.layers``, ``<name>.width_1``, ``<name>.width_2``, …; a width is only tried where
    there is such a layer.

    Args:
        layers: How many.
        width: Of each.
        when: See :class:`Float`.
    """

    layers: Int
    width: Int | Categorical
    when: When = None

    def check(self, where: str) -> None:
        """See :meth:`Float.check`.

        Raises:
            ConfigError: A part is wrong, or there could be fewer than no layers.
        """
        self.layers.check(f"{where}.layers")
        self.width.check(f"{where}.width")
        if self.layers.low < 0:
            raise ConfigError(f"{where}.layers", "must have a low of 0 or more", self.layers.low)

    def choose(self, name: str, choose: Choose) -> list[Any]:
        """The widths, each part chosen by ``choose(name, part)``."""
        count = choose(f"{name}.layers", self.layers)
        return [choose(f"{name}.width_{place}", self.width) for place in range(1, count + 1)]


Parameter: TypeAlias = Float | Int | Categorical | Layers


class Space:
    """Parameters by name.

    Args:
        parameters: Each of them; those that others depend on (``when``) are suggested first, else in this order.

    Raises:
        InputTypeError: One is no parameter.
        ConfigError: One is empty or contradicts itself, they depend on each other in a circle, or there is none.
        UnknownNameError: One depends on a parameter that is not there; the nearest is suggested.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        if not parameters:
            raise ConfigError("space", "must have at least one parameter", "none", EXAMPLE)
        for name, parameter in parameters.items():
            given: object = parameter
            if not isinstance(given, Parameter):
                fix = "Use stoker.Float, Int, Categorical or Layers."
                raise InputTypeError(f"space.{name}", "must be a parameter", type(parameter).__name__, fix)
            parameter.check(f"space.{name}")
            for other in parameter.when or {}:
                if other not in parameters:
                    others = [known for known in parameters if known != name]
                    raise UnknownNameError(f"space.{name}.when", other, others)
                _check_condition(f"space.{name}.when.{other}", (parameter.when or {})[other], parameters[other])
        before = {name: list(parameter.when or {}) for name, parameter in parameters.items()}
        try:
            order = list(TopologicalSorter(before).static_order())
        except CycleError as error:
            circle = " on ".join(error.args[1])
            raise ConfigError("space", "parameters must not depend on each other in a circle", circle) from None
        ready = {name: parameters[name] for name in parameters if not before[name]}
        self.parameters: dict[str, Parameter] = ready | {name: parameters[name] for name in order if before[name]}

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The values of a trial: name to value, without those whose condition does not hold."""
        return self.walk(lambda name, parameter: parameter.suggest(trial, name))

    def walk(self, choose: Choose) -> dict[str, Any]:
        """The values where each is chosen by ``choose(name, parameter)``; see :class:`Layers` for the names."""
        values: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if not _holds(parameter.when, values):
                continue
            values[name] = parameter.choose(name, choose) if isinstance(parameter, Layers) else choose(name, parameter)
        return values

    def points(self) -> list[dict[str, Any]]:
        """Every combination there is, by the names that the study has for the parameters.

        Raises:
            ConfigError: A parameter cannot be counted, or there are more than 100,000.
        """
        found: list[dict[str, Any]] = []
        prefix: list[int] = []
        while True:
            taken: list[tuple[int, int]] = []
            point: dict[str, Any] = {}
            self.walk(_following(prefix, taken, point))
            found.append(point)
            if len(found) > GRID_LIMIT:
                raise ConfigError("space", f"a grid must not have more than {GRID_LIMIT:,} points", "more")
            while taken and taken[-1][0] + 1 == taken[-1][1]:
                taken.pop()
            if not taken:
                return found
            prefix = [index for index, _ in taken]
            prefix[-1] += 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as :func:`parse_space` reads them and as a study remembers them."""
        return {name: _plain(parameter) for name, parameter in self.parameters.items()}


def parse_space(raw: Mapping[str, Any]) -> Space:
    """Read a space as TOML has it, or as Python has it, or as a mixture.

    ``[1, 2]`` is a choice, ``{low = 1, high = 4}`` a range of whole numbers (of any numbers if one has a decimal
    point), ``{layers = {…}, width = {…}}`` layers; ``when``, ``log`` and ``step`` may stand beside. The tables
    ``data``, ``model`` and ``training`` hold parameters with dotted names.

    Raises:
        UnknownNameError: A word is not one of a parameter's.
        ConfigError: A parameter is not of these forms; or see :class:`Space`.
    """
    flat: dict[str, Any] = {}
    for name, value in raw.items():
        if name in {"data", "model", "training"} and isinstance(value, Mapping) and "choices" not in value:
            flat |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            flat[name] = value
    return Space({name: _parameter(f"space.{name}", value) for name, value in flat.items()})


def _parameter(where: str, raw: Any) -> Parameter:
    if isinstance(raw, Parameter):
        return raw
    if isinstance(raw, (list, tuple)):
        return Categorical(tuple(raw))
    if not isinstance(raw, Mapping):
        raise ConfigError(where, "must be a range or a list of choices", repr(raw), EXAMPLE)
    when = raw.get("when")
    if when is not None and not isinstance(when, Mapping):
        raise ConfigError(f"{where}.when", "must be values by name", repr(when), 'Such as { optimizer = "sgd" }.')
    if "choices" in raw:
        _only(where, raw, "choices", "when")
        return Categorical(raw["choices"], when)
    if "layers" in raw or "width" in raw:
        _only(where, raw, "layers", "width", "when")
        layers, width = (_parameter(f"{where}.{part}", raw.get(part)) for part in ("layers", "width"))
        if isinstance(layers, Int) and isinstance(width, (Int, Categorical)):
            return Layers(layers, width, when)
        raise ConfigError(where, "must have whole numbers of layers and of widths", repr(dict(raw)))
    _only(where, raw, "low", "high", "log", "step", "when")
    low, high, step, log = raw.get("low"), raw.get("high"), raw.get("step"), raw.get("log", False)
    for name, value in {"low": low, "high": high, "step": 1 if step is None else step}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{where}.{name}", "must be a number", "none" if value is None else repr(value), EXAMPLE)
    if not isinstance(log, bool):
        raise ConfigError(f"{where}.log", "must be true or false", repr(log))
    if isinstance(low, int) and isinstance(high, int) and (step is None or isinstance(step, int)):
        return Int(low, high, log, 1 if step is None else step, when)
    return Float(float(low or 0), float(high or 0), log, None if step is None else float(step), when)


def _only(where: str, raw: Mapping[str, Any], *known: str) -> None:
    for name in raw:
        if name not in known:
            raise UnknownNameError(where, str(name), known)


def _check_range(where: str, low: float, high: float, *, log: bool, step: float | None) -> None:
    for name, value in {"low": low, "high": high}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"{where}.{name}", "must be a finite number", repr(value))
    if low > high:
        raise ConfigError(where, "must not be empty: low must not be above high", f"{low} to {high}", "Swap them.")
    if log and low <= 0:
        raise ConfigError(where, "must be above 0 to be drawn by its logarithm", low, "Leave log out, or raise low.")
    if step is not None and log:
        raise ConfigError(where, "must have either log or step", "both", "Leave one out.")
    if step is not None and not step > 0:
        raise ConfigError(f"{where}.step", "must be above 0", step)


def _check_condition(where: str, wanted: Any, on: Parameter) -> None:
    """Raise an error where a condition can never hold."""
    if isinstance(on, Categorical):
        known = on.choices
        for one in [wanted] if wanted in known or not isinstance(wanted, (list, tuple)) else wanted:
            if one not in known:
                raise UnknownNameError(where, str(one), [str(choice) for choice in known])
    elif isinstance(on, (Int, Float)):
        for one in wanted if isinstance(wanted, (list, tuple)) else [wanted]:
            if isinstance(one, str) or not on.low <= one <= on.high:
                raise ConfigError(where, f"must be from {on.low} to {on.high}, as {where.rpartition('.')[2]} is", one)


def _holds(when: When, values: Mapping[str, Any]) -> bool:
    """Whether each value that is asked for is there; a parameter that is itself left out has none."""
    for name, wanted in (when or {}).items():
        if name not in values:
            return False
        several = isinstance(wanted, (list, tuple)) and not isinstance(values[name], (list, tuple))
        if values[name] not in (wanted if several else [wanted]):
            return False
    return True


def _following(prefix: Sequence[int], taken: list[tuple[int, int]], point: dict[str, Any]) -> Choose:
    """Chooses by ``prefix`` and, behind it, the first of each; notes what it took of how many."""

    def choose(name: str, parameter: Float | Int | Categorical) -> Any:
        values = parameter.values(name)
        index = prefix[len(taken)] if len(taken) < len(prefix) else 0
        taken.append((index, len(values)))
        point[name] = _label(values[index]) if isinstance(parameter, Categorical) else values[index]
        return values[index]

    return choose


def _label(choice: Any) -> Any:
    """A choice as Optuna keeps it: plain values as they are, lists as JSON text."""
    return choice if choice is None or isinstance(choice, (bool, int, float, str)) else json.dumps(choice)


def _plain(parameter: Parameter) -> dict[str, Any]:
    when = {} if not parameter.when else {"when": dict(parameter.when)}
    match parameter:
        case Layers():
            return {"layers": _plain(parameter.layers), "width": _plain(parameter.width)} | when
        case Categorical():
            return {"choices": json.loads(json.dumps(list(parameter.choices)))} | when
        case _:
            plain: dict[str, Any] = {"low": parameter.low, "high": parameter.high}
            plain |= {"log": True} if parameter.log else {}
            return plain | ({"step": parameter.step} if parameter.step not in (None, 1) else {}) | when
