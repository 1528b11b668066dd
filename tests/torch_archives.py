"""Archives as ``torch.save`` writes them, with whatever in them: for tests of what reads such files."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from typing import Any


def as_torch(pickled: bytes, **records: bytes) -> bytes:
    """An archive as torch.save writes it, with any pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("w/data.pkl", pickled)
        archive.writestr("w/byteorder", "little")
        for name, record in records.items():
            archive.writestr(f"w/data/{name}", record)
        archive.writestr("w/version", "3\n")
    return buffer.getvalue()


def lying(numel: int, size: tuple[int, ...], stride: tuple[int, ...], record: bytes = b"\0" * 16) -> bytes:
    """A state dict whose one tensor says of itself what it likes."""
    import torch

    class Storage:
        def __reduce__(self) -> Any:
            raise AssertionError  # it goes by persistent_id

    class Tensor:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, size, stride, False, collections.OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if isinstance(obj, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"layers.0.weight": Tensor()})
    return as_torch(buffer.getvalue(), **{"0": record})
