"""Scratch for work that can be killed: what is needed to go on exactly where it stood, outside of DVC's outputs.

A scratch belongs to one key (the digest of everything the work depends on); one with another key is thrown away.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Final

import torch

from tasks.entry import entry_of
from tasks.files import digest, listing_sha256

ROOT: Final = Path(".compactlm") / "scratch"
SAVE_EVERY_SECONDS: Final = 20.0
MAX_SAVE_SHARE: Final = 0.05  # of the time; a large model's state is a gigabyte


def scratch_key(facts: dict[str, Any]) -> str:
    """Return the digest of what a resumable piece of work depends on: the facts, and the code that DVC watches for its stage."""
    return hashlib.sha256(json.dumps({**facts, "code": _code_sha256()}, sort_keys=True).encode()).hexdigest()


def _code_sha256() -> str:
    """Return one digest of the code of the stage that DVC runs, by dvc.yaml; of all of `tasks` where none is known."""
    entry = entry_of(os.environ.get("DVC_STAGE", ""))
    code = Path(__file__).parents[1]
    places = [code] if entry is None else [code.parent / path for path in entry.code]
    return listing_sha256({place.relative_to(code.parent).as_posix(): digest(place)["sha256"] for place in places})


class Scratch:
    """A folder `<root>/<stage>` holding `state.pt`, `steps.jsonl` and `checkpoints/` of unfinished work."""

    def __init__(self, stage: str, key: str, root: Path = ROOT) -> None:
        self.folder = root / stage
        self.steps = self.folder / "steps.jsonl"
        self.checkpoints = self.folder / "checkpoints"
        self._state = self.folder / "state.pt"
        self._last_save = time.monotonic()
        self._save_seconds = 0.0
        key_file = self.folder / "key"
        if not key_file.exists() or key_file.read_text(encoding="utf-8") != key:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.checkpoints.mkdir(parents=True)
            key_file.write_text(key, encoding="utf-8")

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state, or None when there is none; tensors only, no pickled code."""
        if not self._state.exists():
            self._cut_steps(0)
            return None
        state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        self._cut_steps(int(state["step"]))
        return state

    def due(self) -> bool:
        """Return whether it is time to save again; the moment never changes the result, only what a kill costs."""
        return time.monotonic() - self._last_save > max(SAVE_EVERY_SECONDS, self._save_seconds / MAX_SAVE_SHARE)

    def save(self, state: dict[str, Any]) -> None:
        """Write the state whole or not at all; it must hold `step`."""
        began = time.monotonic()
        partial = self._state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state)
        self._last_save = time.monotonic()
        self._save_seconds = self._last_save - began

    def record(self, line: dict[str, Any]) -> None:
        """Append one object to steps.jsonl, where a follower can read it at once."""
        with self.steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")

    def remove(self) -> None:
        """Remove the scratch: the work is done and its results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _cut_steps(self, last_step: int) -> None:
        """Drop the lines of steps that will be done again."""
        if not self.steps.exists():
            return
        lines = self.steps.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= last_step]
        self.steps.write_text("".join(kept), encoding="utf-8")
