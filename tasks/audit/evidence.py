"""What an audit judges: the receipts of one lineage as they were recorded, and what the workspace says of them now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifacts import RECEIPTS, receipt_path
from tasks.lineage.chain import Receipt, Receipts
from tasks.running.dvc import md5

Places = Mapping[str, Path | None]  # path of each output -> a place that has its very bytes, None where there is none


@dataclass(frozen=True)
class Evidence:
    """One lineage: what was recorded with its run, and what the workspace has of the same stages."""

    workspace: Path
    cache: Path  # DVC's
    recorded: Mapping[str, bytes]  # stage -> its receipt as it was recorded with the run
    receipts: Receipts  # the same, parsed
    stages: Sequence[str]  # those behind the model, in the order in which they can run
    here: Mapping[str, bytes]  # stage -> its receipt in the workspace
    lock: Mapping[str, Any]  # dvc.lock; empty when it cannot be read

    @property
    def behind(self) -> list[tuple[str, Receipt]]:
        """Return (stage, receipt) of the stages behind the model."""
        return [(stage, self.receipts[stage]) for stage in self.stages]

    @property
    def current(self) -> list[str]:
        """Return the stages of which the workspace still holds this very execution, by its receipt or by dvc.lock."""
        recorded = {stage: self.recorded[stage] for stage in self.stages}
        return [
            stage for stage, receipt in recorded.items() if self.here.get(stage) == receipt or self.locked(stage) == md5(receipt)
        ]

    def locked(self, stage: str) -> str | None:
        """Return the md5 dvc.lock has of a stage's receipt, None when it has no such entry or one that cannot be read."""
        try:
            outs = {out["path"]: str(out["md5"]) for out in self.lock["stages"][stage]["outs"]}
        except (KeyError, TypeError):
            return None
        return outs.get(receipt_path(stage))


def read_receipts(folder: Path) -> dict[str, bytes]:
    """Return stage -> receipt of a folder of receipts; empty when there is none."""
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.json"))}


def receipts_here(workspace: Path) -> dict[str, bytes]:
    """Return stage -> receipt as the workspace has it now."""
    return read_receipts(workspace / RECEIPTS)
