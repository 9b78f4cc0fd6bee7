"""Receipts and the Merkle root of a run."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tasks.files import digest, full_digest
from tasks.lineage import merkle, receipts
from tasks.lineage.chain import md5_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "folder"
    (place / "sub").mkdir(parents=True)
    (place / "b.txt").write_bytes(b"one\r\ntwo\n")
    (place / "a.bin").write_bytes(bytes(range(256)))
    (place / "sub" / "\u00e9.json").write_text("{}", encoding="utf-8")
    return place


def test_md5_is_the_name_dvc_gives_the_same_bytes(folder: Path) -> None:
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    system = LocalFileSystem()
    store = HashFileDB(system, str(folder.parent / "odb"))
    folder_digest = full_digest(folder)
    assert folder_digest["md5"] == build(store, str(folder), system, "md5")[2].hash_info.value
    file_md5 = build(store, str(folder / "b.txt"), system, "md5")[2].hash_info.value
    assert folder_digest["files"]["b.txt"]["md5"] == file_md5


def test_an_empty_folder_inside_a_recorded_one_has_the_name_dvc_gives_it() -> None:
    entry = {"files": {"quality.json": {"sha256": "a", "md5": "b", "size_bytes": 1}}, "sha256": "c", "size_bytes": 1}
    receipt = {"inputs": {}, "outputs": {"artifacts/baselines": entry}}
    assert md5_of(receipt, "artifacts/baselines/predictions") == "d751713988987e9331980363e24189ce.dir"
    assert md5_of(receipt, "artifacts/rivals/predictions") is None


def test_a_full_digest_agrees_with_the_plain_one(folder: Path) -> None:
    plain, full = digest(folder), full_digest(folder)
    assert full["sha256"] == plain["sha256"]
    assert full["size_bytes"] == plain["size_bytes"]
    assert {name: entry["sha256"] for name, entry in full["files"].items()} == {
        name: entry["sha256"] for name, entry in plain["files"].items()
    }


def test_the_merkle_root_is_that_of_the_standard() -> None:
    # Leaves and roots of the reference implementation of RFC 6962.
    leaves = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    assert merkle.root([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.root(leaves[:1]) == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle.root(leaves[:2]) == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert merkle.root(leaves[:3]) == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert merkle.root(leaves) == "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"


def test_the_root_of_a_run_tells_every_change() -> None:
    run = {"fetch": b"1", "prepare": b"2", "teacher": b"3"}
    others = [
        {**run, "fetch": b"0"},
        {**run, "more": b"4"},
        {"fetch": b"1", "prepare": b"2"},
        {"fetch": b"2", "prepare": b"1", "teacher": b"3"},
    ]
    roots = {merkle.receipts_root(receipts_of_run) for receipts_of_run in (run, *others)}
    assert len(roots) == 5
    assert merkle.receipts_root(dict(reversed(run.items()))) == merkle.receipts_root(run)


def test_the_state_of_git_holds_the_difference(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert receipts.git_state(tmp_path) == {"commit": None, "dirty": False, "diff_sha256": None, "diff": None}
    git("init", "-q")
    (tmp_path / "a").write_text("1\n")
    (tmp_path / "dvc.lock").write_text("1\n")
    git("add", "-A")
    git("commit", "-qm", "start")
    (tmp_path / "dvc.lock").write_text("2\n")
    assert receipts.git_state(tmp_path)["dirty"] is False
    (tmp_path / "a").write_text("2\n")
    state = receipts.git_state(tmp_path)
    assert state["dirty"] is True
    assert state["diff_sha256"] == hashlib.sha256(state["diff"].encode()).hexdigest()
    assert "-1\n+2\n" in state["diff"]
    (tmp_path / "a").write_text("3\n" * receipts.MAX_DIFF_BYTES)
    large = receipts.git_state(tmp_path)
    assert large["diff"] is None
    assert large["diff_sha256"] not in (None, state["diff_sha256"])


def test_parent_models_are_the_weights_among_the_inputs() -> None:
    weights = {"model/model.safetensors": {"sha256": "a"}, "checkpoints/step-1/model.safetensors": {"sha256": "b"}}
    inputs = {"pruned": {"files": weights}, "sets": {"files": {"train.parquet": {"sha256": "c"}}}, "lock": {}}
    assert receipts.parent_models(inputs) == {"pruned/model/model.safetensors": "a"}
