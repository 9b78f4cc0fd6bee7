"""Sets of rows as parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pandas as pd

COLUMNS: Final = ("row_id", "text", "label", "source")
NO_LABEL: Final = -1
SETS_WITHOUT_CALIBRATION: Final = ("train", "validation", "test", "transfer")


def write_sets(sets: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write each set as `<set>.parquet` with the columns `COLUMNS`, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in sets.items():
        frame.loc[:, list(COLUMNS)].reset_index(drop=True).to_parquet(folder / f"{name}.parquet", index=False)


def rows_sha256(row_ids: Iterable[str]) -> str:
    """Return the sha256 of the row ids, one a line, in their order: two evaluations with the same one can be paired."""
    return hashlib.sha256("".join(f"{row_id}\n" for row_id in row_ids).encode()).hexdigest()


def read_sets(folder: Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return the named sets of a folder."""
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
