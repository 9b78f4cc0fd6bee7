"""Git gives every file its very bytes, also where it is told to change line ends: all of them are hashed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {
    "decisions.jsonl": b'{"number": 1}\n',
    "dvc.lock": b"schema: '2.0'\nstages: {}\n",
    "params.yaml": b"seed: 1\n",
    "approvals/answer.json": b"{\n}\n",
    "tasks/stages/prune.py": b"x = 1\n",
    "notes.txt": b"written\r\nelsewhere\r\n",
}


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True)


@pytest.mark.parametrize("convert", ["true", "input", "false"])
def test_a_clone_has_the_same_bytes_whatever_git_is_told_about_line_ends(tmp_path: Path, convert: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    shutil.copy(ROOT / ".gitattributes", first)
    for name, content in FILES.items():
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_bytes(content)
    git(first, "init", "--quiet")
    git(first, "-c", f"core.autocrlf={convert}", "add", ".")
    git(first, "commit", "--quiet", "--message", "as written")
    git(
        tmp_path,
        "-c",
        f"core.autocrlf={convert}",
        "clone",
        "--quiet",
        "--config",
        f"core.autocrlf={convert}",
        str(first),
        str(second),
    )
    assert {name: (second / name).read_bytes() for name in FILES} == FILES
