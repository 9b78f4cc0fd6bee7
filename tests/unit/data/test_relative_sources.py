"""A relative `path:` is one from the project, wherever in it somebody calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.data.sources import locate
from tasks.errors import SourceError


def test_a_relative_path_is_taken_from_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, below = tmp_path / "project", tmp_path / "project" / "notes"
    below.mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", "rows.csv", "notes/rows.csv"):
        (project / name).write_text(name)
    monkeypatch.chdir(project)
    assert locate("path:rows.csv", "data.source") == Path("rows.csv")
    monkeypatch.chdir(below)
    assert locate("path:rows.csv", "data.source").read_text() == "rows.csv"
    assert locate(f"path:{below}/rows.csv", "data.source").read_text() == "notes/rows.csv"
    with pytest.raises(SourceError, match=f"other.csv does not exist in {project}, from where a relative path is taken"):
        locate("path:other.csv", "data.source")
    with pytest.raises(SourceError, match="/no/such does not exist; give a path that does"):
        locate("path:/no/such", "data.source")
