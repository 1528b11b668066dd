"""A few real kills in the suite; ``make test-chaos`` has many."""

from __future__ import annotations

import subprocess
import sys

import pytest
from campaign import shortfall


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it forks, and looks into folders at the right moment")
def test_a_few_kills() -> None:
    # in a process of its own, as this one has threads by now
    command = [sys.executable, "-m", "tests.chaos.campaign", "--kills", "6", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n6 kills (" in done.stdout
    assert "0 differences" in done.stdout


def test_a_long_campaign_must_meet_half_written_checkpoints() -> None:
    assert shortfall(56, 3) == ""
    assert shortfall(49, 0) == "", "so few may all come too late"
    assert shortfall(56, 0).startswith("none of 56 kills met a half-written checkpoint")
