"""TorchScript in C++: a program that links LibTorch alone answers what the model answers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from subjects import fitted, table
from torch.utils import cpp_extension

import stoker

COMPILER = shutil.which(os.environ.get("CXX", "g++"))
LIBRARIES = Path(torch.__file__).parent / "lib"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None:
        pytest.skip("no C++ compiler here")
    made = tmp_path_factory.mktemp("libtorch") / "ask"
    source = Path(__file__).with_name("libtorch.cpp")
    includes = [f"-I{path}" for path in cpp_extension.include_paths()]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    link = [f"-L{LIBRARIES}", f"-Wl,-rpath,{LIBRARIES}", "-ltorch", "-ltorch_cpu", "-lc10"]
    standard = "-std=c++20" if torch.__version__ >= "2.12" else "-std=c++17"
    command = [
        COMPILER,
        standard,
        "-O0",
        "-w",
        abi,
        *includes,
        str(source),
        "-o",
        str(made),
        "-Wl,--no-as-needed",
        *link,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "name"), [("torchscript-trace", "mlp, a number"), ("torchscript-script", "own, by name")]
)
def test_libtorch_answers_alike(program: Path, form: str, name: str, tmp_path: Path) -> None:
    run = fitted(name)
    path = stoker.export(run, form, out=f"{tmp_path}/", bench=False).path
    frame = table("price", rows=23, seed=11)
    columns = run.artifact.columns
    assert columns is not None
    arguments = [str(path), "23"]
    for key, values in columns.read(frame).items():
        (tmp_path / key).write_bytes(values.contiguous().numpy().tobytes())
        arguments += [str(tmp_path / key), str(values.shape[1]), str(values.dtype).removeprefix("torch.")]
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=True)
    got = np.array([float(line) for line in done.stdout.split()])
    predicted = run.predict(frame)
    want = predicted.outputs if run.task == "regression" else predicted.probabilities
    np.testing.assert_allclose(got, want.numpy().reshape(-1), rtol=1e-5, atol=1e-6)
