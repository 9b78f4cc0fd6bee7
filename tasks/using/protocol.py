"""The texts of a request as MLflow's scoring protocol writes them.

They stand in `inputs`, `instances`, `dataframe_split` or `dataframe_records`. What MLflow ignores beside them, such
as `params`, is ignored here too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tasks.data.pairs import SECOND
from tasks.errors import UserError

TEXT: Final = "text"
RECORDS: Final = "dataframe_records"
SPLIT: Final = "dataframe_split"
LISTS: Final = ("inputs", "instances")
EXAMPLE: Final = 'write {"inputs": ["a text", "another"]}'
OTHER_TYPES: Final = "application/json is read here, in UTF-8"


class RequestError(UserError):
    """A request that cannot be answered; `status` is what HTTP says of it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for: rows, and bytes of its body."""

    rows: int = 1_000
    bytes: int = 1_000_000


def require_json(content_type: str) -> None:
    """Raise RequestError unless a request says that it is JSON in UTF-8."""
    kind, *pairs = (part.strip().lower() for part in content_type.split(";"))
    if kind != "application/json":
        raise RequestError(f"content-type: {content_type or 'none'}: {OTHER_TYPES}", 415)
    for pair in pairs:
        name, _, value = pair.partition("=")
        if (name, value.strip('"')) != ("charset", "utf-8"):
            raise RequestError(f"content-type: {content_type}: {OTHER_TYPES}", 415)


def texts_of_body(body: bytes, limits: Limits, usual: str | None = None) -> list[str]:
    """Return the texts that a body asks about; RequestError with a sentence when it is no such request.

    They are those of the column `text`, or `usual`, or the only one.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:  # not UTF-8 is a ValueError too
        raise RequestError(f"the body is not JSON ({' '.join(str(error).split())[:200]}); {EXAMPLE}") from None
    if not isinstance(asked, dict):
        raise RequestError(f"the body is {_kind(asked)}, not an object; {EXAMPLE}")
    known = [key for key in (*LISTS, SPLIT, RECORDS) if key in asked]
    if len(known) != 1:
        given = f"it has {', '.join(known)}" if known else "it has none of them"
        raise RequestError(f"the body needs one of {', '.join((*LISTS, SPLIT, RECORDS))}, and {given}; {EXAMPLE}")
    [key] = known
    rows = _rows(key, asked[key], usual)
    if not rows:
        raise RequestError(f"{key}: holds no text; {EXAMPLE}")
    if len(rows) > limits.rows:
        raise RequestError(f"{key}: {len(rows):,} rows; at most {limits.rows:,} are answered at once, so send them in parts")
    return [_text(value, f"{key}: row {number}") for number, value in enumerate(rows, start=1)]


def _rows(key: str, value: Any, usual: str | None) -> Sequence[Any]:
    """Return the cells of the column of texts."""
    if key == SPLIT:
        return _of_split(value, usual)
    if key in LISTS and isinstance(value, dict):  # a list a column
        cells = value[_column(key, list(value), usual)]
        return cells if isinstance(cells, list) else [cells]
    if not isinstance(value, list):
        raise RequestError(f"{key}: is {_kind(value)}, not a list; {EXAMPLE}")
    if key in LISTS and not (value and isinstance(value[0], dict)):
        return value
    return _of_records(key, value, usual)


def _of_records(key: str, records: list[Any], usual: str | None) -> list[Any]:
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise RequestError(f'{key}: row {number}: is {_kind(record)}, not an object; write {{"{TEXT}": "..."}}')
    columns = list(dict.fromkeys(name for record in records for name in record))
    if not records:
        return []
    column = _column(key, columns, usual)
    return [record.get(column) for record in records]


def _of_split(value: Any, usual: str | None) -> list[Any]:
    example = f'write {{"columns": ["{TEXT}"], "data": [["a text"], ["another"]]}}'
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise RequestError(f"{SPLIT}: is no object with a list called data; {example}")
    rows = value["data"]
    if not all(isinstance(row, list) for row in rows):
        raise RequestError(f"{SPLIT}: data: each row is a list of cells; {example}")
    columns = value.get("columns")
    if columns is None:
        columns = [TEXT] if all(len(row) == 1 for row in rows) else []
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise RequestError(f"{SPLIT}: columns: are a list of names; {example}")
    uneven = next((number for number, row in enumerate(rows, start=1) if len(row) != len(columns)), None)
    if uneven is not None:
        raise RequestError(f"{SPLIT}: row {uneven}: has {len(rows[uneven - 1])} cells for {len(columns)} columns; {example}")
    if not rows:
        return []
    place = columns.index(_column(SPLIT, columns, usual))
    return [row[place] for row in rows]


def _column(key: str, columns: Sequence[str], usual: str | None) -> str:
    """Return the column of the texts."""
    if SECOND in columns:
        raise RequestError(
            f"{key}: column {SECOND}: answers to pairs of texts are not given here; `mlflow models serve` gives them"
        )
    found = next((name for name in (TEXT, usual) if name in columns), None)
    if found is None and len(columns) == 1:
        [found] = columns
    if found is None:
        names = ", ".join(columns[:20]) or "none"
        raise RequestError(f"{key}: no column is called {usual or TEXT} (columns: {names}); call the column of the texts so")
    return found


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{place}: is {_kind(value)}, not a string; each row needs a text")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise RequestError(f"{place}: holds half of a surrogate pair, which is no character")
    return value


def _kind(value: Any) -> str:
    kinds: Mapping[type, str] = {list: "a list", dict: "an object", bool: "true or false", type(None): "null", str: "a string"}
    return kinds.get(type(value), "a number")
