"""Damage files of weights in every way that chance finds, and read them; run as a script, with bounded memory.

    python fuzz_weights.py SEED SECONDS FOLDER

Prints how many files were refused and how many were read, and what was raised that is not Stoker's own.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from stoker.errors import StokerError
from stoker.exporting.importing import match
from stoker.exporting.weights_file import read_weights

BYTES = 6 << 30  # of addresses: torch's libraries take some themselves


def damaged(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                data[place] ^= 1 << chance.randrange(8)
            case 2:
                del data[place : place + chance.randint(1, 40)]
            case 3:
                data[place:place] = chance.randbytes(chance.randint(1, 8))
            case _:
                other = chance.randrange(len(data))
                data[place : place + 8] = data[other : other + 8]
        if not data:
            break
    return bytes(data)


def main(seed: int, seconds: float, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    wanted = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
    torch.save({"state_dict": dict(wanted)}, folder / "good.pt")
    save_file(dict(wanted), folder / "good.safetensors")
    chance, refused, read = random.Random(seed), 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        suffix = chance.choice([".pt", ".pt", ".safetensors"])
        file = folder / f"bad{suffix}"
        file.write_bytes(damaged((folder / f"good{suffix}").read_bytes(), chance))
        try:
            found = match(dict(wanted), read_weights(file, largest=1 << 30))
        except StokerError:
            refused += 1
            continue
        read += 1
        for name, value in found.fitting.items():
            wanted[name].clone().copy_(value)  # no byte beyond the file
    print(refused, read)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
