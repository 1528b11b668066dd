"""``stoker`` whose trials take time, and keep a checkpoint of each epoch: python slow_stoker.py LOG COMMAND …"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from stoker.cli import main
from stoker.training.history import Row
from stoker.tuning import interrupted
from stoker.tuning.objectives import _Reporter

SECONDS = 0.1  # of an epoch
LOG = Path(sys.argv.pop(1))
told = _Reporter.on_epoch_end


def slowly(self: _Reporter, row: Row, is_best: bool) -> bool:
    with LOG.open("a") as log:
        log.write(f"{self._trial.number} {int(row['epoch'])}\n")
    time.sleep(SECONDS)
    return told(self, row, is_best)


if __name__ == "__main__":
    interrupted.EVERY = "1epoch"
    _Reporter.on_epoch_end = slowly  # type: ignore[method-assign]
    main()
