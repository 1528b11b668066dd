"""Every random number in Stoker comes from a generator derived from ``(seed, purpose)``.

Adding a metric, a progress bar or an evaluation therefore changes no other random number.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["derive_seed", "generator"]


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
