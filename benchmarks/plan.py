"""What is measured: which side runs which job, with which batches and threads, for how many epochs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.jobs import JOBS
from benchmarks.sides import SIDES, Side

BATCH_SIZES = (256, 1024, 4096)  # of California, besides its own 32
STOKER = ("stoker-auto", "stoker-compiled", "stoker-eager")
BY_HAND = ("jax", "resident", "loop")
CORE = (*STOKER, "jax", "loop")  # whose ratios are wanted: called at every length, and in several rounds
ROUNDED = ("california", "fashion", "cnn")  # the jobs of those ratios, with their own batches and one thread


@dataclass(frozen=True)
class Setting:
    """One table of the report.

    Attributes:
        job: By name.
        batch_size: Samples of a batch.
        threads: Of each side.
        sides: Who takes part, by name.
        rows: The first of the data; ``None`` for all.
        lengths: Epochs of the calls that are measured.
        rounds: At most.
    """

    job: str
    batch_size: int
    threads: int
    sides: tuple[str, ...]
    rows: int | None = None
    lengths: tuple[int, ...] = (1, 20, 200, 500)
    rounds: int = 1


@dataclass(frozen=True)
class Limits:
    """What is too long to be measured.

    Attributes:
        steady_s: Predicted seconds up to which a call is measured that steady steps are read from. Beyond, it gets as
            many epochs as fit, at least :data:`FEWEST`.
        longest_s: Predicted seconds up to which any longer call is measured, rather than extrapolated.
        timeout_s: Seconds after which a process is ended.
    """

    steady_s: float = 6.0
    longest_s: float = 15.0
    timeout_s: float = 900.0


FEWEST = 4  # epochs of a call that steady steps are read from: the first two do not count


def takes_part(side: Side, job: str) -> bool:
    """Whether it makes sense for the side to train the job."""
    return JOBS[job].kind in side.kinds and (not side.jobs or job in side.jobs)


def full(threads: Iterable[int] = (1, 2), rounds: int = 3) -> list[Setting]:
    """All jobs with all sides that can train them, and California with larger batches.

    Args:
        threads: Numbers of threads.
        rounds: Of the tables whose ratios are wanted; the others have one.
    """
    settings = []
    for count in threads:
        tables = [(job.name, job.batch_size) for job in JOBS.values()]
        for job, size in [*tables, *(("california", size) for size in BATCH_SIZES)]:
            several = rounds if count == 1 and job in ROUNDED else 1
            sides = [name for name, side in SIDES.items() if takes_part(side, job)]
            core = tuple(name for name in sides if name in CORE)
            others = tuple(name for name in sides if name not in CORE)
            settings.append(Setting(job, size, count, core, rounds=several))
            settings.append(Setting(job, size, count, others, lengths=(FEWEST, 20)))
    return settings


def quick(threads: Iterable[int] = (1,)) -> list[Setting]:
    """The same in small: fewer rows, fewer sides, shorter calls; to see that all is well, not to quote figures of."""
    few = (*STOKER, *BY_HAND)
    settings = []
    for count in threads:
        all_sides = tuple(name for name, side in SIDES.items() if takes_part(side, "california"))
        settings += [
            Setting("california", 32, count, STOKER, lengths=(1, 20)),
            Setting("california", 32, count, tuple(side for side in all_sides if side not in STOKER), lengths=(20,)),
            Setting("california", 1024, count, few, lengths=(20,)),
            Setting("fashion", 32, count, (*few, "transforms"), rows=8_000, lengths=(FEWEST,)),
            Setting("flights", 256, count, few, rows=50_000, lengths=(FEWEST,)),
            Setting("cnn", 32, count, few, rows=1_000, lengths=(FEWEST,)),
            Setting("lstm", 32, count, ("stoker-auto", "stoker-eager", *BY_HAND), rows=1_000, lengths=(FEWEST,)),
        ]
    return settings


def chosen(settings: Iterable[Setting], jobs: Collection[str], sides: Collection[str]) -> list[Setting]:
    """Those of some jobs and sides only; an empty collection means all."""
    kept = (replace(s, sides=tuple(side for side in s.sides if not sides or side in sides)) for s in settings)
    return [setting for setting in kept if setting.sides and (not jobs or setting.job in jobs)]


def predicted(epochs: int, first_s: float, steady_s: float) -> float:
    """Seconds that a call takes whose first epoch and whose others take so long."""
    return first_s + (epochs - 1) * steady_s


def epochs_that_fit(wanted: int, first_s: float, steady_s: float, limit_s: float) -> int:
    """So many of the wanted epochs as take no longer than the limit, but at least :data:`FEWEST`."""
    fitting = 1 + int((limit_s - first_s) / steady_s) if limit_s > first_s else 0
    return min(wanted, max(FEWEST, fitting))


def next_call(length: int, done: Sequence[Sequence[float]], limits: Limits) -> int | None:
    """How many epochs the next call of a side is to have.

    Args:
        length: The epochs that the setting asks for.
        done: The seconds of each epoch of each call that the side has made in this setting.
        limits: What is too long.

    Returns:
        The length itself where it is predicted to be short enough. Else :data:`FEWEST`, if there was no such call yet
        to predict from; else as many as fit, if steady steps are read from no longer call yet. ``None`` if nothing is
        left to be measured.
    """
    if not done or length == 1:
        return length
    longest = max(done, key=len)
    guessed = len(longest) < 3  # the first epoch stands for all, with all that is compiled in it
    first_s, steady_s = longest[0], min(longest)
    limit_s = limits.longest_s if len(longest) > FEWEST else limits.steady_s
    if predicted(length, first_s, steady_s) <= limit_s:
        return length
    if guessed:
        return FEWEST
    fitting = epochs_that_fit(length, first_s, steady_s, limit_s)
    return fitting if len(longest) == FEWEST < fitting else None
