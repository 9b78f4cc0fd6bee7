"""The door to Git, against real repositories: one with a broken object, and one whose user has settings of all kinds."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks import git as door
from tasks.git import (
    Snapshot,
    blobs_at_tips,
    blobs_named,
    commits_of,
    create_ref,
    edits,
    git,
    read_blobs,
    read_refs,
    refusal,
    snapshot,
    switch,
    uncommitted,
    worktree,
)
from tests.tampering import changed

CONTENT = {
    name: f"{name} has words of its own: {hash_}\n".encode()
    for name, hash_ in (("a", "0f83bd"), ("b", "9c24e7"), ("c", "51aa06"))
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    blobs = {
        name: git(folder, "hash-object", "-w", "--stdin", given=text).stdout.decode().strip() for name, text in CONTENT.items()
    }
    return Snapshot(folder, blobs, {})


def test_whole_objects_are_read(kept: Snapshot) -> None:
    assert kept.read(["a", "b", "c", "none"]) == CONTENT


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_broken_object_is_left_out_and_the_others_are_read(kept: Snapshot, share: float) -> None:
    path = kept._workspace / ".git/objects" / kept.blobs["b"][:2] / kept.blobs["b"][2:]
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 1
    with changed(path, bytes(content)):
        assert kept.read(["a", "b", "c"]) == {"a": CONTENT["a"], "c": CONTENT["c"]}


def test_a_ref_is_made_where_there_is_none_and_only_for_what_git_could_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert create_ref(tmp_path, "refs/toy/1", "first")
    assert not create_ref(tmp_path, "refs/toy/1", "second")
    assert read_refs(tmp_path, "refs/toy") == {"refs/toy/1": b"first"}

    def full(folder: Path, *arguments: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
        if arguments[0] == "hash-object":
            return subprocess.CompletedProcess(arguments, 128, b"", b"No space left on device")
        return git(folder, *arguments, **how)

    monkeypatch.setattr(door, "git", full)
    assert not create_ref(tmp_path, "refs/toy/2", "third")
    assert read_refs(tmp_path, "refs/toy") == {"refs/toy/1": b"first"}


EDITED = b"first = 1\n\nthird = 3\n"
SETTINGS = {
    "noprefix": "[diff] noprefix = true",
    "mnemonic prefix": "[diff] mnemonicPrefix = true",
    "other prefixes": "[diff]\nsrcPrefix = before/\ndstPrefix = after/",
    "a diff program": "[diff] external = true",
    "patience": "[diff]\nalgorithm = patience\ninterHunkContext = 9\ncontext = 9\nsuppressBlankEmpty = true",
    "relative": "[diff] relative = true",
    "an order": "[diff] orderFile = ORDER",
    "plain paths": "[core] quotePath = false",
    "colours": "[color]\nui = always\ndiff = always",
    "line ends": "[core]\nautocrlf = true\neol = crlf\nsafecrlf = true",
    "attributes": '[core] attributesFile = ATTRIBUTES\n[diff "upper"] textconv = tr a-z A-Z <',
    "white space": "[apply]\nwhitespace = fix\nignoreWhitespace = change",
    "signatures": "[log]\nshowSignature = true\nfollow = true\n[commit] gpgSign = true\n[gpg] program = false",
    "hooks": "[core] hooksPath = HOOKS",
    "a watcher": "[core] fsmonitor = false",
    "unchanged by decree": "[core] ignoreStat = true",
}
VARIABLES = {
    "another repository": ("GIT_DIR", "/nowhere"),
    "another folder": ("GIT_WORK_TREE", "/"),
    "another index": ("GIT_INDEX_FILE", "/nowhere/index"),
    "a diff program": ("GIT_EXTERNAL_DIFF", "true"),
    "no context": ("GIT_DIFF_OPTS", "--unified=0"),
    "literal paths": ("GIT_LITERAL_PATHSPECS", "1"),
    "a name space": ("GIT_NAMESPACE", "mine"),
}


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project below the top of its repository, in a folder with a name of all kinds, in which a file is edited."""
    top = tmp_path_factory.mktemp("edited")
    folder = top / 'odd: "\u00fc" \\ '
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "\u00fc.py").write_bytes(b"first = 1\n\nthird = 2\n")
    (folder / "dvc.lock").write_bytes(b"a: 1\n")
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=top, check=True)
    subprocess.run(["git", "add", "-A"], cwd=top, check=True)
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "1"], cwd=top, check=True)
    (folder / "tasks" / "\u00fc.py").write_bytes(EDITED)
    (folder / "dvc.lock").write_bytes(b"a: 2\n")
    hook = top / ".git" / "HOOKS" / "reference-transaction"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (top / ".git" / "ATTRIBUTES").write_text("*.py diff=upper text eol=crlf\n")
    (top / ".git" / "ORDER").write_text("*.lock\n")
    return folder


@pytest.fixture(scope="module")
def patch(edited: Path) -> bytes:
    """What is recorded of the edit; in this form old receipts have it."""
    content = edits(edited, ["dvc.lock"])
    place = '"{}/odd: \\"\\303\\274\\" \\\\ /tasks/\\303\\274.py"'
    lines = content.decode().splitlines()
    assert lines[0] == f"diff --git {place.format('a')} {place.format('b')}"
    # Git ends a name with blanks by a tab.
    assert lines[2:] == [f"--- {place.format('a')}\t", f"+++ {place.format('b')}\t", *PATCH]
    return content


