"""A vault holds each content once, and a backup is one only when its manifest is there and every byte is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.errors import ResourceError, UserError
from tasks.running import vault as module
from tasks.running.vault import Kept, Vault, described, files_in, former


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "backup")


def file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def sealed(vault: Vault, *files: Path) -> dict[str, Kept]:
    kept = {path.name: vault.put(path) for path in files}
    vault.seal({"kind": "toy", "files": described(kept)})
    return kept


def test_a_content_is_kept_once_and_comes_back_with_its_mode(vault: Vault, tmp_path: Path) -> None:
    first, second = file(tmp_path, "first", b"same"), file(tmp_path, "second", b"same")
    first.chmod(0o444)
    kept = sealed(vault, first, second)
    assert vault.copied_bytes == 4
    assert [path.read_bytes() for path in (vault.folder / "objects").rglob("*") if path.is_file()] == [b"same"]
    assert files_in(vault.read("toy"), "files") == kept
    vault.require_whole(kept.values())
    vault.bring(kept["first"], tmp_path / "deep" / "again")
    assert (tmp_path / "deep" / "again").read_bytes() == b"same"
    assert (tmp_path / "deep" / "again").stat().st_mode & 0o777 == 0o444


def test_what_is_as_it_was_is_not_read_again(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path, "a", b"content")
    known = sealed(vault, path)["a"]
    assert former(vault, "toy", "files") == {"a": known}
    monkeypatch.setattr(module, "file_sha256", lambda _: pytest.fail("read again"))
    assert vault.put(path, known) == known


def test_a_backup_without_manifest_is_none(vault: Vault, tmp_path: Path) -> None:
    vault.put(file(tmp_path, "a", b"content"))
    with pytest.raises(UserError, match=r"there is no backup: no manifests/\*.json, which is written last"):
        vault.read("toy")


@pytest.mark.parametrize("damage", ["changed", "missing", "cut"])
def test_each_content_is_checked_against_its_digest(vault: Vault, tmp_path: Path, damage: str) -> None:
    kept = sealed(vault, file(tmp_path, "a", b"content"))
    place = vault.path(kept["a"].sha256)
    if damage == "missing":
        place.unlink()
    else:
        place.write_bytes(b"contenT" if damage == "changed" else b"con")
    words = "is missing" if damage == "missing" else "has other bytes than its name says"
    with pytest.raises(UserError, match=f"the backup is damaged, so nothing was restored: objects/.* {words}"):
        vault.require_whole(kept.values())


def test_a_content_that_was_cut_is_copied_anew(vault: Vault, tmp_path: Path) -> None:
    path = file(tmp_path, "a", b"content")
    known = sealed(vault, path)["a"]
    vault.path(known.sha256).write_bytes(b"con")
    vault.put(path, known)
    vault.require_whole([known])


def test_a_manifest_that_was_changed_is_refused_and_the_one_before_serves(vault: Vault, tmp_path: Path) -> None:
    sealed(vault, file(tmp_path, "a", b"first"))
    [before] = vault.times()
    sealed(vault, file(tmp_path, "a", b"second"))
    place = vault.folder / "manifests" / f"{vault.times()[-1]}.json"
    content = json.loads(place.read_text(encoding="utf-8"))
    place.write_text(json.dumps({**content, "files": {}}), encoding="utf-8")
    with pytest.raises(UserError, match=f"its sha256 is not that of its content; --at {before} takes the one before"):
        vault.read("toy")
    assert list(vault.read("toy", before)["files"]) == ["a"]
    with pytest.raises(UserError, match=r"--at 1999: .* has no backup of that time; it has "):
        vault.read("toy", "1999")
    with pytest.raises(UserError, match="format 1 of 'toy'; only format 1 of 'team'"):
        vault.read("team", before)


def test_a_full_disk_and_a_file_that_changes_leave_no_half_content(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(tmp_path, "a", b"content")
    with pytest.raises(ResourceError, match=r"MB are free, .* are needed; give another folder"):
        vault.require_room(1 << 60)

    def other(source: Path, target: Path) -> None:
        target.write_bytes(b"another")

    monkeypatch.setattr(module.shutil, "copyfile", other)
    with pytest.raises(UserError, match="it changed while it was copied, so no backup was made"):
        vault.put(path)

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"con")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.shutil, "copyfile", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        vault.put(path)
    assert [each for each in vault.folder.rglob("*") if each.is_file()] == []
