"""What models said of each row or block, as it is stored: a table a set below `evaluated/predictions`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.artifacts import GROUP
from tasks.errors import StageError

INT8_COLUMN: Final = "prediction_int8"  # the class that the int8 file chose
SWAPPED: Final = "swapped_"  # before the number of a class: its probability where the two texts of a pair change places
BLOCK_COLUMNS: Final = ("row_id", "tokens", "bytes", "nll_nats", "choices", "agreed")
TEACHERS: Final = "teacher_choices"  # what the teacher holds most likely of a student's own tokens, where these differ
SAMPLES: Final = "greedy-samples"  # the file of continuations beside those of sets; no set can be called so

Rows = dict[str, Any]


def write_predictions(predictions: pd.DataFrame, folder: Path, name: str) -> None:
    """Write the predictions of a set as `<folder>/<name>.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(folder / f"{name}.parquet", index=False)


def read_rows(path: Path) -> Rows | None:
    """Return the columns of a classifier's predictions, logits as one array (rows x classes); None if unreadable.

    Of pairs also the group of each row, and probabilities with their texts swapped where they are known.
    """
    try:
        table = pq.read_table(path)
        columns, turned = (
            sorted((c for c in table.column_names if c.startswith(start)), key=lambda c: int(c.split("_")[1]))
            for start in ("logit_", SWAPPED)
        )
        logits, swapped = ([table[column].to_numpy() for column in names] for names in (columns, turned))
        return {
            "row_id": np.array(table["row_id"].to_pylist(), dtype=object),
            "label": table["label"].to_numpy(),
            "prediction": table["prediction"].to_numpy(),
            "logits": np.stack(logits, axis=1) if logits else np.zeros((len(table), 0), np.float32),
            "slices": table["slices"].to_pylist(),
            **({SWAPPED: np.stack(swapped, axis=1)} if swapped else {}),
            **({GROUP: np.array(table[GROUP].to_pylist(), dtype=object)} if GROUP in table.column_names else {}),
        }
    except (FileNotFoundError, KeyError, ValueError, pa.ArrowException):
        return None


def read_table(path: Path, columns: Sequence[str] = BLOCK_COLUMNS) -> pd.DataFrame | None:
    """Return a stored table that has these columns, those of a language model's blocks; None if unreadable."""
    try:
        table = pd.read_parquet(path)
    except (FileNotFoundError, KeyError, ValueError, pa.ArrowException):
        return None
    return table if set(columns) <= set(table) else None


def of_teacher(evaluated: Path, name: str, rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return these columns of what the teacher said of the same rows or blocks; StageError if it saw other ones."""
    path = evaluated / "predictions" / f"{name}.parquet"
    table = read_table(path, columns)
    if table is None or table["row_id"].tolist() != rows["row_id"].tolist():
        raise StageError("evaluate", f"{path} holds other rows than the {name} set; evaluate the teacher again")
    return table


def logits_of(evaluated: Path, name: str, rows: pd.DataFrame, classes: int) -> NDArray[np.float32]:
    """Return the teacher's logits (rows x classes) on the same rows; StageError as `of_teacher` raises it."""
    columns = [f"logit_{number}" for number in range(classes)]
    return of_teacher(evaluated, name, rows, ("row_id", *columns))[columns].to_numpy(dtype=np.float32)


def agreed_pieces(rows: pd.DataFrame, teacher: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each block how often student and teacher hold the same piece most likely, and of how many pieces."""
    others = rows[TEACHERS] if TEACHERS in rows else teacher["choices"]
    agreed = [int((choices == other).sum()) for choices, other in zip(rows["choices"], others, strict=True)]
    return np.array(agreed), np.array([len(choices) for choices in rows["choices"]])
