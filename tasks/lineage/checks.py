"""The answers of an audit: named checks that pass, fail, or cannot be decided, each with what was expected and found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Result = Literal["PASS", "FAIL", "UNKNOWN"]

EXIT_CODES: Final[dict[Result, int]] = {"PASS": 0, "FAIL": 1, "UNKNOWN": 3}  # 2 is what the user can mend, as everywhere


@dataclass(frozen=True)
class Finding:
    """One answer: which check, of what (a file, a stage, a tag), its result, and what was expected and found."""

    name: str
    subject: str
    result: Result
    expected: str = ""
    found: str = ""
    sentence: str = ""


def passed(name: str, subject: str, sentence: str) -> Finding:
    """Return a check that passed."""
    return Finding(name, subject, "PASS", sentence=sentence)


def failed(name: str, subject: str, expected: object, actual: object, sentence: str) -> Finding:
    """Return a check that failed."""
    return Finding(name, subject, "FAIL", _short(expected), _short(actual), sentence)


def unknown(name: str, subject: str, sentence: str) -> Finding:
    """Return a check that cannot be decided; never counted as passed."""
    return Finding(name, subject, "UNKNOWN", sentence=sentence)


def compare(name: str, subject: str, expected: object, actual: object, sentence: str) -> list[Finding]:
    """Return nothing when two values are equal, else one failed check."""
    return [] if expected == actual else [failed(name, subject, expected, actual, sentence)]


def whole(name: str, subject: str, findings: Sequence[Finding], sentence: str) -> list[Finding]:
    """Return the given failures and doubts, or when there are none one check that passed."""
    return list(findings) or [passed(name, subject, sentence)]


def overall(checks: Sequence[Finding]) -> Result:
    """Return FAIL if a check failed, else UNKNOWN if one cannot be decided or none was made, else PASS."""
    results = {check.result for check in checks}
    if "FAIL" in results:
        return "FAIL"
    return "UNKNOWN" if "UNKNOWN" in results or not results else "PASS"


def as_json(checks: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the checks as plain values."""
    return [asdict(check) for check in checks]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
