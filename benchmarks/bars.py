"""The wanted ratios, the measured ones, and whether they are met. A "no" is reported like a "yes"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.summary import LENGTHS, Figures, Key, Total

ALLOWED = 1.1  # what "auto" may take, as a multiple
GRACE_S = 0.3  # and seconds beyond, beside the better of both engines
MEMORY = 1.2  # what the compiled engine's process may take at its peak, as a multiple of the eager one's


@dataclass(frozen=True)
class Ratio:
    """A side's steady step, in multiples of another's.

    Attributes:
        job: With its own batch size.
        other: Whose step is divided,
        ours: by whose.
        wanted: At least.
    """

    job: str
    other: str
    ours: str
    wanted: float


RATIOS = (
    Ratio("california", "loop", "stoker-compiled", 24.0),
    Ratio("california", "jax", "stoker-compiled", 1.6),
    Ratio("fashion", "transforms", "stoker-compiled", 9.0),
    Ratio("fashion", "loop", "stoker-compiled", 4.5),
    Ratio("fashion", "jax", "stoker-compiled", 1.0),
    Ratio("cnn", "loop", "stoker-auto", 1.8),
)


@dataclass(frozen=True)
class Bar:
    """A wish.

    Attributes:
        what: In words.
        threads: Of the measurement.
        wanted, measured: In words; ``measured`` says why there is nothing.
        met: ``None`` where it was not measured.
    """

    what: str
    threads: int
    wanted: str
    measured: str
    met: bool | None


def bars(
    tables: Mapping[Key, Sequence[Figures]], batch_sizes: Mapping[str, int], labels: Mapping[str, str]
) -> list[Bar]:
    """All wishes.

    Args:
        tables: The figures.
        batch_sizes: Each job's own.
        labels: Of sides.

    Returns:
        One for each wish and number of threads; those of ``auto`` for every table and number of epochs.
    """
    result: list[Bar] = []
    for threads in sorted({key.threads for key in tables}):
        by_job: dict[str, dict[str, Figures]] = {
            key.job: {row.side: row for row in rows}
            for key, rows in tables.items()
            if key.threads == threads and key.batch_size == batch_sizes[key.job]
        }
        result += [_ratio(ratio, by_job.get(ratio.job, {}), threads, labels) for ratio in RATIOS]
        california = by_job.get("california", {})
        result += [_sooner(ours, california, threads, labels) for ours in ("stoker-compiled", "stoker-auto")]
        result += [_memory(job, sides, threads) for job, sides in by_job.items()]
    for key, rows in tables.items():
        result += _auto(key, {row.side: row for row in rows})
    return result


def _ratio(ratio: Ratio, sides: Mapping[str, Figures], threads: int, labels: Mapping[str, str]) -> Bar:
    what = f"{ratio.job}: {labels[ratio.other]} / {labels[ratio.ours]}, steady step"
    wanted = f"≥ {ratio.wanted:g} ×"
    steps = [getattr(sides.get(side), "step_us", None) for side in (ratio.other, ratio.ours)]
    if steps[0] is None or steps[1] is None:
        return Bar(what, threads, wanted, _why(sides, (ratio.other, ratio.ours), labels), None)
    value = steps[0] / steps[1]
    return Bar(what, threads, wanted, f"{value:.2f} ×", value >= ratio.wanted)


def _sooner(ours: str, sides: Mapping[str, Figures], threads: int, labels: Mapping[str, str]) -> Bar:
    what = f"california: 20 epochs from start to finish, {labels[ours]} sooner than {labels['stoker-eager']}"
    mine, eager = _totals(sides, ours, "stoker-eager", epochs=20)
    if mine is None or eager is None:
        return Bar(what, threads, "sooner", _why(sides, (ours, "stoker-eager"), labels), None)
    return Bar(what, threads, "sooner", f"{_told(mine)} against {_told(eager)} s", mine.seconds < eager.seconds)


def _memory(job: str, sides: Mapping[str, Figures], threads: int) -> Bar:
    what = f"{job}: peak memory of the process, compiled beside eager"
    compiled, eager = (getattr(sides.get(f"stoker-{name}"), "process_mb", None) for name in ("compiled", "eager"))
    if compiled is None or eager is None:
        return Bar(what, threads, f"≤ {MEMORY} ×", "not known", None)
    told = f"{compiled / eager:.2f} × ({compiled:,.0f} and {eager:,.0f} MB)"
    return Bar(what, threads, f"≤ {MEMORY} ×", told, compiled <= MEMORY * eager)


def _auto(key: Key, sides: Mapping[str, Figures]) -> Iterator[Bar]:
    """What ``auto`` may take: beside the better engine, and beside the eager one with the rounds' noise allowed for.

    JAX is imported before the compiled side's clock starts, and within ``auto``'s call. So the first is told as it was
    measured, and once more with what the import took counted for both.
    """
    where = f"{key.job}, batch {key.batch_size}"
    known = sides["stoker-auto"].totals if "stoker-auto" in sides else None
    for epochs in sorted({*LENGTHS, *(known or ())}):
        auto, eager, compiled = _totals(sides, "stoker-auto", "stoker-eager", "stoker-compiled", epochs=epochs)
        if auto is None or eager is None or auto.extrapolated:  # it may take another engine for a longer call
            continue
        noise = max(auto.noise, eager.noise)
        limit = ALLOWED * eager.seconds + noise
        yield Bar(
            f"{where}, {epochs} epochs: auto beside eager",
            key.threads,
            f"≤ {ALLOWED} × {_told(eager)} s + noise {noise:.2f} s",
            f"{_told(auto)} s",
            auto.seconds <= limit,
        )
        if compiled is not None:
            yield _beside(where, epochs, key.threads, auto, eager, compiled)
            if imports := sides["stoker-compiled"].imports_s:
                yield _beside(where, epochs, key.threads, auto, eager, compiled, imports)


def _beside(
    where: str, epochs: int, threads: int, auto: Total, eager: Total, compiled: Total, imports: float = 0.0
) -> Bar:
    what = f"{where}, {epochs} epochs: auto beside the better engine" + (", JAX's import in both" if imports else "")
    with_imports = replace(compiled, seconds=compiled.seconds + imports)
    better = min(eager, with_imports, key=lambda one: one.seconds)
    wanted = f"≤ {ALLOWED} × {_told(better)} s + {GRACE_S} s"
    return Bar(what, threads, wanted, f"{_told(auto)} s", auto.seconds <= ALLOWED * better.seconds + GRACE_S)


def _totals(sides: Mapping[str, Figures], *names: str, epochs: int) -> list[Total | None]:
    found = [sides[name].totals if name in sides else None for name in names]
    return [None if totals is None else totals.get(epochs) for totals in found]


def _told(total: Total) -> str:
    return f"{'~' if total.extrapolated else ''}{total.seconds:.2f}"


def _why(sides: Mapping[str, Figures], names: Sequence[str], labels: Mapping[str, str]) -> str:
    reasons = []
    for name in names:
        row = sides.get(name)
        if row is None or row.step_us is None:
            reasons.append(f"{labels[name]}: {'not run' if row is None else row.absent or 'no call long enough'}")
    return "; ".join(reasons) or "no call of 20 epochs"
