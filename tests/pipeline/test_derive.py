"""Deriving in a process of its own: the same answer as in this one, and a clear end where that process dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ASKS = """
import sys
from pathlib import Path
from tasks.audit.derive import derive, deriver
from tasks.audit.evidence import Evidence

RECEIPTS = {
    "teacher": {"outputs": {"artifacts/w": {"sha256": "0" * 64, "size_bytes": 1}}, "inputs": {}},
    "gate@r1": {"inputs": {}, "outputs": {}, "params": {"rounds": {"r1": {"parent": "teacher"}}}},
    "prune@r1": {"inputs": {}, "outputs": {}, "params": {"rounds": {"r1": {"parent": "teacher"}}}},
    "distill@r1": {"inputs": {}, "outputs": {}, "params": {"rounds": {"r1": {"parent": "teacher"}}}},
}

if __name__ == "__main__":
    stages = ["teacher", "prune@r1", "distill@r1", "gate@r1"]
    evidence = Evidence(Path(), Path(), {}, RECEIPTS, stages, {}, {}, {}, places={"artifacts/w": None})
    asked = (evidence, Path(sys.argv[1]))
    with deriver() as start:
        apart = start(*asked)()
    assert "torch" not in sys.modules, "the audit itself imported torch"
    assert apart == derive(*asked), apart
    print(sorted({f"{finding.name} {finding.result}" for finding in apart}))
"""

DIES = """
import os
from pathlib import Path
from tasks.audit import derive
from tasks.errors import StageError

class Deadly(dict):
    def __reduce__(self):
        return (os._exit, (9,))

if __name__ == "__main__":
    with derive.deriver() as start:
        answer = start(Deadly(), Path())
        try:
            answer()
        except StageError as error:
            print(error)
"""


def run(tmp_path: Path, text: str) -> str:
    script = tmp_path / "script.py"
    script.write_text(text, encoding="utf-8")
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # every audit of the quick tests derives in such a process
def test_a_process_of_its_own_gives_the_same_checks(tmp_path: Path) -> None:
    assert "checkpoints UNKNOWN" in run(tmp_path, ASKS)


def test_a_process_that_dies_is_no_answer(tmp_path: Path) -> None:
    assert run(tmp_path, DIES).strip() == "audit: deriving again ended with exit code 9"
