"""Packages that are broken in every way there is, in real processes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.doctor.checkup import check_up
from stoker.doctor.findings import Finding
from stoker.doctor.packages import PACKAGES, Imported, Lines, compiling, findings, import_each, versions

BROKEN = {
    "raises": "raise RuntimeError('operator torchvision::nms\\n does not exist')",
    "exits": "import os; os._exit(3)",
    "quits": "import sys; sys.exit(4)",
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "import time; time.sleep(600)",
    "chatters": "print('hello'); print('{\"name\": 3}'); import sys; sys.stdout.write('no line')",
    "works": "",
}


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """An environment in which these packages are there."""
    for name, code in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(code)
    return dict(os.environ) | {"PYTHONPATH": in_front(tmp_path)}


def in_front(folder: Path) -> str:
    """A ``PYTHONPATH`` on which this folder comes first."""
    return os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])


def test_whatever_a_package_does_the_others_are_tried(broken: dict[str, str]) -> None:
    told: list[str] = []
    found = import_each([*BROKEN, "missing"], told.append, environ=broken, limit=5)
    assert {name: one.error for name, one in found.items()} == {
        "raises": "RuntimeError: operator torchvision::nms does not exist",
        "exits": "ends the process with exit code 3",
        "quits": "SystemExit: 4",
        "crashes": "ends the process with SIGSEGV",
        "hangs": "says nothing for 5 s",
        "chatters": "",
        "works": "",
        "missing": "ModuleNotFoundError: No module named 'missing'",
    }
    assert set(told) == {*BROKEN, "missing"}


def test_rates_are_measured() -> None:
    lines = list(process := Lines(["rates", "0.3", "1"]))
    assert process.ending == "ends the process with exit code 0"
    assert [(line["device"], line["dtype"], line["threads"]) for line in lines[:3]] == [("cpu", "float32", 1)] * 3
    assert [line["size"] for line in lines[:3]] == [64, 256, 1024]
    assert all(0 < line["gflops"] < 1e6 for line in lines)


TORCH = {
    "works": "def compile(function, fullgraph): return function",
    "others": "def compile(function, fullgraph): return lambda x: function(x) + 1",
    "raises": "def compile(function, fullgraph): raise RuntimeError('InvalidCxxCompiler:\\n no compiler')",
    "crashes": "import os, signal\ndef compile(function, fullgraph): os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "import time\ndef compile(function, fullgraph): time.sleep(600)",
}
NUMBERS = """
import numpy
class Tensor(numpy.ndarray):
    def sin(self): return numpy.sin(self)
    def exp(self): return numpy.exp(self)
