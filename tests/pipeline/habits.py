"""Honest histories of people who have habits of their own: settings, folders and clones of all kinds, MLflow used by itself."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

from tasks.registry.downloads import LOADED_AS
from tasks.registry.tracking import Tracker
from tests.pipeline.scene import CHAMPION, RUNS, WHO, History, Moments, Scene, commit, edit, take_cache
from tests.tampering import STORE
from tests.tiny_project import Project

GIT_SETTINGS = """
[diff]
    noprefix = true
    external = true
    algorithm = patience
[core]
    autocrlf = true
    quotePath = false
[color]
    ui = always
[log]
    showSignature = true
[commit]
    gpgSign = true
"""

DVC_SETTINGS = """
[core]
    autostage = true
    analytics = true
    check_update = true
    hardlink_lock = true
[cache]
    type = symlink
"""


def settings(name: str, text: str, variable: str, **variables: str) -> History:
    """A person has configured a program to their liking, in a file that `variable` leads to; other variables stand beside."""

    def history(scene: Scene) -> Moments:
        place = scene.folder / variable.lower() / name
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
        with scene.patch.context() as patch:
            patch.setenv(variable, str(place.parent if variable.startswith("DVC") else place))
            for key, value in variables.items():
                patch.setenv(key, value)
            yield scene.finished, CHAMPION

    return history


def beside(path: str, content: str) -> History:
    """Something lies in the project that is not of it."""

    def history(scene: Scene) -> Moments:
        place = scene.finished.folder / path
        place.parent.mkdir(exist_ok=True)
        before = place.read_bytes() if place.exists() else None
        place.write_text(content, encoding="utf-8")
        try:
            yield scene.finished, CHAMPION
        finally:
            place.unlink() if before is None else place.write_bytes(before)

    return history


def hidden_edit(scene: Scene) -> Moments:
    """Somebody keeps own params, and has told Git not to show it."""
    scene.finished.shell("git", "update-index", "--skip-worktree", "params.yaml")
    try:
        yield from edit("params.yaml", lambda text: text.replace("seed: 0", "seed: 7"))(scene)
    finally:
        scene.finished.shell("git", "update-index", "--no-skip-worktree", "params.yaml")


def by_a_link(scene: Scene) -> Moments:
    link = scene.folder / "link"
    link.symlink_to(scene.finished.folder)
    yield Project(link), CHAMPION


def oddly_named(scene: Scene) -> Moments:
    folder = scene.finished.folder
    other = folder.rename(folder.with_name("my project \u00fc a#b it's 50%20 off [x] $HOME: what?"))
    try:
        Tracker(other).set_model_tag("tiny", "note", "written")
        yield Project(other), CHAMPION
    finally:
        other.rename(folder)


def copied(scene: Scene) -> Moments:
    """The original is still there, and is changed: the copy neither reads nor writes in it."""
    original = scene.finished.copy(scene.folder / "original")
    copy = original.copy(scene.folder / "project")
    stored = original.folder / ".compactlm/mlflow/artifacts"
    served = next(stored.rglob("served_model.py"))
    served.write_text("# other code\n", encoding="utf-8")
    before = original.facts(), sorted(stored.rglob("*"))
    tracker = Tracker(copy.folder, "tiny")
    tracker.log_files(tracker.create_run("by hand", {}), [copy.folder / "params.yaml"])
    assert (original.facts(), sorted(stored.rglob("*"))) == before
    yield copy, CHAMPION
    assert (original.facts(), sorted(stored.rglob("*"))) == before


def own_cache(kind: str) -> History:
    """A person keeps DVC's cache elsewhere, and has its files linked."""

    def history(scene: Scene) -> Moments:
        project = scene.copy()
        elsewhere = Path(shutil.move(project.folder / ".dvc/cache", scene.folder / f"cache-{kind}"))
        shutil.rmtree(project.folder / "artifacts")
        take_cache(project, elsewhere, kind)
        assert (project.folder / "artifacts/report.html").is_symlink() == (kind == "symlink")
        shutil.rmtree(project.folder / ".compactlm/mlflow")
        scene.must(project, "publish", "--rebuild")  # MLflow takes no links
        yield project, CHAMPION

    return history


def shallow(scene: Scene) -> Moments:
    """A clone with the last two commits alone: the one of the run, and its results."""
    project = scene.copy()
    commit(project, "results")
    address = f"file://{project.folder}"
    project.shell("git", "clone", "-q", "--depth", "2", "--no-tags", address, str(scene.folder / "clone"))
    scene.share_store(project)
    clone = Project(scene.folder / "clone")
    clone.shell("git", "fetch", "-q", "origin", RUNS)
    take_cache(clone, project.folder / ".dvc/cache", "hardlink")
    yield clone, CHAMPION


def borrowing_clone(scene: Scene) -> Moments:
    """A clone that borrows the objects of the first repository, on a branch of its own that went on."""
    project = scene.copy()
    commit(project, "results")
    project.shell("git", "clone", "-q", "--shared", str(project.folder), str(scene.folder / "clone"))
    scene.share_store(project)
    clone = Project(scene.folder / "clone")
    take_cache(clone, project.folder / ".dvc/cache", "hardlink")
    clone.shell("git", *WHO, "commit", "-q", "--allow-empty", "-m", "more")
    clone.shell("git", "checkout", "-q", "--detach")
    yield clone, CHAMPION


def lost_store(scene: Scene) -> Moments:
    """MLflow's folder was deleted, and somebody runs again."""
    project = scene.copy()
    shutil.rmtree(project.folder / ".compactlm/mlflow")
    said = json.loads(scene.must(project, "run", "--json"))
    assert said["state"] == "no change"
    yield project, CHAMPION


def loaded(address: str) -> History:
    """Stock MLflow loads or serves a model from the store, which leaves a note beside it."""

    def history(scene: Scene) -> Moments:
        import mlflow
        from mlflow.artifacts import download_artifacts

        project = scene.copy()
        tracker = Tracker(project.folder, "tiny")
        [model] = [entry.source for entry in tracker.versions("tiny") if entry.version == "3"]
        mlflow.set_tracking_uri(tracker.uri)
        try:
            if "production" in address:
                mlflow.register_model(model, "production")
            folder = Path(download_artifacts(address.replace("MODEL", model), tracking_uri=tracker.uri))
        finally:
            mlflow.set_tracking_uri(None)
        assert (folder / LOADED_AS).exists()
        assert folder.is_relative_to(project.folder)
        yield project, CHAMPION

    return history


def other_words_in_mlflow(scene: Scene) -> Moments:
    """In MLflow's page the experiment gets another name, and a version a stage and a description."""
    project = scene.copy()
    client = Tracker(project.folder, "tiny").client
    client.rename_experiment(client.get_experiment_by_name("tiny").experiment_id, "sentiment")
    client.update_model_version("tiny", "3", "the one that we ship")
    client.update_registered_model("tiny", "small ones")
    yield project, CHAMPION


def written_otherwise(scene: Scene) -> Moments:
    """Somebody looked into the database with a tool that writes it in another way."""
    project = scene.copy()
    with contextlib.closing(sqlite3.connect(project.folder / STORE)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL")
    yield project, CHAMPION
