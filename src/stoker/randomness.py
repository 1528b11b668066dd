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

__all__ = [
    "derive_seed",
    "generator",
    "preserved_randomness",
    "random_states",
    "seed_globally",
    "set_random_states",
]

ACCELERATORS = {"mps", "cuda", "xpu"}


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


def random_states(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The states of torch's global generators of the CPU and of ``device``, uint8; ``None`` where that is the CPU."""
    import torch

    if device.type not in ACCELERATORS:
        return torch.get_rng_state(), None
    state: torch.Tensor = torch.get_device_module(device).get_rng_state(*_which(device))
    return torch.get_rng_state(), state


def set_random_states(device: torch.device, states: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    """Set the generators to what :func:`random_states` gave."""
    import torch

    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.get_device_module(device).set_rng_state(states[1], *_which(device))


def _which(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is but one mps


@contextmanager
def preserved_randomness(device: torch.device) -> Iterator[None]:
    """After this block torch's global generators, of the CPU and of ``device``, are as they were before it."""
    before = random_states(device)
    try:
        yield
    finally:
        set_random_states(device, before)
