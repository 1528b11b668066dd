"""Exporting a run: write, load in a fresh process, compare, measure; and only then is the file there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stoker.errors import ConfigError, ExportError, StokerError, UnknownNameError
from stoker.exporting.bench import SECONDS, Timing, baselines
from stoker.exporting.current import contract_path, seal, versions
from stoker.exporting.formats import FORMATS, Format, Options
from stoker.exporting.formats.onnx import optimized
from stoker.exporting.fresh import Answers, ask
from stoker.exporting.loader import SIZES
from stoker.exporting.place import drop_log, flush, keep_log, refuse_existing, target_path, workplace
from stoker.exporting.quantize import apart, drift, measured, quantize_int8, refuse_if_worse
from stoker.exporting.trial import Trial
from stoker.jobs.run import Run
from stoker.runs.files import naming_full_disk, require_room, write_json

__all__ = ["Exported", "ExportedFile", "export"]

Notify = Callable[[str], None]


@dataclass(frozen=True)
class ExportedFile:
    """A file that was compared with the model and found the same.

    Attributes:
        format: Its format.
        path: The file.
        contract: The JSON beside it: what goes in, what comes out, and how far they were compared.
        rows: How many rows were compared, at each batch size; 0 for weights alone, of which every bit is compared.
        difference: The largest difference of a number from the model's.
        timing: How large and how fast it is.
        metrics: Of an int8 file: ``{"before": {…}, "after": {…}}``.
    """

    format: str
    path: Path
    contract: Path
    rows: int
    difference: float
    timing: Timing
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    Attributes:
        files: Those that are there, in the order asked for.
        refused: Of several formats, those that could not be, and why.
        baselines: How fast the model itself is; empty if that was not measured.
    """

    files: tuple[ExportedFile, ...]
    refused: dict[str, StokerError]
    baselines: tuple[Timing, ...]

    @property
    def path(self) -> Path:
        """The file, or the first of several."""
        return self.files[0].path


def export(
    run: Run | str | Path,
    format: str | Sequence[str] = "onnx",  # noqa: A002  as on the command line
    *,
    out: str | Path | None = None,
    optimize: bool = False,
    quantize: Literal["int8"] | None = None,
    rows: Any = None,
    bench: bool = True,
    overwrite: bool = False,
    notify: Notify | None = None,
) -> Exported:
    """Write a run's model, encoder included, as a file for others.

    The file is loaded again in a fresh process and compared with the model at batch sizes 1, 2, 7 and 64: on rows held
    back from the training, and on copies of them with missing, unknown and rare values. If a number differs by more
    than the format's tolerance, or another class is on top, nothing is exported.

    Args:
        run: The run, or its directory. A run with a model of your own is loaded with ``stoker.load(path, model=…)``.
        format: ``onnx``, ``torch-export``, ``aoti``, ``torchscript-trace``, ``torchscript-script``, ``state-dict``,
            ``safetensors``; several of them, or ``all``.
        out: The file; for several formats a directory. By default ``exports/`` in the run's directory.
        optimize: Make it faster: ONNX Runtime's graph optimisation, TorchScript's ``optimize_for_inference``.
        quantize: ``"int8"`` for ONNX: 8-bit weights and activations, with the metric before and after.
        rows: A source to compare on, instead of the run's own.
        bench: Measure how fast the file is, and beside it the model, eager and under ``torch.compile``.
        overwrite: Replace a file that is there.
        notify: Told in words what the user should know.

    Returns:
        The files, and how fast they are. A format that failed among several is in ``refused``.

    Raises:
        UnknownNameError: No format has that name.
        ConfigError: The format has no such option, or ``out`` cannot be written.
        RunExistsError: There is such a file already.
        RunError: The run is damaged.
        MissingExtraError: What the format needs is not installed.
        ExportError: The model cannot be written in the format, or the file's answers are not the model's.
        DiskFullError: There is no room; nothing is left behind.

    Example:
        >>> stoker.export("runs/housing", "onnx", out="housing.onnx").path
    """
    tell = notify or _silent
    chosen = _chosen(format)
    for one in chosen:
        _refuse_options(one, optimize, quantize)
    run = run if isinstance(run, Run) else Run(run, device="cpu")
    targets = {one.name: target_path(run.path, one, out, quantize, alone=len(chosen) == 1) for one in chosen}
    for path in targets.values():
        refuse_existing(path, overwrite)
    for text in dict.fromkeys(one.deprecated for one in chosen if one.deprecated):
        tell(text)
    trial = Trial(run, tell, rows)
    files, refused = [], {}
    for one in chosen:
        try:
            one.require()
            files.append(_export_one(trial, one, targets[one.name], Options(optimize, tell), quantize, bench))
        except StokerError as error:
            if isinstance(error, ExportError):
                keep_log(error, targets[one.name])
            if len(chosen) == 1:
                raise
            refused[one.name] = error
    measure = bench and any(FORMATS[file.format].program for file in files)
    return Exported(tuple(files), refused, tuple(baselines(trial.subject.module, trial.rows)) if measure else ())


