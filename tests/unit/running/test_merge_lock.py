"""dvc.lock and sources.lock are merged entry by entry, by Git itself, and what comes of it is always readable."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.errors import UserError
from tasks.git import git
from tasks.running.merge_lock import merge

ROOT = Path(__file__).resolve().parents[3]


def entry(md5: str) -> str:
    return f"""    cmd: python -m tasks x --seed {md5}
    deps:
    - path: in
      hash: md5
      md5: {md5 * 32}
      size: 12
    params:
      params.yaml:
        rate: 5e-05
        words: [a, b]
    outs:
    - path: out
      hash: md5
      md5: {md5 * 32}.dir
      size: 3
      nfiles: 2
"""


def lock(**stages: str) -> str:
    return "schema: '2.0'\nstages:\n" + "".join(f"  {name}:\n{entry(md5)}" for name, md5 in stages.items())


def read(text: str) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(text))


def test_each_stage_comes_from_the_side_that_changed_it() -> None:
    merged = merge(
        lock(a="1", b="1", c="1", gone="1"), lock(a="2", b="1", c="1", new="5"), lock(a="1", b="3", c="1", gone="1"), "dvc.lock"
    )
    assert merged.both == []
    assert read(merged.text) == read(lock(a="2", b="3", c="1", new="5"))


def test_a_stage_that_both_changed_stays_ours_and_is_marked_to_run_again() -> None:
    merged = merge(lock(a="1", b="1"), lock(a="2", b="1"), lock(a="3", b="4"), "dvc.lock")
    assert merged.both == ["a"]
    stages = read(merged.text)["stages"]
    ours = read(lock(a="2"))["stages"]["a"]
    assert stages["a"] == {"cmd": ours["cmd"], "outs": ours["outs"]}
    assert stages["b"] == read(lock(b="4"))["stages"]["b"]


def test_what_both_added_alike_is_no_conflict_and_one_that_a_side_took_out_is_judged_again() -> None:
    assert merge("", lock(a="2"), lock(a="2"), "dvc.lock").both == []
    merged = merge(lock(a="1"), lock(), lock(a="2"), "dvc.lock")
    assert (merged.both, list(read(merged.text)["stages"]["a"])) == (["a"], ["cmd", "outs"])


def test_what_nobody_changed_keeps_its_very_bytes() -> None:
    text = lock(a="1", b="2")
    assert merge(text, text, text, "dvc.lock").text == text


@pytest.mark.parametrize("broken", ["<<<<<<< ours\nstages: {}\n=======\n", "[1, 2]", "stages: {a: 1}", "stages: ["])
def test_a_side_that_cannot_be_read_is_refused(broken: str) -> None:
    with pytest.raises(UserError, match=r"dvc\.lock \(theirs\): .*take one side whole"):
        merge(lock(a="1"), lock(a="2"), broken, "dvc.lock")


def test_sources_are_merged_alike() -> None:
    def sources(**entries: str) -> str:
        return json.dumps({key: {"source": "path:x", "sha256": value} for key, value in entries.items()})

    merged = merge(sources(a="1", b="1", c="1"), sources(a="2", b="1", c="2"), sources(a="1", b="3", c="4"), "sources.lock")
    assert {key: value["sha256"] for key, value in json.loads(merged.text).items()} == {"a": "2", "b": "3", "c": "2"}
    assert merged.both == ["c"]


@pytest.mark.parametrize("same_stage", [False, True])
def test_git_calls_it(tmp_path: Path, same_stage: bool) -> None:
    def commit(**stages: str) -> None:
        (tmp_path / "dvc.lock").write_text(lock(**stages), encoding="utf-8")
        for words in (["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
            assert git(tmp_path, *words).returncode == 0

    git(tmp_path, "init", "-q", "-b", "main")
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    program = f'"{sys.executable}" -c "from tasks.cli.app import main; main()" merge-lock %O %A %B %P'
    git(tmp_path, "config", "merge.compactlm.driver", program)
    commit(a="1", b="1")
    git(tmp_path, "switch", "-qc", "other")
    commit(a="3" if same_stage else "1", b="2")
    git(tmp_path, "switch", "-q", "main")
    commit(a="2", b="1")
    env = {"PYTHONPATH": str(ROOT)}
    done = git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "merge", "-q", "--no-edit", "other", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    merged = read((tmp_path / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert merged["b"] == read(lock(b="2"))["stages"]["b"]
    assert ("deps" in merged["a"]) is not same_stage
