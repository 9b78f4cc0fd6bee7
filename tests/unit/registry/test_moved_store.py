"""MLflow's database holds whole paths: a store that was moved or copied names its own files, and a name may be odd."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from tasks.audit.dossier import _added_by_mlflow
from tasks.files import digest, without_links
from tasks.registry.downloads import LOADED_AS
from tasks.registry.reading import address_of
from tasks.registry.store import ADDRESSES, OWN, RegisteredVersion, files_beside, follow_folder, sqlite_path, sqlite_uri

ODD = "my project \u00fc a#b it's 50%20 off [x] {y} $HOME: what?"


def make_store(project: Path) -> Path:
    """Return a database with the columns that hold addresses: those of its files, and of two that lie elsewhere."""
    database = project / OWN / "mlflow.db"
    files_beside(database).mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        for table, column in ADDRESSES.items():
            rows = [f"{files_beside(database).as_uri()}/{table}", "s3://shelf/files", None]
            rows += [str(project / "mlruns" / "0"), "/data/mlruns/5"] if table == "experiments" else []
            connection.execute(f"CREATE TABLE {table} ({column} TEXT)")
            connection.executemany(f"INSERT INTO {table} VALUES (?)", [(row,) for row in rows])
        connection.commit()
    return database


def addresses(database: Path) -> dict[str, list[str]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return {t: [row for (row,) in connection.execute(f"SELECT {column} FROM {t}")] for t, column in ADDRESSES.items()}


@pytest.mark.parametrize("name", ["copy", ODD])
def test_a_copy_names_its_own_files_and_leaves_the_original_alone(tmp_path: Path, name: str) -> None:
    original = make_store(tmp_path / "project")
    before = original.read_bytes()
    copy = Path(shutil.copytree(tmp_path / "project", tmp_path / name)) / OWN / "mlflow.db"
    follow_folder(copy)
    root = files_beside(copy).as_uri()
    assert addresses(copy) == {
        "experiments": [f"{root}/experiments", "s3://shelf/files", None, str(tmp_path / name / "mlruns" / "0"), "/data/mlruns/5"],
        "runs": [f"{root}/runs", "s3://shelf/files", None],
        "logged_models": [f"{root}/logged_models", "s3://shelf/files", None],
        "model_versions": [f"{root}/model_versions", "s3://shelf/files", None],
    }
    follow_folder(original)
    assert original.read_bytes() == before


def test_a_store_that_was_moved_follows_and_one_reached_by_a_link_stays(tmp_path: Path) -> None:
    make_store(tmp_path / "project")
    moved = (tmp_path / "project").rename(tmp_path / "moved") / OWN / "mlflow.db"
    follow_folder(moved)
    assert addresses(moved)["runs"][0] == f"{files_beside(moved).as_uri()}/runs"
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    before = moved.read_bytes()
    follow_folder(tmp_path / "link" / OWN / "mlflow.db")
    assert moved.read_bytes() == before


def test_what_is_no_store_of_a_workspace_stays(tmp_path: Path) -> None:
    database = make_store(tmp_path / "project")
    elsewhere = Path(shutil.copy(database, tmp_path / "team.db"))
    broken = tmp_path / "broken" / OWN / "mlflow.db"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no database at all, but quite some bytes of one" * 9)
    for place in (elsewhere, broken, tmp_path / "none" / OWN / "mlflow.db"):
        before = place.read_bytes() if place.exists() else None
        follow_folder(place)
        assert (place.read_bytes() if place.exists() else None) == before


@pytest.mark.parametrize("name", ["plain", ODD])
def test_a_database_is_opened_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    from sqlalchemy import create_engine, text

    place = tmp_path / name / "mlflow.db"
    place.parent.mkdir()
    uri = sqlite_uri(place)
    assert sqlite_path(uri) == place
    assert (uri == f"sqlite:///{place}") == ("?" not in name)
    # MLflow takes what follows for a path and makes its folder, which must be one that is there.
    assert Path(uri.removeprefix("sqlite:///")).parent in (place.parent, Path())
    engine = create_engine(uri)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE things (name TEXT)"))
    engine.dispose()
    with contextlib.closing(sqlite3.connect(place)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("things",)]


def test_other_stores_have_no_file() -> None:
    assert sqlite_path("http://127.0.0.1:5000") is None
    assert sqlite_path("sqlite:////a%20b/mlflow.db") == Path("/a%20b/mlflow.db")


def test_a_path_is_told_mlflow_so_that_it_finds_it(tmp_path: Path) -> None:
    assert address_of(Path("artifacts/rounds")) == "artifacts/rounds"
    for name in ("50%20 off", "a#b", "what?", "\u00fc"):
        assert url2pathname(urlparse(address_of(tmp_path / name)).path) == str(tmp_path / name)  # as MLflow does


def test_links_into_a_cache_are_copied_and_files_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_text("a")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert without_links(folder, scratch) == folder
    before = digest(folder)
    (folder / "deep" / "a").rename(tmp_path / "object")
    (folder / "deep" / "a").symlink_to(tmp_path / "object")
    for path in (folder, folder / "deep" / "a"):
        copy = without_links(path, scratch)
        assert copy.name == path.name
        assert not any(place.is_symlink() for place in (copy, *copy.rglob("*")))
        assert digest(copy) == (before if path == folder else digest(tmp_path / "object"))


NOTES = {
    "model_name: tiny\nmodel_version: '3'\n": True,
    "model_name: tiny\nmodel_version: 3\n": True,
    "model_name: production\nmodel_version: '1'\n": True,  # the same model, registered a second time
    "model_name: null\nmodel_version: null\n": True,
    "model_name: tiny\nmodel_version: '2'\n": False,  # another model
    "model_name: tiny\nmodel_version: '3'\ncode: evil.py\n": False,
    "model_name: tiny\n": False,
    "- model_name\n": False,
    "model_name: [\n": False,
    "\udcff": False,
}


@pytest.mark.parametrize("note", NOTES)
def test_a_note_of_mlflow_is_one_only_if_it_says_what_mlflow_does(tmp_path: Path, note: str) -> None:
    versions = [
        RegisteredVersion("tiny", "2", "models:/m-2", "", {}),
        RegisteredVersion("tiny", "3", "models:/m-3", "", {"compactlm.model_id": "m-3"}),
        RegisteredVersion("production", "1", "models:/m-3", "", {}),
    ]
    tracker: Any = SimpleNamespace(all_versions=lambda name: versions)
    (tmp_path / LOADED_AS).write_bytes(note.encode("utf-8", "surrogateescape"))
    assert _added_by_mlflow(tracker, "m-3", tmp_path) == [LOADED_AS] * NOTES[note]
    (tmp_path / LOADED_AS).unlink()
    assert _added_by_mlflow(tracker, "m-3", tmp_path) == []