PATCH = ["@@ -1,3 +1,3 @@", " first = 1", " ", "-third = 2", "+third = 3"]


def records(folder: Path, patch: bytes, scratch: Path) -> None:
    """Assert that all is recorded and read as without any settings."""
    assert edits(folder, ["dvc.lock"]) == patch
    commit = git(folder, "rev-parse", "HEAD").stdout.decode().strip()
    assert commits_of(folder, "dvc.lock") == [commit]
    state = snapshot(folder, commit, patch.decode(), scratch)
    assert state is not None
    assert state.read(["tasks/\u00fc.py", "dvc.lock"]) == {"tasks/\u00fc.py": EDITED, "dvc.lock": b"a: 1\n"}
    assert create_ref(folder, f"refs/toy/{scratch.name}", "kept")
    assert read_refs(folder, f"refs/toy/{scratch.name}") == {f"refs/toy/{scratch.name}": b"kept"}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_a_person_has_set_changes_nothing_that_is_recorded(
    edited: Path, patch: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = SETTINGS[name]
    for place in ("ORDER", "ATTRIBUTES", "HOOKS"):
        text = text.replace(place, str(edited.parent / ".git" / place))
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    records(edited, patch, tmp_path)


@pytest.mark.parametrize("name", VARIABLES)
def test_variables_of_another_command_lead_nowhere_else(
    edited: Path, patch: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(*VARIABLES[name])
    records(edited, patch, tmp_path)


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_that_git_is_told_to_take_for_unchanged_is_looked_at(edited: Path, patch: bytes, flag: str) -> None:
    name = "tasks/\u00fc.py"
    git(edited, "update-index", flag, name)
    try:
        assert edits(edited, ["dvc.lock"]) == patch
        assert git(edited, "ls-files", "-v", name).stdout[:1] in (b"h", b"S")  # and the flag stays
    finally:
        git(edited, "update-index", flag.replace("--", "--no-"), name)


def test_a_worktree_has_what_was_recorded_and_a_patch_without_prefixes_fits_too(
    edited: Path, patch: bytes, tmp_path: Path
) -> None:
    bare = git(edited, "-c", "diff.noprefix=true", "diff", "HEAD", "--", "tasks").stdout
    assert b" a/" not in bare
    commit = git(edited, "rev-parse", "HEAD").stdout.decode().strip()
    with worktree(edited, tmp_path / "tree") as place:
        for diff in (patch, bare):
            assert switch(place, commit, diff.decode())
            assert (place / "tasks" / "\u00fc.py").read_bytes() == EDITED


def test_a_repository_of_another_user_is_said(edited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.errors import UserError
    from tasks.lineage.receipts import git_state

    assert refusal(edited) is None
    plain = door.subprocess.run

    def run(command: list[str], env: dict[str, str], **how: Any) -> Any:
        return plain(command, env={**env, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, **how)

    monkeypatch.setattr(door.subprocess, "run", run)
    assert "git config --global --add safe.directory" in str(refusal(edited))
    with pytest.raises(UserError, match="belongs to another user"):
        git_state(edited)


def test_files_are_found_by_name_in_all_commits_or_at_the_tips(tmp_path: Path) -> None:
    def commit(content: str) -> None:
        (tmp_path / "deep/x.dvc").write_text(content, encoding="utf-8")
        assert git(tmp_path, "add", "-A").returncode == 0
        assert git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", content).returncode == 0

    def contents(blobs: dict[str, str]) -> list[bytes]:
        return sorted(read_blobs(tmp_path, {blob: blob for blob in blobs}).values())

    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "deep").mkdir()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    (tmp_path / "folder.dvc").mkdir()
    (tmp_path / "folder.dvc/other").touch()
    commit("first")
    git(tmp_path, "switch", "-qc", "aside")
    commit("aside")
    git(tmp_path, "switch", "-q", "main")
    commit("second")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "merge", "-q", "-s", "ours", "-m", "merged", "aside")
    git(tmp_path, "branch", "-D", "aside")
    create_ref(tmp_path, "refs/toy/1", "no commit")
    commit("third")
    assert contents(blobs_named(tmp_path, ["?*.dvc"])) == [b"aside", b"first", b"second", b"third"]
    assert contents(blobs_at_tips(tmp_path, ["?*.dvc"])) == [b"third"]
    assert set(blobs_at_tips(tmp_path, ["?*.dvc"]).values()) == {"deep/x.dvc"}


def test_what_is_not_committed_is_listed_from_the_project_on(tmp_path: Path) -> None:
    project = tmp_path / "below"
    project.mkdir()
    git(tmp_path, "init", "-q")
    for name in ("same", "changed", "gone", ".gitignore"):
        (project / name).write_text("ignored\n", encoding="utf-8")
    (tmp_path / "outside").touch()
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x")
    (project / "changed").write_text("x", encoding="utf-8")
    (tmp_path / "outside").write_text("x", encoding="utf-8")
    (project / "gone").unlink()
    (project / "new with \u00fc").touch()
    (project / "ignored").touch()
    assert uncommitted(project) == (["changed", "new with \u00fc"], ["gone"])
