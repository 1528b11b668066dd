"""The engines by name; the compiled one is imported when it is asked for, since JAX takes its time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping

from stoker.engines.auto import AutoEngine
from stoker.engines.eager import EagerEngine
from stoker.engines.step import Engine
from stoker.engines.together import Lane
from stoker.errors import UnknownNameError

__all__ = ["ENGINES", "choose_engine"]


def _compiled(lane: Lane | None = None) -> Engine:
    if importlib.util.find_spec("jax") is None:
        return EagerEngine("JAX is not installed")
    try:
        from stoker.engines.compiled import CompiledEngine
    except ImportError as error:  # a JAX that is there, and broken
        return EagerEngine(f"JAX cannot be imported ({' '.join(str(error).split())[:200]})")
    return CompiledEngine(lane)


def _auto(*, deterministic: bool = False, trainings: int = 1) -> Engine:
    if importlib.util.find_spec("jax") is None:
        return EagerEngine("JAX is not installed")
    return AutoEngine(deterministic=deterministic, trainings=trainings)


ENGINES: Mapping[str, Callable[..., Engine]] = {"auto": _auto, "eager": EagerEngine, "compiled": _compiled}


def choose_engine(name: str, *, deterministic: bool = False, trainings: int = 1, lane: Lane | None = None) -> Engine:
    """A new engine.

    Args:
        name: One of :data:`ENGINES`.
        deterministic: Whether ``"auto"`` must not look at a clock.
        trainings: How many there are to be of about this length, for which ``"auto"`` then chooses at once.
        lane: Where the training is one of several that meet for their steps; ``"auto"`` is ``"compiled"`` then.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, list(ENGINES))
    if lane is not None:
        lane.engine = EagerEngine() if name == "eager" else _compiled(lane)
        return lane.engine
    return _auto(deterministic=deterministic, trainings=trainings) if name == "auto" else ENGINES[name]()
