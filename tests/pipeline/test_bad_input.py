"""Bad input through the real command line: exit code 2, words that name file, key and value, and nothing left behind."""

from __future__ import annotations

import collections
import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tasks.errors import EXIT_USER_ERROR, ResourceError
from tasks.params.file import read_yaml
from tasks.running import stage
from tasks.running.preflight import check_disk
from tests import tiny_project as projects
from tests.tiny_project import Project, labelled_rows, write_rows

CPU_SECONDS = 20.0  # a quiet machine takes a few; a training or a Prefect server would take more


def _refusal(project: Project, *arguments: str) -> str:
    """Return what `compactlm run` says when it refuses to run, at once and leaving everything as it was."""
    before, cpu = project.facts(), _children_seconds()
    listing = {path.name for path in project.folder.iterdir()}
    done = project.compactlm("run", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert _children_seconds() - cpu < CPU_SECONDS
    assert project.facts() == before
    made = {path.name for path in project.folder.iterdir()} - listing
    assert made <= {".compactlm"}
    if made:  # what a run holds, and nothing else
        assert [path.name for path in (project.folder / ".compactlm").iterdir()] == ["run.lock"]
    return done.stderr


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture
def fresh(tiny_project: Project, tmp_path: Path) -> Project:
    return tiny_project.copy(tmp_path / "project")


def test_a_wrong_params_file(fresh: Project) -> None:
    path = fresh.folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    for old, new in (
        ("kd_weight:", "kd_wieght:"),
        ("hidden: 24, heads: 3", "hidden: 24, heads: 5"),
        ("hidden: 16, heads: 2", "hidden: 32, heads: 4"),
        ("labelled_epochs: 1, transfer_epochs: 0.5", "labelled_epochs: 0, transfer_epochs: 0.0"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    said = _refusal(fresh)
    for message in (
        "params.yaml: distill.kd_wieght: unknown key; did you mean 'kd_weight'?",
        "rounds.r1.heads: 5 does not divide rounds.r1.hidden = 24",
        "rounds.r2.hidden: 32 is larger than its parent's 24",
        "rounds.r1: labelled_epochs = 0 and transfer_epochs = 0.0 of 150 transfer rows leave nothing to train on",
    ):
        assert message in said


def test_a_model_that_does_not_exist(fresh: Project) -> None:
    said = _refusal(fresh, "--set", "teacher.model=path:/no/such/model")
    assert "params.yaml: teacher.model: 'path:/no/such/model': /no/such/model does not exist" in said


def test_a_pickled_weight_file(fresh: Project, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "pickled"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    said = _refusal(fresh, "--set", f"teacher.model=path:{folder}")
    assert f"params.yaml: teacher.model: {folder}: pytorch_model.bin is a pickle" in said
    assert "only safetensors are read" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs Linux and root; other tests give the same answers without one")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


NO_ROOM = "a run needs about 0.2 GB of disk space and 0.0 GB are free; free some, or move the workspace"


def test_a_full_disk(tiny_project: Project, small_disk: Path) -> None:
    assert NO_ROOM in _refusal(tiny_project.copy(small_disk / "project"))


def test_a_disk_of_which_the_system_says_that_it_is_full(fresh: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same refusal of the command where no small file system can be mounted."""
    lines = "import collections, shutil\nshutil.disk_usage = lambda _: collections.namedtuple('usage', 'free')(0)\n"
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup/sitecustomize.py").write_text(lines, encoding="utf-8")
    environment = {**projects.environment(), "PYTHONPATH": str(tmp_path / "startup")}
    monkeypatch.setattr(projects, "environment", lambda: environment)
    assert NO_ROOM in _refusal(fresh)


WRITES = {
    "safetensors": lambda place: save_file({"weights": torch.zeros(20_000_000)}, place),
    "torch": lambda place: torch.save(torch.zeros(20_000_000), place),
    "numpy": lambda place: np.save(place, np.zeros(20_000_000, dtype=np.float32)),
    "python": lambda place: place.write_bytes(bytes(80_000_000)),
}


@pytest.mark.parametrize("library", WRITES)
def test_a_disk_that_fills_up_while_a_stage_writes(
    library: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(_argv: list[str], _started: float, _since: object) -> int:
        WRITES[library](small_disk / "file")
        raise AssertionError("80 MB went onto a disk of 40 MB")

    monkeypatch.setattr(stage, "_main", write)
    assert stage.main(["distill"]) == EXIT_USER_ERROR
    assert "no space left on the device; free some and run again" in capsys.readouterr().err


FULL_DISK = {  # what each library raises on a full disk, as seen in the test above
    "safetensors": RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 704 vs 598"),
    "numpy": RuntimeError("Not enough free space to write 80000000 bytes after offset 128"),
    "python": OSError(errno.ENOSPC, "on any platform, in any language"),
}


def test_every_library_that_fills_a_disk_is_known_without_a_disk() -> None:
    assert set(FULL_DISK) == set(WRITES)


@pytest.mark.parametrize("library", FULL_DISK)
def test_the_words_of_a_full_disk(library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def write(_argv: list[str], _started: float, _since: object) -> int:
        raise FULL_DISK[library]

    monkeypatch.setattr(stage, "_main", write)
    assert stage.main(["distill"]) == EXIT_USER_ERROR
    assert "no space left on the device" in capsys.readouterr().err


def test_other_faults_are_not_taken_for_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_argv: list[str], _started: float, _since: object) -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(stage, "_main", write)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        stage.main(["distill"])


def test_too_little_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1_000_000_000))
    check_disk(10_000_000, tmp_path)
    with pytest.raises(ResourceError, match=r"needs about 1\.4 GB of disk space and 1\.0 GB are free"):
        check_disk(100_000_000, tmp_path)


def _without_label(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"text": row["text"], "labels": row["label"], "source": row["source"]} for row in rows]


def _in_two_splits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("train", "train", "train", "validation", "test")
    split = [{**row, "split": names[number % 5]} for number, row in enumerate(rows)]
    return [*split, {**split[0], "split": "test"}]


def test_a_column_that_is_not_there(fresh: Project, tmp_path: Path) -> None:
    write_rows(tmp_path / "bad.csv", _without_label(labelled_rows()))
    said = _refusal(fresh, "--set", f"data.source=path:{tmp_path / 'bad.csv'}")
    assert "bad.csv: no column 'label', which data.columns.label names; did you mean 'labels'?" in said


@pytest.mark.slow
def test_bad_data_stops_before_any_training(project: Project, tmp_path: Path) -> None:
    """What only a look at all rows shows."""
    write_rows(tmp_path / "bad.csv", _in_two_splits(labelled_rows()))
    project.set(f"data.source=path:{tmp_path / 'bad.csv'}", "data.columns.split=split")
    before = project.facts()
    lock = read_yaml(project.folder / "dvc.lock")["stages"]
    done = project.compactlm("run")
    assert done.returncode == 2, done.stderr
    assert "bad.csv: 1 text is in two splits: " in done.stderr
    assert "Traceback" not in done.stderr

    after = project.facts()
    touched = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    # `fetch` had new bytes to bring, and what GX found stays to be looked at; no model, record or version has changed
    places = (
        "sources.lock",
        "dvc.lock",
        ".compactlm/last_run.json",
        "artifacts/fetched/",
        "artifacts/validation/",
        "artifacts/receipts/fetch",
        "artifacts/receipts/validate_data",
    )
    assert {name for name in touched if not name.startswith(places)} == set()
    now = read_yaml(project.folder / "dvc.lock")["stages"]
    assert {name for name in {*lock, *now} if lock.get(name) != now.get(name)} == {"fetch"}
    states = project.states()
    assert states["validate_data"] == "failed"
    assert {state for name, state in states.items() if name not in ("fetch", "validate_data")} == {"not run"}
