"""The file that stands for a stage in OpenLineage events."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.attestation.openlineage import source_file


@pytest.mark.parametrize(
    ("task", "code", "expected"),
    [
        ("classification", ["tasks/stages/prune.py", "tasks/pruning/cut.py"], "tasks/stages/prune.py"),
        ("causal_lm", ["tasks/stages/prune.py", "tasks/pruning/cut.py"], "tasks/stages/prune.py"),
        # of earlier versions, in which the file of a classifier's stage was read for its arguments
        ("classification", ["tasks/prune.py", "tasks/stage.py"], "tasks/prune.py"),
        ("causal_lm", ["tasks/causal/prune.py", "tasks/prune.py", "tasks/stage.py"], "tasks/causal/prune.py"),
        (None, ["tasks/prune.py", "tasks/stage.py"], "tasks/prune.py"),
        # before receipts named their code
        (None, None, "tasks/prune.py"),
    ],
)
def test_a_stage_is_the_file_that_its_receipt_names(task: str | None, code: list[str] | None, expected: str) -> None:
    receipt: Any = {"command": ["prune", "--round", "r1"], "params": {"task": task} if task else {}}
    if code is not None:
        receipt["code"] = dict.fromkeys(code, "0" * 64)
    assert source_file(receipt) == expected
