"""The name of a workspace among others: kept while it is the same folder, another one in a copy."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.running.identity import ID, PLACE, workspace_id


def test_a_workspace_keeps_its_name_and_a_copy_has_its_own(tmp_path: Path) -> None:
    project = tmp_path / "a" / "project"
    project.mkdir(parents=True)
    with ThreadPoolExecutor(8) as pool:
        [first] = set(pool.map(lambda _: workspace_id(project), range(8)))
    assert ID.fullmatch(first)
    copy = Path(shutil.copytree(project, tmp_path / "b" / "project"))  # time stamps and all
    other = workspace_id(copy)
    assert other != first
    moved = project.rename(tmp_path / "moved")
    assert (workspace_id(moved), workspace_id(copy)) == (first, other)
    assert [path.name for path in (moved / PLACE.parent).iterdir()] == [PLACE.name]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "../../x", "inode": 1}'])
def test_a_file_that_says_no_name_is_made_again(tmp_path: Path, content: str) -> None:
    (tmp_path / PLACE.parent).mkdir()
    (tmp_path / PLACE).write_text(content)
    assert workspace_id(tmp_path) == workspace_id(tmp_path)
