"""Wide & Deep networks: a linear path for simple rules beside a deep one, trained together."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from stoker.data.schema import Schema
from stoker.errors import ConfigError, UnknownNameError
from stoker.models.inputs import TableInput, TableSpec, hidden_layers
from stoker.models.layers import ACTIVATIONS, MOST_LAYERS, Activation
from stoker.settings import Settings

__all__ = ["TableWideAndDeep", "WideAndDeep", "WideDeepConfig", "check_columns"]


def _column_names(value: object) -> object:
    if value == "all" or (isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value)):
        return value
    raise ValueError("must be 'all' or a list of one column name or more")


ColumnNames = Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_column_names)]


class WideDeepConfig(Settings):
    """Settings of a Wide & Deep network.

    Attributes:
        wide: The columns of the table that go straight to the output, ``"all"`` or their names.
        deep: The columns that go through the hidden layers; a column may go both ways.
        hidden: The width of each hidden layer.
        activation: After each hidden layer; a name out of :data:`stoker.models.layers.ACTIVATIONS`.
        dropout: The part of each hidden layer's outputs that is dropped while training, in ``[0, 1)``.
        aux_weight: The share of the loss, in ``[0, 1)``, that an auxiliary output of the deep path has while training,
            which makes the deep path learn something of its own. 0 for no such output.
    """

    name: Literal["wide-deep"] = "wide-deep"
    wide: ColumnNames = "all"
    deep: ColumnNames = "all"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=MOST_LAYERS)] = (128, 64)
    activation: Activation = "relu"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    aux_weight: Annotated[float, Field(ge=0, lt=1)] = 0.0


class WideAndDeep(nn.Module):
    r""":math:`W \, [x_\mathrm{wide}, h(x_\mathrm{deep})] + b`, where :math:`h` are the hidden layers.

    The wide path keeps simple rules as they are, which a deep path alone has to find again through all its layers.
    Source: Cheng et al. (2016), Wide & Deep Learning for Recommender Systems, arXiv:1606.07792, equation 3.

    Args:
        n_wide: How many numbers go straight to the output.
        n_deep: How many go through the hidden layers.
        n_outputs: 1 for regression, the number of classes for classification.
        hidden: The width of each hidden layer.
        activation: After each hidden layer; a name out of :data:`stoker.models.layers.ACTIVATIONS`.
        dropout: The part of each hidden layer's outputs that is dropped while training, in ``[0, 1)``.
        auxiliary: Give the deep path an output of its own, :math:`W' h(x_\mathrm{deep}) + b'`, in training mode.

    Raises:
        ConfigError: There is no deep input or no hidden layer, or a width is out of range.
        UnknownNameError: No activation has that name.

    Example:
        >>> model = WideAndDeep(5, 6, hidden=(50, 40), auxiliary=True)
        >>> parts = {"main": Loss("mse", weight=0.8), "aux": Loss("mse", weight=0.2, train_only=True)}
        >>> Trainer(model, parts).fit(({"X_wide": X[:, :5], "X_deep": X[:, 2:]}, y))
    """

    def __init__(
        self,
        n_wide: int,
        n_deep: int,
        n_outputs: int = 1,
        *,
        hidden: Iterable[int] = (128, 64),
        activation: str = "relu",
        dropout: float = 0.0,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        widths = tuple(hidden)
        least = {"n_wide": (n_wide, 0), "n_deep": (n_deep, 1), "n_outputs": (n_outputs, 1)}
        least |= {f"hidden[{place}]": (width, 1) for place, width in enumerate(widths)}
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise ConfigError(name, f"must be {lowest} or more", value)
        if not widths:
            raise ConfigError("hidden", "must have at least one layer", "none", "Without any, use a linear model.")
        if activation not in ACTIVATIONS:
            raise UnknownNameError("activation", activation, ACTIVATIONS)
        if not 0 <= dropout < 1:
            raise ConfigError("dropout", "must be from 0 up to, not including, 1", dropout)
        layers, last = hidden_layers(n_deep, widths, activation, dropout)
        self.deep = nn.Sequential(*layers)
        self.output = nn.Linear(n_wide + last, n_outputs)
        self.aux_output = nn.Linear(last, n_outputs) if auxiliary else None

    def forward(self, X_wide: Tensor, X_deep: Tensor) -> Tensor | dict[str, Tensor]:
        """``X_wide`` float32 ``[n, n_wide]``, ``X_deep`` float32 ``[n, n_deep]`` → ``[n, n_outputs]``.

        In training mode with an auxiliary output it is ``{"main": …, "aux": …}``, each ``[n, n_outputs]``.
        """
        deep = self.deep(X_deep)
        main: Tensor = self.output(torch.cat([X_wide, deep], dim=1))
        if self.aux_output is None or not self.training:
            return main
        return {"main": main, "aux": self.aux_output(deep)}


class TableWideAndDeep(nn.Module):
    """:class:`WideAndDeep` of a table's columns.

    Categories are embedded for the deep path. For the wide path each has a weight for each output, as if it were
    one-hot, which is looked up instead of multiplied by zeros and a one.

    Args:
        config: Which columns go where, widths, activation, dropout.
        spec: The table's columns.
        n_outputs: 1 for regression, the number of classes for classification.

    Raises:
        UnknownNameError: A name is not one of the columns.
    """

    def __init__(self, config: WideDeepConfig, spec: TableSpec, n_outputs: int) -> None:
        super().__init__()
        self.wide = _Selection(spec, config.wide, "model.wide")
        self.deep = _Selection(spec, config.deep, "model.deep")
        self.input = TableInput(self.deep.spec)
        self.code_weights = nn.ModuleList(nn.Embedding(size, n_outputs) for size in self.wide.spec.cardinalities)
        for weights in self.code_weights.parameters():
            nn.init.zeros_(weights)  # a category says nothing until training has taught it something
        self.paths = WideAndDeep(
            self.wide.spec.n_numeric,
            self.input.width,
            n_outputs,
            hidden=config.hidden,
            activation=config.activation,
            dropout=config.dropout,
            auxiliary=config.aux_weight > 0,
        )

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """See :class:`stoker.models.inputs.TableInput` for the inputs, :class:`WideAndDeep` for the outputs."""
        deep = self.input(self.deep.numbers(numeric), self.deep.codes(categorical))
        wide, codes = self.wide.numbers(numeric), self.wide.codes(categorical)
        outputs: Tensor | dict[str, Tensor] = self.paths(deep.new_empty(len(deep), 0) if wide is None else wide, deep)
        if codes is None:
            return outputs
        rules = torch.stack([weights(c) for weights, c in zip(self.code_weights, codes.unbind(1), strict=True)]).sum(0)
        return outputs | {"main": outputs["main"] + rules} if isinstance(outputs, dict) else outputs + rules


class _Selection:
    """The encoded features that are made from some columns of a table.

    Args:
        spec: The table's columns.
        names: Which; or ``"all"``.
        where: What they are named in, for an error.

    Attributes:
        spec: What is selected.
    """

    def __init__(self, spec: TableSpec, names: Collection[str], where: str) -> None:
        everything = names == "all"
        known = dict.fromkeys((*spec.numeric_columns, *spec.categorical_columns))
        for name in () if everything else names:
            if name not in known:
                raise UnknownNameError(where, name, known)
        self._numbers = _ranges(
            place for place in range(spec.n_numeric) if everything or spec.numeric_columns[place] in names
        )
        self._codes = _ranges(
            place for place in range(len(spec.cardinalities)) if everything or spec.categorical_columns[place] in names
        )
        self.spec = TableSpec(
            n_numeric=sum(part.stop - part.start for part in self._numbers),
            cardinalities=tuple(size for part in self._codes for size in spec.cardinalities[part]),
        )

    def numbers(self, numeric: Tensor | None) -> Tensor | None:
        """Float32 ``[n, all]`` → ``[n, selected]``; ``None`` if none is."""
        return _cut(numeric, self._numbers)

    def codes(self, categorical: Tensor | None) -> Tensor | None:
        """Int64 ``[n, all]`` → ``[n, selected]``; ``None`` if none is."""
        return _cut(categorical, self._codes)


def _ranges(places: Iterable[int]) -> list[slice]:
    """Rising places as ranges: columns that are neighbours are then a view, and need no copy."""
    ranges: list[slice] = []
    for place in places:
        if ranges and ranges[-1].stop == place:
            ranges[-1] = slice(ranges[-1].start, place + 1)
        else:
            ranges.append(slice(place, place + 1))
    return ranges


def _cut(features: Tensor | None, ranges: list[slice]) -> Tensor | None:
    if features is None or not ranges:
        return None
    parts = [features[:, columns] for columns in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def check_columns(config: WideDeepConfig, schema: Schema, used: Collection[str]) -> list[str]:
    """Make sure that the columns named for the paths are there, and say in which nothing goes.

    Args:
        config: Which columns go where.
        schema: All columns of the table.
        used: Those that are made into features.

    Returns:
        The columns that are made into features, but go neither way.

    Raises:
        UnknownNameError: The table has no such column; the nearest is suggested.
        ConfigError: It is the target, or is left out.
    """
    reasons = {column.name: column.reason for column in schema.columns if column.kind == "ignored"}
    for path, names in {"wide": config.wide, "deep": config.deep}.items():
        for name in () if names == "all" else names:
            if name in used:
                continue
            fix = f"Leave it out of --{path}."
            if schema.target is not None and name == schema.target.name:
                raise ConfigError(f"model.{path}", "must name columns to learn from", f"{name!r}, the target", fix)
            if name in reasons or any(column.name == name for column in schema.columns):
                why = reasons.get(name, "it has one value in all rows to train on")
                raise ConfigError(
                    f"model.{path}", "must name columns that are used", f"{name!r}, left out because: {why}", fix
                )
            raise UnknownNameError(f"model.{path}", name, used)
    if "all" in (config.wide, config.deep):
        return []
    return [name for name in used if name not in {*config.wide, *config.deep}]
