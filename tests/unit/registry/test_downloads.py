"""A download that stopped half-way is never taken for a whole one, and a copy that lost a file is fetched again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.files import digest
from tasks.registry.downloads import LOADED_AS, whole_file, whole_folder

FILES = {"MLmodel": "flavor", "artifacts/model/model.safetensors": "weights"}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def stopped(folder: Path) -> None:
    write(folder, {"MLmodel": "flavor"})
    raise ConnectionError("the line is dead")


class Store:
    """What sends files, and how often it was asked."""

    def __init__(self, files: dict[str, str] | None = None) -> None:
        self.files, self.asked, self._lock = files or FILES, 0, threading.Lock()

    def __call__(self, folder: Path) -> None:
        with self._lock:
            self.asked += 1
        write(folder, {**self.files, LOADED_AS: "model_name: null"})


@pytest.fixture(params=["tagged", "untagged"])
def sha256(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return str(digest(write(tmp_path / "stored", FILES))["sha256"]) if request.param == "tagged" else None


def test_half_a_download_is_none(tmp_path: Path, sha256: str | None) -> None:
    place, store = tmp_path / "models/m-1", Store()
    with pytest.raises(ConnectionError):
        whole_folder(place, sha256, stopped)
    assert not place.exists()
    assert {path.name for path in place.parent.iterdir()} <= {".lock"}
    for _ in range(2):
        assert whole_folder(place, sha256, store) == place
    assert (store.asked, digest(place, (LOADED_AS,))["sha256"]) == (1, digest(write(tmp_path / "x", FILES))["sha256"])


def _lost(place: Path) -> None:
    (place / "artifacts/model/model.safetensors").unlink()


def _cut(place: Path) -> None:
    (place / "artifacts/model/model.safetensors").write_text("wei")


def _of_former_versions(place: Path) -> None:
    _lost(place)
    place.with_name(f"{place.name}.json").unlink()


@pytest.mark.parametrize("change", [_lost, _cut, _of_former_versions])
def test_a_copy_that_is_not_whole_any_more_is_fetched_again(
    tmp_path: Path, sha256: str | None, change: Callable[[Path], None]
) -> None:
    place, store = tmp_path / "models/m-1", Store()
    whole_folder(place, sha256, store)
    change(place)
    assert (whole_folder(place, sha256, store) / "artifacts/model/model.safetensors").read_text() == "weights"
    assert store.asked == 2


def test_other_bytes_than_were_stored_are_shown_as_they_are_and_asked_for_each_time(tmp_path: Path) -> None:
    place, store = tmp_path / "models/m-1", Store({**FILES, "MLmodel": "changed"})
    wanted = str(digest(write(tmp_path / "stored", FILES))["sha256"])
    for _ in range(2):
        assert (whole_folder(place, wanted, store) / "MLmodel").read_text() == "changed"
    assert store.asked == 2


def test_of_many_who_want_a_copy_one_fetches_it(tmp_path: Path) -> None:
    place, store = tmp_path / "models/m-1", Store()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: whole_folder(place, None, store), range(8))) == {place}
    assert store.asked == 1


def test_a_file_or_folder_of_a_run_takes_its_place_whole(tmp_path: Path) -> None:
    place = write(tmp_path, {"predictions/test.parquet": "of before"}) / "predictions/test.parquet"

    def half(folder: Path) -> str:
        (folder / "test.parquet").write_text("ha")
        raise ConnectionError("the line is dead")

    with pytest.raises(ConnectionError):
        whole_file(place, half)
    assert [(path.name, path.read_text()) for path in place.parent.iterdir()] == [("test.parquet", "of before")]

    def one(folder: Path) -> str:
        return str(write(folder, {"predictions/test.parquet": "whole"}) / "predictions/test.parquet")

    assert whole_file(place, one).read_text() == "whole"
    folder = whole_file(tmp_path / "predictions", lambda scratch: write(scratch / "predictions", {"validation.parquet": "too"}))
    assert sorted(path.name for path in folder.iterdir()) == ["test.parquet", "validation.parquet"]


def test_models_and_files_of_a_store_elsewhere_come_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.registry.reading import FILES_SHA256
    from tasks.registry.tracking import Tracker

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # where such a store keeps files
    (tmp_path / "project/.compactlm").mkdir(parents=True)
    tracker = Tracker(tmp_path / "project", "toy")
    run = tracker.create_run("r1", {})
    tracker.log_files(run, [write(tmp_path, {"quality.json": "{}"}) / "quality.json"], "evidence")
    made = tracker.client.create_logged_model(tracker.experiment_id, name="r1", source_run_id=run)
    stored = write(tmp_path / "stored", FILES)
    tracker.client.set_logged_model_tags(made.model_id, {f"compactlm.{FILES_SHA256}": digest(stored)["sha256"]})
    tracker.client.log_model_artifacts(made.model_id, str(stored))
    tracker.client.finalize_logged_model(made.model_id, "READY")
    monkeypatch.setattr(Tracker, "_on_this_machine", lambda *_: None)
    folder = tracker.local_model(made.model_id)
    (folder / "artifacts/model/model.safetensors").unlink()
    assert (tracker.local_model(made.model_id) / "artifacts/model/model.safetensors").read_text() == "weights"
    file = tracker.local_file(run, "evidence/quality.json")
    assert file == tmp_path / f"project/.compactlm/runs/{run}/evidence/quality.json"
    assert file.read_text() == "{}"
