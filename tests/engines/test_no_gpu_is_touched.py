"""On the CPU nothing asks for a GPU: not an import, not a training, though there be one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# There seems to be a GPU, and whoever uses it is found out.
SCRIPT = """
import sys, torch

def touched(*_):
    raise AssertionError("CUDA was initialised")

torch.cuda.init = touched
for module in [module for name, module in sys.modules.items() if name.startswith("torch.")]:
    if "_lazy_init" in vars(module):
        module._lazy_init = touched
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1
# torch's own optimizers look whether the GPU records a graph, from 2.14 on, wherever their parameters are
torch.optim.Optimizer._accelerator_graph_capture_health_check = lambda self: None
try:
    torch.cuda.get_rng_state()
except AssertionError as error:
    assert str(error) == "CUDA was initialised"
else:
    raise SystemExit("nobody would notice")

import stoker
for name in stoker.__all__:
    getattr(stoker, name)

torch.manual_seed(0)
x, y = torch.randn(160, 1, 6, 6), torch.randn(160, 1)
for engine in ("eager", "compiled", "auto"):
    layers = [torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 1)]
    trainer = stoker.Trainer(torch.nn.Sequential(*layers), "mse", "adam", engine=engine, device="cpu", ema=0.9)
    trainer.fit((x, y), (x, y), epochs=2, batch_size=16, progress="none", checkpoint=f"kept-{engine}")
    trainer.evaluate((x, y))
    trainer.predict(x)
    print(trainer.engine_reason.partition(":")[0])
run = stoker.fit("iris", out="run", epochs=2, device="cpu", progress="none")
run.evaluate()
run.predict("iris")
assert not torch.cuda.is_initialized()
"""


@pytest.mark.slow
def test_an_import_and_a_training_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["eager", "compiled", "eager"]
