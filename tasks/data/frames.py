"""Sets of rows as parquet files."""

from __future__ import annotations

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


def read_sets(folder: Path, names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return the named sets of a folder."""
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
