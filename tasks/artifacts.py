"""The folder `search` of a round: planned.json of its pruning, the trainings of candidates beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tasks.files import write_json

TRIED: Final = "tried"  # folder of the short trainings below `search`, by the candidate's number
FINISHED: Final = "finished"  # folder of the full ones, by the place at which the candidate ranked


def write_planned(path: Path, candidates: int = 0, keep: int = 0) -> None:
    """Write planned.json, so that the folder `search` is there for `distill` to read, a search or not.

    What an earlier search with more candidates has left beside it goes: it would pass for something that was read.
    """
    drop_leftovers(path.parent, candidates, keep)
    write_json(path, {"candidates": candidates, "keep": keep})


def drop_leftovers(search: Path, candidates: int, keep: int) -> None:
    """Remove the trainings below `search` that are beyond this number of candidates, and of kept ones."""
    for kind, count in ((TRIED, candidates), (FINISHED, keep)):
        allowed = {str(number) for number in range(1, count + 1)}
        for folder in (search / kind).glob("*"):
            if folder.name not in allowed:
                shutil.rmtree(folder)
