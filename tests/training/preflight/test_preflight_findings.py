"""What becomes of findings: an error that lists errors, warnings that are told."""

from __future__ import annotations

import pickle
import warnings

import pytest

from stoker.errors import CheckError, DataError
from stoker.training.preflight.findings import CheckWarning, Finding, act_on

BAD = Finding("error", "must be something else", "targets", "Change them.")
WORSE = Finding("error", "makes NaN", "module '1' (Log)", "Look there.")
ODD = Finding("warning", "is seldom meant", "outputs", "Think.")


def test_a_finding_reads_as_an_error_does() -> None:
    assert str(BAD) == "targets: must be something else. Change them."


def test_errors_are_listed_and_warnings_kept() -> None:
    with pytest.raises(CheckError) as caught:
        act_on([BAD, ODD, WORSE])
    assert str(caught.value) == (
        "check: the first batch must pass before training begins, got 2 errors. Mend what is listed here; check=False "
        "leaves the check out.\n- targets: must be something else. Change them.\n- module '1' (Log): makes NaN. Look "
        "there."
    )
    assert caught.value.findings == (BAD, ODD, WORSE)
    assert isinstance(caught.value, DataError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.findings) == (str(caught.value), caught.value.findings)


def test_one_error() -> None:
    with pytest.raises(CheckError, match=r"got 1 error\. .*\n- targets: must be something else\. Change them\.$"):
        act_on([BAD])


def test_warnings_are_told_one_by_one() -> None:
    with pytest.warns(CheckWarning) as told:
        act_on([ODD, Finding("warning", "too", "inputs", "Well.")])
    assert [str(warning.message) for warning in told] == ["outputs: is seldom meant. Think.", "inputs: too. Well."]


def test_nothing_is_said_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        act_on([])
