"""Every random number in Stoker comes from a generator derived from ``(seed, purpose)``.

Adding a metric, a progress bar or an evaluation therefore changes no other random number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["derive_seed", "generator", "preserved_randomness", "seed_globally"]


def derive_seed(seed: int, *purpose: str | int, bits: int = 63) -> int:
    """Derive an independent seed for one purpose.

    Args:
        seed: The user's seed.
        purpose: What the random numbers are for, such as ``("shuffle", epoch)``.
        bits: The size of the result; scikit-learn and NumPy take 32.

    Returns:
        An integer in ``[0, 2**bits)``: the BLAKE2b hash of the arguments. The same on every platform and version.
    """
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - bits)


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator seeded with :func:`derive_seed`."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


def seed_globally(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of ``device``, from which dropout draws, and no other device's."""
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type in {"cuda", "xpu"}:
        module = torch.get_device_module(device)
        with module.device(device):
            module.manual_seed(seed)


@contextmanager
def preserved_randomness(device: torch.device) -> Iterator[None]:
    """After this block torch's global generators, of the CPU and of ``device``, are as they were before it."""
    import torch

    module = torch.get_device_module(device) if device.type in {"mps", "cuda", "xpu"} else None
    of_device = () if device.type == "mps" else (device,)  # there is but one mps
    before = torch.get_rng_state()
    here = module.get_rng_state(*of_device) if module is not None else None
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if module is not None:
            module.set_rng_state(here, *of_device)