def linspace(*given): return numpy.linspace(*given).view(Tensor)
def where(*given): return numpy.where(*given).view(Tensor)
allclose = numpy.allclose
"""


@pytest.mark.parametrize(
    ("kind", "status", "says"),
    [
        ("works", "works", "a small function on the CPU, in 0.0 s"),
        ("others", "broken", "does not compile: its numbers are others"),
        ("raises", "broken", "does not compile: RuntimeError: InvalidCxxCompiler: no compiler"),
        ("crashes", "broken", "does not compile: ends the process with SIGSEGV"),
        ("hangs", "broken", "does not compile: says nothing for 3 s"),
    ],
)
def test_torch_compile_is_tried(kind: str, status: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(NUMBERS + TORCH[kind])
    environ = dict(os.environ) | {"PYTHONPATH": in_front(tmp_path)}
    found = compiling(Finding("C++ compiler", "works", "c++"), environ=environ, limit=3)
    assert (found.name, found.status, found.says) == ("torch.compile", status, says)
    assert found.fix == ("" if status == "works" else "pip install --force-reinstall torch")


def test_without_a_compiler_torch_compile_is_not_to_blame(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(NUMBERS + TORCH["raises"])
    environ = dict(os.environ) | {"PYTHONPATH": in_front(tmp_path)}
    found = compiling(Finding("C++ compiler", "absent", "none", "apt install g++"), environ=environ)
    assert (found.status, found.fix) == ("absent", "apt install g++")
    assert found.says == "needs a C++ compiler (RuntimeError: InvalidCxxCompiler: no compiler)"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
def test_torch_compile_works_here() -> None:
    found = compiling(None)
    assert (found.status, found.fix) == ("works", ""), found
    seconds = re.fullmatch(r"a small function on the CPU, in (\d+\.\d) s", found.says)
    assert seconds
    assert float(seconds[1]) > 0.1, "it was compiled, and not found in a cache"


def test_versions_are_of_what_is_installed() -> None:
    import numpy

    found = versions()
    assert found["numpy"] == numpy.__version__
    assert found.keys() <= {"stoker", "python", *(package.distribution for package in PACKAGES)}


def said(found: Iterator[Finding]) -> dict[str, tuple[str, str, str]]:
    return {one.name: (one.status, one.says, one.fix) for one in found}


def test_each_failure_has_its_command() -> None:
    installed = {"torch": "2.13.0+cpu", "torchvision": "0.28", "polars": "1.0"}
    imported = {
        "torch": Imported("", {"version": "2.13.0+cpu", "cpu": "AVX2", "gpus": [], "built for": ""}),
        "torchvision": Imported("RuntimeError: operator torchvision::nms does not exist", {}),
        "polars": Imported("ends the process with SIGILL", {}),
        "numpy": Imported("", {}),
    }
    found = said(findings(imported, installed))
    assert found["torch"] == ("works", "2.13.0+cpu; AVX2", "")
    assert found["GPU"][0] == "absent"
    assert found["the core's packages"] == ("works", "numpy", "")
    index = "--index-url https://download.pytorch.org/whl/cpu"
    assert found["torchvision"][0] == "broken"
    assert found["torchvision"][2] == f"pip install --force-reinstall torch torchvision {index}"
    assert found["polars"] == ("broken", "1.0: ends the process with SIGILL", "pip install --force-reinstall polars")
    assert found["fastapi"] == ("absent", "not installed; for stoker serve", 'pip install "stoker[serve]"')
    assert found["jax"] == ("absent", "not installed; for compiled engine", "pip install jax")
    assert found["scikit-learn"] == ("broken", "not installed", "pip install scikit-learn")
    assert said(findings({}, installed))["torchvision"][2] == f"pip install torchvision {index}"


def test_torch_itself_may_be_broken() -> None:
    for one in (None, Imported("OSError: libtorch.so: cannot open", {}), Imported("", {"trouble": "no kernel image"})):
        found = said(findings({} if one is None else {"torch": one}, {}))
        assert found["torch"][0] == "broken"
        assert found["torch"][2].startswith("pip install")


def test_a_gpu_that_torch_cannot_use_is_told_from_a_build_without() -> None:
    facts = {"version": "2.13.0+cu130", "gpus": [], "built for": "13.0"}
    assert "built for CUDA 13.0" in said(findings({"torch": Imported("", facts)}, {}))["GPU"][1]
    facts["gpus"] = ["NVIDIA H100, 80 GiB"]
    assert said(findings({"torch": Imported("", facts)}, {}))["GPU"] == ("works", "NVIDIA H100, 80 GiB", "")


def test_no_process_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    found = import_each(["numpy"], lambda _: None)
    assert found["numpy"].error == "no process could be started (No such file or directory)"


def test_whatever_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of all\nthings")

    for place in ("machine.describe", "machine.compiler", "machine.disks", "machine.usable_cpus", "packages.versions"):
        monkeypatch.setattr(f"stoker.doctor.{place}", fail)
    found = check_up()
    names = ["machine", "packages", "C++ compiler", "disks", "threads"]
    assert [one.name for one in found.findings] == names
    assert {one.says for one in found.findings} == {"could not be looked at (RuntimeError: of all things)"}


@pytest.mark.slow
def test_a_checkup_with_broken_torchvision_and_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')")
    (tmp_path / "torchvision.py").write_text(BROKEN["crashes"])
    told: list[str] = []
    found = check_up(told.append, environ=dict(os.environ) | {"PYTHONPATH": in_front(tmp_path)})
    by_name = {one.name: one for one in found.findings}
    assert by_name["torch"].status == "broken"
    assert "cannot open shared object file" in by_name["torch"].says
    assert found.rates == []
    assert by_name["C++ compiler"].name in by_name
    assert "importing torch" in told
