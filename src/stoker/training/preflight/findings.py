"""What a check finds: what is wrong, where, and how to mend it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stoker.errors import CheckError

__all__ = ["CheckWarning", "Finding", "act_on"]


class CheckWarning(UserWarning):
    """Something that lets training go on, but is seldom meant."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        severity: ``"error"`` for what makes training fail or be in vain; ``"warning"`` for what is seldom meant.
        what: What is wrong, without a full stop.
        where: What it is about: a module by its path, parameters by their names, the targets.
        fix: How to mend it, as full sentences.
    """

    severity: Literal["error", "warning"]
    what: str
    where: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.fix}"


def act_on(findings: Iterable[Finding], *, stacklevel: int = 1) -> None:
    """Stop at errors, and tell warnings.

    Args:
        findings: What a check found.
        stacklevel: As for ``warnings.warn``, seen from the caller.

    Raises:
        CheckError: There is an error; its ``findings`` are all that were made.
    """
    findings = tuple(findings)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raised = CheckError(
            "check",
            "the first batch must pass before training begins",
            f"{len(errors)} error{'s' if len(errors) > 1 else ''}",
            "Mend what is listed here; check=False leaves the check out.",
        )
        raised.findings = findings
        raise raised
    for finding in findings:
        warnings.warn(str(finding), CheckWarning, stacklevel=stacklevel + 1)
