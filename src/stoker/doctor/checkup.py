"""A checkup from start to end."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stoker.doctor import machine, packages
from stoker.doctor.findings import Checkup, Finding, Rate

__all__ = ["check_up"]

_SECONDS = 3.0  # of multiplying


def check_up(
    tell: Callable[[str], None] | None = None, *, rates: bool = True, environ: Mapping[str, str] | None = None
) -> Checkup:
    """Look at everything.

    It never fails: what is missing or broken is a finding.

    Args:
        tell: Told what is being looked at.
        rates: Measure how fast matrices are multiplied, which takes a few seconds.
        environ: The environment's variables; by default this process's.
    """
    say = tell or _silent
    variables = os.environ if environ is None else environ
    checkup = Checkup({}, {})
    found: dict[str, packages.Imported] = {}

    def look(what: str, into: Callable[[], Iterable[Finding]]) -> None:
        say(what)
        try:
            checkup.findings.extend(into())
        except Exception as error:  # the last resort: whatever a machine has in store
            says = f"could not be looked at ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            checkup.findings.append(Finding(what, "broken", says))

    def describe() -> Iterable[Finding]:
        checkup.machine.update(machine.describe())
        return ()

    def imports() -> Iterable[Finding]:
        checkup.versions.update(packages.versions())
        there = [package.module for package in packages.PACKAGES if _installed(package.module)]
        found.update(packages.import_each(there, lambda name: say(f"importing {name}"), environ=environ))
        return packages.findings(found, checkup.versions)

    def facts(name: str) -> dict[str, Any]:
        return found[name].facts if name in found else {}

    look("machine", describe)
    look("packages", imports)
    look("C++ compiler", lambda: [machine.compiler(variables)])
    works = bool(facts("torch")) and "trouble" not in facts("torch")
    if works:
        compiler = next((one for one in checkup.findings if one.name == "C++ compiler"), None)
        look("torch.compile", lambda: [packages.compiling(compiler, environ=environ)])
    look("disks", lambda: machine.disks(_folders(facts("jax").get("cache"))))
    look("threads", lambda: [machine.threads(variables, machine.usable_cpus(), facts("torch").get("threads"))])
    if rates and works:
        look("matrix rates", lambda: _rates(machine.usable_cpus(), say, checkup.rates, environ))
    return checkup


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except Exception:  # a finder of somebody's that fails, or a module half there
        return False


def _folders(cache: object) -> dict[str, Path]:
    """Where Stoker writes, by what for; what cannot be found out is left out."""
    folders = {}
    with suppress(OSError):  # removed under our feet
        folders["this directory"] = Path.cwd()
    with suppress(Exception):  # there may be no home; and what it imports may be broken
        from stoker.data.sources.download import default_data_home

        folders["data sets"] = default_data_home()
    if cache:
        folders["compiled programs"] = Path(str(cache))
    with suppress(OSError):
        folders["temporary files"] = Path(tempfile.gettempdir())
    return folders


def _rates(
    cpus: int, say: Callable[[str], None], rates: list[Rate], environ: Mapping[str, str] | None
) -> Iterator[Finding]:
    """Measure rates into a list, and say what is odd about them."""
    lines = packages.Lines(["rates", str(_SECONDS), str(cpus)], environ=environ)
    for line in lines:
        with suppress(TypeError):
            rates.append(Rate(**line))
            say(f"multiplying matrices, {rates[-1].size} × {rates[-1].size} on {rates[-1].device}")
    if not rates or "exit code 0" not in lines.ending:
        yield Finding("matrix rates", "broken", lines.ending, "pip install --force-reinstall torch")
    elif (hint := _scaling(rates, cpus)) is not None:
        yield hint


def _scaling(rates: list[Rate], cpus: int) -> Finding | None:
    """Whether more threads are faster, as they should be for large matrices."""
    largest = max(rate.size for rate in rates if rate.device == "cpu")
    of = {rate.threads: rate.gflops for rate in rates if rate.device == "cpu" and rate.size == largest}
    if cpus < 2 or not {1, cpus} <= of.keys() or of[cpus] > 1.3 * of[1]:
        return None
    says = f"{cpus} threads multiply {of[cpus] / of[1]:.1f} times as fast as one"
    return Finding("matrix rates", "poor", says, "The other CPUs are busy, or halves of one core: see top.")


def _silent(_what: str) -> None:
    """Tell nobody."""
