"""Whether a step that was another in each epoch has come to rest, so that a program for it would last."""

from __future__ import annotations

from dataclasses import dataclass

from stoker.data.resident import ResidentBatches
from stoker.engines.capture import CaptureError, State
from stoker.engines.plan import CHANGES, form_digest
from stoker.engines.step import Step

__all__ = ["Changes", "settled_digest"]


@dataclass
class Changes:
    """For how many epochs running a step was another, and from then on for how many it has been the same.

    It is a function of what the step was in each epoch alone, and its three numbers are kept in checkpoints, so that a
    training that is resumed makes its programs where it would have made them.

    Attributes:
        count: Programs made in vain, one after the other.
        same: Once these are too many: epochs running in which the step was the same; 0 where a program was made of it.
        form: What it was in the last of them.
    """

    count: int = 0
    same: int = 0
    form: str | None = None

    def begin(self, step: Step, source: ResidentBatches, *, fits: bool) -> None:
        """Take note of an epoch that begins, and of whether the last program is still the step's."""
        if fits:
            self.count, self.same, self.form = 0, 0, None
        elif self.count < CHANGES:
            self.count += 1
        else:
            now = settled_digest(step, source)
            if self.same == 0:  # the program that was made last was in vain as well
                self.count, self.same = self.count + 1, 1
            else:
                self.same = self.same + 1 if now is not None and now == self.form else 1
            self.form = now
            if self.same >= 2 ** (self.count - CHANGES):  # 2 epochs, then 4, 8, …, lest programs be made forever
                self.same, self.form = 0, None

    @property
    def too_many(self) -> bool:
        """Whether no program is to be made in this epoch."""
        return self.count > CHANGES and self.same > 0


def settled_digest(step: Step, source: ResidentBatches) -> str | None:
    """A hash of a step's form that another process would come to as well; ``None`` where there is none."""
    try:
        return form_digest(step, source, State.of(step))
    except CaptureError:
        return None
