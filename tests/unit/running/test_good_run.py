"""The age of the last run that ended well: kept by runs that are recorded, and null where none is known."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tasks.running.good_run import PLACE, good_run_words, read_good_run, write_good_run

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_it_is_as_old_as_the_time_since_it_ended(tmp_path: Path) -> None:
    assert read_good_run(tmp_path) is None
    write_good_run(tmp_path, {"fetch": "skipped", "prune@r1": "restored"}, COMMIT)
    first = read_good_run(tmp_path)
    assert first is not None
    assert (first["commit"], first["worked"], first["age_seconds"] < 60) == (COMMIT, True, True)
    later = datetime.fromisoformat(first["ended"]) + timedelta(days=3)
    again = read_good_run(tmp_path, later)
    assert again is not None
    assert again["age_seconds"] == 3 * 86400
    assert good_run_words(again) == "3 days ago, of commit 0123456789ab"
    write_good_run(tmp_path, {"fetch": "skipped"}, "")
    assert good_run_words(read_good_run(tmp_path)).endswith("seconds ago, with nothing to do")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"ended": 1, "commit": "", "worked": true}', '{"ended": "2026-01-01"}'])
def test_a_file_that_holds_no_record_is_none(tmp_path: Path, content: str) -> None:
    place = tmp_path / PLACE
    place.parent.mkdir()
    place.write_text(content, encoding="utf-8")
    assert read_good_run(tmp_path) is None
    assert good_run_words(None) == "none is known here"