def _export_one(
    trial: Trial, one: Format, path: Path, options: Options, quantize: str | None, bench: bool
) -> ExportedFile:
    contract = trial.contract(one)
    subject = replace(trial.subject, contract=json.dumps(contract))
    size = sum(tensor.nbytes for tensor in subject.module.state_dict().values())
    with naming_full_disk(path), workplace(path) as folder:
        require_room(folder, 2 * size)
        made = folder / f"model{one.suffix}"
        metrics: dict[str, dict[str, float]] = {}
        calibrated = ""
        one.write(subject, made, Options(False, options.tell) if quantize else options)
        seconds = SECONDS if bench else 0.0
        answers: Answers | None = None
        if one.program:
            answers = ask(one.loader, made, trial.rows, 0.0 if quantize else seconds, f"--format {one.name}")
            difference = trial.compare(one, answers)
            if quantize:
                metrics, answers, calibrated = _quantized(trial, made, options, seconds)
        else:
            difference = 0.0
            trial.compare_tensors(one, made)
        count = len(next(iter(trial.rows.values())))
        tried: dict[str, Any] = {"rows": count, "real_rows": trial.real is not None, "batch_sizes": list(SIZES)}
        strict = {"largest_difference": difference, "tolerance": str(one.tolerance), "scale": trial.scale}
        compared: dict[str, Any] = {"compared": tried | strict}
        if quantize and answers is not None:
            cost = drift(answers.by_size, trial.wanted)
            difference = cost["largest_difference"]
            compared = {"compared_before_quantization": tried | strict, "compared": tried | cost}
        contract |= compared if one.program else {"compared": {"tensors": "bit for bit"}}
        contract |= {"quantized": metrics, "calibrated_on": calibrated} if metrics else {}
        contract |= {"versions": versions(one), "sha256": seal(trial.run, made)}
        timing = Timing(f"{one.name} {quantize}" if quantize else one.name, made.stat().st_size)
        if answers is not None:
            timing = replace(timing, load=answers.load, latency=answers.latency, throughput=answers.throughput)
        beside = contract_path(path)
        write_json(folder / "contract.json", contract)
        for file in (made, folder / "contract.json"):
            with suppress(OSError):  # a temporary file is for its owner's eyes only
                file.chmod(path.parent.stat().st_mode & 0o666)
        flush(made)
        made.replace(path)
        (folder / "contract.json").replace(beside)
    drop_log(path)
    return ExportedFile(one.name, path, beside, count if one.program else 0, difference, timing, metrics)


def _quantized(
    trial: Trial, made: Path, options: Options, seconds: float
) -> tuple[dict[str, dict[str, float]], Answers, str]:
    """Make a checked ONNX file an int8 one, and see what that costs."""
    real = trial.real
    fix = "Name some with their targets: --rows SOURCE."
    if real is None or real.targets is None:
        raise ExportError("--quantize int8", "needs rows with their targets to measure what it costs", "none", fix)
    task, classes = trial.artifact.recipe.task, len(trial.artifact.recipe.classes)
    calibration, real, told = apart(real)
    before, _ = measured(made, real, task, classes)
    quantize_int8(made, calibration)
    if options.optimize:
        optimized(made)
    after, _ = measured(made, real, task, classes)
    refuse_if_worse(before, after)
    answers = ask("onnx", made, trial.rows, seconds, "--quantize int8")
    trial.compare_with_itself(FORMATS["onnx"], answers)
    return {"before": before, "after": after}, answers, told


def _chosen(names: str | Sequence[str]) -> list[Format]:
    listed = [names] if isinstance(names, str) else list(names)
    if listed == ["all"]:
        return list(FORMATS.values())
    for name in listed:
        if name not in FORMATS:
            raise UnknownNameError("--format", str(name), [*FORMATS, "all"])
    if not listed:
        raise ConfigError("--format", "must name a format", "none", f"Known: {', '.join(FORMATS)}.")
    return [FORMATS[name] for name in dict.fromkeys(listed)]


def _refuse_options(one: Format, optimize: bool, quantize: str | None) -> None:
    if quantize not in (None, "int8"):
        raise UnknownNameError("--quantize", str(quantize), ["int8"])
    for flag, given, able in (("--optimize", optimize, "optimizes"), ("--quantize", quantize, "quantizes")):
        if given and not getattr(one, able):
            having = ", ".join(other.name for other in FORMATS.values() if getattr(other, able))
            raise ConfigError(flag, f"is for {having}", one.name, "Leave it out.")


def _silent(_: str) -> None:
    """Tell nobody."""
