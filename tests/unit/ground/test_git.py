"""The door to Git, against a real repository with a broken object."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks import git as door
from tasks.git import Snapshot, create_ref, git, read_refs
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
