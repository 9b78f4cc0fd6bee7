"""What is said of documents that nothing should be trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.data import causal_lm
from tasks.data.sources import MAIN

DATA: dict[str, Any] = {
    "source": "path:documents.jsonl",
    "columns": {"text": "text", "source": None},
    "text_sources": None,
    "splits": {"validation": 0.2, "test": 0.2},
    "evaluation_sets": {"news": {"columns": None}},
}
LIMITS = {"min_documents": 20, "max_duplicate_share": 0.05, "max_characters": 100}
TEXTS = [f"document number {i}" for i in range(40)]


def write(folder: Path, texts: list[str]) -> Path:
    """Write the documents as `fetch` leaves them, with a further set in a folder of texts."""
    (folder / MAIN).mkdir(parents=True)
    (folder / "news").mkdir()
    (folder / MAIN / "documents.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "news" / "first.txt").write_text("something new")
    return folder


def test_sound_documents_are_cut_into_the_sets_that_prepare_makes(tmp_path: Path) -> None:
    fetched = write(tmp_path / "data", TEXTS)
    checked = causal_lm.checked(fetched, DATA, LIMITS)
    assert list(checked.suites) == ["1-documents", "2-sets"]
    assert not any(check.problems for _, checks in checked.suites.values() for check in checks)
    sets = causal_lm.sets_of(fetched, DATA)
    assert {name: facts["rows"] for name, facts in checked.sets.items()} == {name: len(f) for name, f in sets.items()}
    assert checked.sets["news"] == {"rows": 1, "classes": {}, "sources": ["."]}


def test_every_fault_is_said_with_its_place_and_nothing_is_cut(tmp_path: Path) -> None:
    texts = [*TEXTS[:10], "", "x" * 101, TEXTS[0], TEXTS[0].upper(), TEXTS[1]]
    checked = causal_lm.checked(write(tmp_path / "data", texts), DATA, LIMITS)
    assert list(checked.suites) == ["1-documents"]
    assert checked.sets == {}
    assert [problem for _, checks in checked.suites.values() for check in checks for problem in check.problems] == [
        "15 documents; at least 20 are asked (validate_data.min_documents). Add some.",
        "1 documents without text, e.g. number 11. Fill them in or delete them.",
        "1 text is longer than 100 characters (validate_data.max_characters): document 12 (101). Cut them, or raise the limit.",
        "3 of 15 documents (20.0%) repeat an earlier text, e.g. 'document number 0' x 3; at most 5.0% may "
        "(validate_data.max_duplicate_share). Delete the copies.",
    ]
