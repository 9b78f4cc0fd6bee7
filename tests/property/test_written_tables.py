"""Tables written by others come back as they were, with marks, separators and line ends in their texts."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.tables import read_table

TEXTS = st.lists(st.text('ab ,"\n\t;', max_size=12).map("x{}".format), min_size=1, max_size=6, unique=True)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_what_pandas_writes_is_read(tmp_path_factory: pytest.TempPathFactory, name: str, separator: str, quoting: int) -> None:
    path: Path = tmp_path_factory.mktemp("tables") / name

    @given(texts=TEXTS, text_first=st.booleans())
    def comes_back(texts: list[str], text_first: bool) -> None:
        rows = pd.DataFrame({"text": texts, "label": [("negative", "positive")[i % 2] for i in range(len(texts))]})
        rows = rows if text_first else rows[["label", "text"]]
        rows.to_csv(path, index=False, sep=separator, quoting=quoting)
        table = read_table(path, {"text": "text", "label": "label"})
        assert table.cells == {"text": rows["text"].tolist(), "label": rows["label"].tolist()}

    comes_back()
