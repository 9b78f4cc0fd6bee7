"""Documents of a language model: the sets that they are cut into, and what is checked of them before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.data import checks
from tasks.data.checks import Checked, Expectation, Suites
from tasks.data.documents import document_ids, make_document_sets, read_documents
from tasks.data.sources import MAIN
from tasks.data.tables import EXAMPLES
from tasks.files import digest

# `data` and `limits` are the sections data and validate_data of params.yaml as plain values.
Values = Mapping[str, Any]


def sets_of(fetched: Path, data: Values) -> dict[str, pd.DataFrame]:
    """Return the sets of documents that follow from the fetched data."""
    return _cut(_main(fetched, data), fetched, data)


def _main(fetched: Path, data: Values) -> pd.DataFrame:
    return read_documents(fetched / MAIN, data["columns"], "data")


def _cut(main: pd.DataFrame, fetched: Path, data: Values) -> dict[str, pd.DataFrame]:
    others = {
        name: read_documents(fetched / name, further["columns"], f"data.evaluation_sets.{name}")
        for name, further in data["evaluation_sets"].items()
    }
    return make_document_sets(main, others, data)


def checked(fetched: Path, data: Values, limits: Values) -> Checked:
    """Return what is checked of the fetched documents: only those that are sound are cut into sets."""
    main = _main(fetched, data)
    documents = _document_frame(main)
    suites: Suites = {"1-documents": (documents, _document_checks(documents, limits))}
    sha256 = digest(fetched)["sha256"]
    if checks.fails(suites):
        return Checked(data["source"], sha256, suites)
    sets = _cut(main, fetched, data)
    members = checks.members_of(sets)
    suites = {**suites, "2-sets": (members, [checks.one_set_each("document", members)])}
    return Checked(data["source"], sha256, suites, checks.described(sets, {}))


def _document_frame(raw: pd.DataFrame) -> pd.DataFrame:
    """Return row (from 1), row_id, text and characters of every document."""
    rows, texts = range(1, len(raw) + 1), raw["text"].to_numpy()
    frame = pd.DataFrame({"row": rows, "text": texts, "row_id": document_ids(raw["text"])})
    return frame.assign(characters=frame["text"].str.len())


def _document_checks(documents: pd.DataFrame, limits: Values) -> list[Expectation]:
    """Return the checks on single documents, on how many there are, and on how often texts repeat."""
    least, empty = limits["min_documents"], documents[documents["characters"] == 0]
    few = f"{len(documents)} documents; at least {least} are asked (validate_data.min_documents). Add some."
    numbers = ", ".join(str(row) for row in empty["row"].head(EXAMPLES))
    blank = f"{len(empty)} documents without text, e.g. number {numbers}. Fill them in or delete them."
    too_few = [few] if len(documents) < least else []
    return [
        Expectation("documents", "expect_table_row_count_to_be_between", {"min_value": least}, too_few),
        checks.values_between("empty_texts", "characters", [blank] if len(empty) else [], min_value=1),
        checks.short_texts(documents, limits["max_characters"], "document"),
        checks.few_copies(documents, limits["max_duplicate_share"], "document"),
    ]
