"""Presets: named bundles of settings, for who wants a good model before knowing which settings make one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.errors import ConfigError, UnknownNameError
from stoker.settings import merge

__all__ = ["PRESETS", "with_preset"]

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "best": {
        "model": {
            "name": "mlp",
            "numeric_embedding": "piecewise-linear",
            "embedding_width": 12,
            "bins": 128,
            "hidden": (256, 256),
            "dropout": 0.3,
            "norm": "layer",
        },
        "training": {
            "epochs": 100,
            "batch_size": 256,
            "optimizer": "adamw",
            "lr": 0.001,
            "weight_decay": 0.01,
            "patience": 16,
        },
    },
}
"""By name. ``best`` is for tables: piecewise-linear bins of each number, layer norm, dropout, training until epochs no
longer improve. Chosen on validation splits of California housing, diabetes, breast cancer and wine; what it gains is
measured by ``benchmarks/preset.py``.
"""

DEPENDENT = {
    ("model", "name"): None,
    ("training", "optimizer"): ("lr", "momentum", "weight_decay", "optimizer_settings"),
    ("training", "schedule"): ("schedule_settings",),
}
"""Choices, and what of their group was meant for the choice alone; ``None``: all of it."""


def with_preset(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Settings laid over those of the preset that they name, if they name one.

    Where a choice differs from the preset's, such as another model or another optimizer, what the preset says about its
    own choice is left out with it.

    Args:
        raw: Settings by group, ``{"preset": "best", "training": {"lr": 0.01}}``.

    Raises:
        UnknownNameError: There is no such preset.
        ConfigError: It is no name.
    """
    name = raw.get("preset")
    if name is None:
        return dict(raw)
    if not isinstance(name, str):
        raise ConfigError("preset", "must be a name", repr(name), f"Known: {', '.join(PRESETS)}.")
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    preset = {group: dict(settings) for group, settings in PRESETS[name].items()}
    for (group, choice), dependent in DEPENDENT.items():
        mine = raw.get(group)
        chosen = mine.get(choice) if isinstance(mine, Mapping) else None
        if chosen not in (None, preset[group].get(choice)):
            for setting in list(preset[group]) if dependent is None else dependent:
                preset[group].pop(setting, None)
    data = raw.get("data")
    if isinstance(data, Mapping) and data.get("valid_size") == 0 and data.get("valid") is None:
        preset["training"].pop("patience", None)  # there is nothing to be patient about
    return merge(preset, raw)
