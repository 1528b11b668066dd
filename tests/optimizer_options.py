"""The options of torch's optimizers that have a pure update: each switch that changes the formula, some together."""

from __future__ import annotations

from typing import Any

from torch import optim
from torch.optim import Optimizer

KINDS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "sgd": (optim.SGD, {}),
    "sgd-momentum": (optim.SGD, {"momentum": 0.9}),
    "sgd-dampening": (optim.SGD, {"momentum": 0.8, "dampening": 0.3}),
    "sgd-nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (optim.Adam, {}),
    "adam-amsgrad": (optim.Adam, {"amsgrad": True, "betas": (0.7, 0.9)}),
    "adam-decoupled": (optim.Adam, {"decoupled_weight_decay": True}),
    "adam-forgetful": (optim.Adam, {"betas": (0.3, 0.8), "eps": 1e-3}),  # lerp has another formula below β = ½
    "adamw": (optim.AdamW, {}),
    "adamw-amsgrad": (optim.AdamW, {"amsgrad": True}),
    "rmsprop": (optim.RMSprop, {}),
    "rmsprop-momentum": (optim.RMSprop, {"momentum": 0.9}),
    "rmsprop-centered": (optim.RMSprop, {"centered": True, "alpha": 0.9}),
    "rmsprop-both": (optim.RMSprop, {"centered": True, "momentum": 0.5}),
    "adagrad": (optim.Adagrad, {}),
    "adagrad-decay": (optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.3}),
    "nadam": (optim.NAdam, {}),
    "nadam-decoupled": (optim.NAdam, {"decoupled_weight_decay": True, "momentum_decay": 0.05}),
    "radam": (optim.RAdam, {}),
    "radam-decoupled": (optim.RAdam, {"decoupled_weight_decay": True, "betas": (0.9, 0.95)}),
    "radam-never": (optim.RAdam, {"betas": (0.9, 0.6)}),
    "adamax": (optim.Adamax, {"betas": (0.8, 0.9)}),
}
