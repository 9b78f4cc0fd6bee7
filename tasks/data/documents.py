"""Documents of a language model's data: a table with a text column, or a folder of .txt files, cut into sets by hash.

A document goes where the hash of its cleaned, lower-cased text points, so the order of documents and the addition of
others move none, and no text stands in two sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from tasks.data.clean import row_id
from tasks.data.faults import missing_columns, tidy_label
from tasks.data.frames import in_hash_order
from tasks.data.read import frame_of
from tasks.data.sources import data_file, is_text_folder, text_files
from tasks.data.splits import SPLITS, set_at
from tasks.data.tables import UTF16, read_table
from tasks.errors import DataError

COLUMNS: Final = ("row_id", "text", "source")


def read_documents(place: Path, columns: Mapping[str, Any] | None, key: str) -> pd.DataFrame:
    """Return text and source of every document below `place`, line ends and outer white space tidied.

    `columns` names the columns of a table, None for a folder of .txt files, where a document's source is its folder.
    Raises DataError when the two do not fit; `key` is the section of params.yaml for the message.
    """
    if is_text_folder(place):
        if columns is not None:
            raise DataError(f"{key}.columns: {place} holds .txt files, which have no columns; write columns: null")
        files = text_files(place, key).items()
        rows = [(decoded(file.name, file.read_bytes()), Path(name).parent.as_posix()) for name, file in files]
        table = pd.DataFrame(rows, columns=["text", "source"])
        return table.assign(text=table["text"].map(tidy))
    file = data_file(place)
    if columns is None:
        raise DataError(f"{key}.columns: {file.name} is a table; name its columns, e.g. {{text: text, source: null}}")
    cells = read_table(file, columns)
    problems = missing_columns(cells.names, columns)
    if problems:
        raise DataError("\n".join(f"{file.name}: {problem}" for problem in problems))
    table = frame_of(cells)
    source = table[columns["source"]].map(tidy_label) if columns["source"] else pd.Series("data", index=table.index, dtype=str)
    return pd.DataFrame({"text": table[columns["text"]].map(tidy), "source": source})


def decoded(name: str, raw: bytes) -> str:
    """Return the text of a file of this name: UTF-8, UTF-16 with its mark, or else as old newspaper archives were written."""
    if raw.startswith(UTF16):
        return raw.decode("utf-16", errors="replace")
    if b"\0" in raw:
        raise DataError(f"{name} holds NUL bytes: it is no text, or UTF-16 without a byte order mark; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def tidy(text: str) -> str:
    """Return a text with `<br />` and carriage returns as line ends, no blank at the end of a line, and no outer space."""
    lines = text.replace("<br />", "\n").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def document_ids(texts: pd.Series[str]) -> list[str]:
    """Return the name of each document: the row_id of its words on one line."""
    return [row_id(" ".join(text.split())) for text in texts]


def unique_documents(raw: pd.DataFrame) -> pd.DataFrame:
    """Return row_id, text and source, one row a text, sorted by row_id; empty texts are left out."""
    rows = raw[raw["text"] != ""]
    rows = rows.assign(row_id=document_ids(rows["text"]))
    rows = rows.sort_values(["row_id", "source", "text"]).drop_duplicates("row_id", ignore_index=True)
    return rows.loc[:, list(COLUMNS)]


def make_document_sets(
    main: pd.DataFrame, others: Mapping[str, pd.DataFrame], data: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """Return train, validation, test and the further sets, each in the hash order of its own name.

    `main` and `others` come from `read_documents`, `data` is the section `data` of params.yaml as plain values. A document
    of a further set that stands in the main data too is left out of the further set. Raises DataError for an empty set.
    """
    rows = unique_documents(_chosen(main, data["text_sources"]))
    place = rows["row_id"].map(lambda row: set_at(row, data["splits"]))
    sets = {name: rows[place == name] for name in SPLITS}
    taken = set(rows["row_id"])
    for name, raw in others.items():
        documents = unique_documents(raw)
        sets[name] = documents[~documents["row_id"].isin(taken)]
        taken |= set(documents["row_id"])
    for name, documents in sets.items():
        if documents.empty:
            raise DataError(f"set {name} has no document; add some, or raise data.splits.{name}")
    return {name: in_hash_order(documents, name).reset_index(drop=True) for name, documents in sets.items()}


def _chosen(main: pd.DataFrame, sources: list[str] | None) -> pd.DataFrame:
    if sources is None:
        return main
    known = sorted(main["source"].unique())
    for source in sources:
        if source not in known:
            raise DataError(f"data.text_sources: no document has the source {source!r}; there are {', '.join(known[:10])}")
    return main[main["source"].isin(sources)]
