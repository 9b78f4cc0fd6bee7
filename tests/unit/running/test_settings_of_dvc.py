"""A stage that DVC runs, for a person who has settings of DVC, of Python and of the shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.running.dvc import StageRunner, cache_folder

SETTINGS = """
[core]
    autostage = true
    analytics = true
    check_update = true
    hardlink_lock = true
[cache]
    type = symlink
    dir = CACHE
"""


def test_a_stage_runs_the_code_of_its_workspace_whatever_a_person_has_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my project [x]"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "__init__.py").touch()
    (folder / "tasks" / "__main__.py").write_text("open('made', 'w').write('by the workspace')\n")
    (folder / "dvc.yaml").write_text("stages:\n  make:\n    cmd: python -m tasks\n    outs: [made]\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (tmp_path / "config").write_text(SETTINGS.replace("CACHE", str(tmp_path / "cache")))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path))
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=folder, check=True)
    monkeypatch.setenv("SHELL", "/bin/false")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with StageRunner(folder) as runner:
        assert runner.run("make", lambda _: None) == "executed"
    assert (folder / "made").read_text() == "by the workspace"
    assert (folder / "made").is_symlink()
    assert cache_folder(folder) == tmp_path / "cache"
