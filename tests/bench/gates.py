"""How often a gate with a proof lets through a model it must not, and stops one it should not: by simulation.

Each simulated pair of models differs on a share of the rows, as students and teachers do. `equal` is a student as good as
its teacher; `at the margin` one exactly as much worse as is allowed; `3 points worse` one 3 points worse than that.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from tasks.gates.paired import TESTS, Pairs, paired_bootstrap
from tasks.gates.proof import decide, find
from tasks.gates.rules import Rule
from tasks.params.classification import ClassificationParams

DIFFERING: Final = (0.06, 0.10, 0.13)  # share of rows on which exactly one of the two is right


def measure(params: ClassificationParams, rows: int, models: int) -> dict[str, Any]:
    """Return the share of `models` simulated students that pass, by test, truth and share of differing rows."""
    gates = [one for one in params.gates if one.test is not None and one.bound == "max_drop"]
    if not gates or gates[0].max_drop is None or gates[0].confidence is None:
        return {"rules_with_proof": 0}
    margin, confidence = gates[0].max_drop, gates[0].confidence
    found: dict[str, Any] = {"rows": rows, "models": models, "max_drop": margin, "confidence": confidence}
    for test in TESTS:
        for truth, drop in (("equal", 0.0), ("at the margin", margin), ("3 points worse", margin + 0.03)):
            shares = [share_passing(test, rows, models, max(share, drop + 0.01), drop, margin, confidence) for share in DIFFERING]
            found[f"{test}, {truth}"] = ", ".join(f"{share:.3f}" for share in shares)
    began = time.perf_counter()
    paired_bootstrap(Pairs(5000, 300, 280, 600), margin, confidence, 10_000, params.seed)
    found["milliseconds_of_10000_resamples_of_5000_rows"] = round(1000 * (time.perf_counter() - began), 1)
    return found


def share_passing(
    test: str, rows: int, models: int, differing: float, drop: float, margin: float, confidence: float, seed: int = 0
) -> float:
    """Return the share of students, truly `drop` worse and differing on a share of the rows, that the rule passes."""
    rule = Rule("accuracy", "test", "overall", "teacher", "max_drop", margin, "block", test=test, confidence=confidence)
    rng = np.random.default_rng(seed)
    lost, gained = (differing + drop) / 2, (differing - drop) / 2
    drawn = rng.multinomial(rows, [lost, gained, 1 - differing], size=models)
    passed = 0
    for number, (losses, gains, _) in enumerate(drawn):
        pairs = Pairs(rows, int(losses), int(gains), int(losses + gains))
        passed += decide([rule], [find(rule, pairs, number)])[0][0] == "pass"
    return passed / models
