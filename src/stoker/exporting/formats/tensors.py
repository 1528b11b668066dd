"""The network's weights alone, under the names of its ``state_dict``, for plain PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stoker.data.encoder import TableEncoder
from stoker.exporting.check import Tolerance
from stoker.exporting.formats.base import Format, Options, Subject
from stoker.models.assembly import Rescale
from stoker.models.own import OwnNetwork
from stoker.runs.artifact import Artifact

__all__ = ["SAFETENSORS", "STATE_DICT", "around_network", "plain_network", "plain_state"]


def plain_network(artifact: Artifact) -> torch.nn.Module:
    """The network without Stoker around it: the user's own module, or one of Stoker's."""
    network = artifact.model.head.network
    return network.module if isinstance(network, OwnNetwork) else network


def plain_state(artifact: Artifact) -> dict[str, Tensor]:
    """Its ``state_dict``, each tensor with memory of its own."""
    return {name: value.detach().cpu().clone() for name, value in plain_network(artifact).state_dict().items()}


def hyperparameters(artifact: Artifact) -> dict[str, Any]:
    """What the network is constructed with: a user's class's arguments, or the settings of one of Stoker's."""
    recipe = artifact.recipe
    if isinstance(artifact.model.head.network, OwnNetwork):
        return dict(recipe.model["args"])
    spec = recipe.spec.model_dump(mode="json", exclude={"numeric_columns", "categorical_columns"})
    return {**recipe.model, "n_outputs": recipe.outputs, "spec": spec}


def around_network(artifact: Artifact) -> dict[str, Any]:
    """What is done before and after the network, which its weights do not say."""
    encoder, output = artifact.model.encoder, artifact.model.head.output
    before: dict[str, Any] = {"mean": encoder.mean.tolist(), "std": encoder.std.tolist()}  # type: ignore[operator]
    if isinstance(encoder, TableEncoder):
        before |= encoder.to_config()
    after = {"mean": output.mean.tolist(), "std": output.std.tolist()} if isinstance(output, Rescale) else None
    return {"hyper_parameters": hyperparameters(artifact), "encoder": before, "output": after}


def _write_pt(subject: Subject, path: Path, options: Options) -> None:
    del options
    saved = {"state_dict": plain_state(subject.artifact), "hyper_parameters": hyperparameters(subject.artifact)}
    torch.save(saved, path)


def _write_safetensors(subject: Subject, path: Path, options: Options) -> None:
    del options
    text = json.dumps(hyperparameters(subject.artifact))
    save_file(plain_state(subject.artifact), path, metadata={"format": "pt", "hyper_parameters": text})


STATE_DICT = Format(
    name="state-dict",
    suffix=".state-dict.pt",
    loader="state-dict",
    tolerance=Tolerance(0.0, 0.0),
    write=_write_pt,
    program=False,
)
SAFETENSORS = Format(
    name="safetensors",
    suffix=".safetensors",
    loader="safetensors",
    tolerance=Tolerance(0.0, 0.0),
    write=_write_safetensors,
    program=False,
)
