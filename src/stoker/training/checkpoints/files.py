"""A folder of checkpoints, each a safetensors file: tensors, and in the header's metadata the rest as JSON.

One file, so that a checkpoint is there as a whole or not at all: written under a temporary name, flushed, renamed. Its
digest covers every byte that is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stoker.atomic import leads_out, write_atomic
from stoker.errors import CheckpointError
from stoker.tensors import BadTensorsError, read_tensors
from stoker.training.checkpoints.tree import pack, unpack

__all__ = ["checkpoint_paths", "newest", "read_checkpoint", "remove_checkpoints", "write_checkpoint"]

FORMAT = "1"
NAME = re.compile(r"step-(\d{1,18})\.safetensors")


def checkpoint_paths(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest (that of most updates) first; empty if there is no such folder."""
    try:
        found = [(int(match[1]), path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        fix = "Look at its permissions."
        raise CheckpointError(str(folder), "must be readable", error.strerror or error, fix) from None
    return [path for _, path in sorted(found, reverse=True)]


def write_checkpoint(folder: Path, step: int, value: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint, then remove those that are too many.

    Args:
        folder: Where to; made if need be.
        step: Updates made. A checkpoint of as many is replaced; those of more are of another course of events, which
            ended before this one, and are removed.
        value: What is to be kept, by name; see :func:`stoker.training.checkpoints.tree.pack`.
        keep: How many are to remain.

    Raises:
        CheckpointError: The value holds something that cannot be kept, or the folder cannot be written.
        DiskFullError: There is no room; the checkpoints before it are still there.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(value, tensors, "state"), allow_nan=False)
    tensors = _apart(tensors)
    metadata = {"stoker-checkpoint": FORMAT, "state": text, "digest": _digest(text, tensors)}
    path = folder / f"step-{step:010d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        fix = "Choose another folder for checkpoints."
        raise CheckpointError(str(folder), "must be a folder to write to", error.strerror or error, fix) from None
    paths = checkpoint_paths(folder)
    if path not in paths:  # another process that writes here is behind, and has removed it already
        return path
    place = paths.index(path)
    with suppress(OSError):
        for other in (*paths[:place], *paths[place + keep :], *folder.glob(".tmp-*-step-*.safetensors")):
            other.unlink(missing_ok=True)
    return path


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, those that look at one memory copied: safetensors does not take them."""
    found: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return found


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """BLAKE2b over the JSON and each tensor's name, dtype, shape and bytes."""
    state = hashlib.blake2b(text.encode(), digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, of which nothing is taken for granted.

    Raises:
        CheckpointError: It is damaged, not there, or of another format.
    """
    try:
        if leads_out(path, path.parent):
            raise CheckpointError(str(path), "must be a file in its folder", "a link out of it")
        metadata, found = read_tensors(path)
        # cloned: what it gives may look at the file, and lie in memory otherwise than what torch allocates
        tensors = {name: tensor.clone() for name, tensor in found.items()}
    except OSError as error:
        raise CheckpointError(str(path), "must be readable", error.strerror or error) from None
    except BadTensorsError as error:
        raise CheckpointError(str(path), "must be a whole safetensors file", error) from None
    if metadata.get("stoker-checkpoint") != FORMAT:
        got = repr(metadata.get("stoker-checkpoint"))
        raise CheckpointError(str(path), f"must be a checkpoint of format {FORMAT}", got)
    text = metadata.get("state", "")
    if _digest(text, tensors) != metadata.get("digest"):
        raise CheckpointError(str(path), "must have the contents that were written", "others")
    try:
        value = unpack(json.loads(text), tensors)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(str(path), "must hold JSON", error) from None
    if not isinstance(value, dict):
        raise CheckpointError(str(path), "must hold values by name", type(value).__name__)
    return value


def newest(folder: Path, notify: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole; ``None`` if the folder has none at all.

    Args:
        folder: Where they are.
        notify: Told of each that was passed over, and why.

    Raises:
        CheckpointError: There are some, but none is whole.
    """
    paths = checkpoint_paths(folder)
    for place, path in enumerate(paths):
        try:
            value = read_checkpoint(path)
        except CheckpointError as error:
            notify(f"passed over a checkpoint that is damaged: {error}")
            continue
        if place:
            notify(f"going on from the one before: {path}")
        return path, value
    if paths:
        fix = "Restore the folder from a copy, or start the training anew."
        raise CheckpointError(str(folder), "must have a checkpoint that is whole", f"{len(paths)} damaged", fix)
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove a folder's checkpoints, and the folder if nothing else is in it."""
    with suppress(OSError):
        for path in (*checkpoint_paths(folder), *folder.glob(".tmp-*-step-*.safetensors")):
            path.unlink(missing_ok=True)
        folder.rmdir()
