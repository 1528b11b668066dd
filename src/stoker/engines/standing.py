"""What an engine must know to go on in another process as it would have gone on in this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stoker.errors import CheckpointError

__all__ = ["Standing"]


@dataclass(frozen=True)
class Standing:
    """Which engine carries out the steps, and how it came to that.

    A program is made anew from the step, which comes to the same one. What is kept is what only the steps made so far
    could tell, or a clock.

    Attributes:
        engine: The name by which the engine was asked for.
        program: Whether a program makes the steps.
        refusal: Why none ever will; ``None`` if that is open, or if one does.
        idle: Parameters that got no gradient.
        exported: Whether the program went through its saved form, which may round otherwise.
        noise: What seeds the noise of the epoch under way, where the program makes its steps; ``None`` between epochs,
            and where what is left of an epoch is made eagerly.
        timed: Whether a clock had its part in it.
        since: From where on, in words.
        reason: Why the eager engine's steps stand in, in words; ``None`` if they do not.
        changes: How often the step became another.
        same: For how many epochs it has been the same since; see :class:`stoker.engines.settled.Changes`.
        form: A hash of the step's form, between epochs: what is made for it does not hold for another. Where nothing is
            made any more, that of the last epoch.
        rates_constant: Whether the model's code looks at its dropout rates; see
            :func:`stoker.engines.rates.are_constant`.
    """

    engine: str
    program: bool = False
    refusal: str | None = None
    idle: frozenset[str] = frozenset()
    exported: bool = False
    noise: int | None = None
    timed: bool = False
    since: str = ""
    reason: str | None = None
    changes: int = 0
    same: int = 0
    form: str | None = None
    rates_constant: bool = False

    @property
    def choice(self) -> tuple[bool, str | None] | None:
        """What a clock has decided, and would decide otherwise another time; ``None`` if nothing."""
        return (self.program, self.refusal) if self.timed else None

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "idle": sorted(self.idle)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Standing:
        """Read plain data, of which nothing is taken for granted.

        Raises:
            CheckpointError: They are of another form.
        """
        kinds: dict[str, tuple[type, ...]] = {
            "engine": (str,),
            "program": (bool,),
            "refusal": (str, type(None)),
            "idle": (list,),
            "exported": (bool,),
            "noise": (int, type(None)),
            "timed": (bool,),
            "since": (str,),
            "reason": (str, type(None)),
            "changes": (int,),
            "same": (int,),
            "form": (str, type(None)),
            "rates_constant": (bool,),
        }
        data = {"same": 0, "rates_constant": False, **data}  # checkpoints of before they were kept
        fits = set(data) == set(kinds) and all(isinstance(data[name], kind) for name, kind in kinds.items())
        if not fits or not all(isinstance(name, str) for name in data["idle"]):
            raise CheckpointError("checkpoint", "must say how its engine stood", str(data)[:100], "It is damaged.")
        return cls(**{**data, "idle": frozenset(data["idle"])})
