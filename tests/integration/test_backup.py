"""A backup brings a workspace back where nothing of it is left; what differs stays, and what is damaged is not used."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.cli import app as cli
from tasks.errors import ResourceError, UserError
from tasks.files import digest
from tasks.git import refs_of
from tasks.promotion.decide import Request, decide
from tasks.promotion.decisions import read_log
from tasks.promotion.drift import registry_faults
from tasks.registry.backup import backup
from tasks.registry.listing import list_models
from tasks.registry.restore import restore
from tasks.registry.tracking import Tracker
from tasks.running.dvc import pending, read_graph
from tasks.running.identity import workspace_id
from tasks.running.start import only_run
from tasks.running.vault import Vault
from tests.integration.conftest import publish_in, shell
from tests.marks import quick
from tests.once import made_once

NAME = "compactlm-sentiment"
OWN_PLACES = ("path", "onnx_path")


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory, built_template: Path, store_template: Path) -> Path:
    """A project with a registry, a decision and a refused one, and params that are not committed."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            project = publish_in(folder, built_template, store_template)
            refused = {"verdict": "fail", "sentence": "no", "rules": []}
            decide(Tracker(project, NAME), NAME, Request("promote", "1", "try", "tester"), lambda *_: refused)
        with (project / "params.yaml").open("a", encoding="utf-8") as file:
            file.write("# not committed\n")
        (project / "notes.txt").write_text("new\n", encoding="utf-8")
        shell(project, "git", "branch", "other")

    return made_once(tmp_path_factory, "recorded", make) / "project"


@pytest.fixture
def project(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(recorded, tmp_path / "project", symlinks=True))


def facts(folder: Path) -> dict[str, Any]:
    """Return all that a restored workspace must have again."""
    tracker = Tracker(folder, NAME)
    rows = [{key: value for key, value in row.items() if key not in OWN_PLACES} for row in list_models(tracker)]
    points = {row["run_id"]: tracker.run_points(row["run_id"]) for row in rows}
    names = ("params.yaml", "notes.txt", "dvc.lock", "decisions.jsonl", "sources.lock")
    return {
        "models": rows,
        "numbers": points,
        "aliases": tracker.aliases(NAME),
        "log": read_log(folder),
        "refs": refs_of(folder, "refs"),
        "files": {name: (folder / name).read_bytes() for name in names},
        "artifacts": digest(folder / "artifacts"),
        "id": workspace_id(folder),
        "pending": pending(folder, read_graph(folder)),
        "faults": registry_faults(tracker, NAME),
    }


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_all_is_deleted_and_all_is_there_again(project: Path, tmp_path: Path) -> None:
    before = facts(project)
    assert (before["pending"], before["faults"], before["aliases"]["champion"]) == ([], [], "2")
    written = backup(project, tmp_path / "backup")
    assert written["notes"] == []
    again = backup(project, tmp_path / "backup")  # nothing has changed
    assert (again["new_bytes"], again["bytes"]) == (0, written["bytes"])
    shutil.rmtree(project)
    answer = restore(tmp_path / "backup", empty(project))
    assert (answer["lacking"], answer["refs"]) == ([], 3)
    assert facts(project) == before
    assert facts(Path(restore(tmp_path / "backup", empty(tmp_path / "elsewhere"))["workspace"])) == before


def test_a_fresh_clone_gets_what_git_does_not_bring(project: Path, tmp_path: Path) -> None:
    before = facts(project)
    backup(project, tmp_path / "backup")
    shell(tmp_path, "git", "clone", "-q", str(project), "clone")
    shutil.rmtree(project)
    restore(tmp_path / "backup", tmp_path / "clone")
    shell(tmp_path / "clone", "git", "update-ref", "-d", "refs/remotes/origin/main")
    after = facts(tmp_path / "clone")
    after["refs"] = {name: blob for name, blob in after["refs"].items() if not name.startswith("refs/remotes/")}
    assert after == before
    with pytest.raises(UserError, match=r"mlflow\.db"):  # it has been opened since
        restore(tmp_path / "backup", tmp_path / "clone")


def test_what_a_person_gave_to_dvc_comes_back_too(project: Path, tmp_path: Path) -> None:
    (project / "own.bin").write_bytes(b"a person's own")
    shell(project, sys.executable, "-m", "dvc", "add", "-q", "own.bin")
    backup(project, tmp_path / "backup")
    answer = restore(tmp_path / "backup", empty(tmp_path / "new"))
    assert answer["lacking"] == []
    assert (tmp_path / "new/own.bin").read_bytes() == b"a person's own"
    assert digest(tmp_path / "new/artifacts") == digest(project / "artifacts")


LOST: dict[str, tuple[str, ...]] = {
    "the cache": (".dvc/cache",),
    "mlflow": (".compactlm/mlflow",),
    "all of .compactlm and artifacts": (".compactlm", "artifacts"),
}


@pytest.mark.parametrize("name", quick(LOST, ["all of .compactlm and artifacts"]))
def test_what_was_lost_comes_back_and_the_rest_is_left_alone(project: Path, tmp_path: Path, name: str) -> None:
    lost = LOST[name]
    backup(project, tmp_path / "backup")
    for name in lost:
        shutil.rmtree(project / name)
    answer = restore(tmp_path / "backup", project)
    assert answer["lacking"] == []
    assert answer["there"] > 0
    assert registry_faults(Tracker(project, NAME), NAME) == []
    assert pending(project, read_graph(project)) == []


def _edit_params(project: Path) -> None:
    (project / "params.yaml").write_text("seed: 1\n", encoding="utf-8")


def _decide_more(project: Path) -> None:
    shell(project, "git", "update-ref", "-d", "refs/compactlm/decisions/00000002")
    shell(project, "sh", "-c", "git update-ref refs/compactlm/decisions/00000002 $(echo other | git hash-object -w --stdin)")


def _commit(project: Path) -> None:
    shell(project, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "next")


def _other_object(project: Path) -> None:
    place = next(path for path in (project / ".dvc/cache/files/md5").glob("??/*") if path.stat().st_size)
    place.chmod(0o644)
    place.write_bytes(b"x")


DIFFERING: dict[str, tuple[Callable[[Path], None], str]] = {
    "params": (_edit_params, r"params\.yaml"),
    "a decision": (_decide_more, "refs/compactlm/decisions/00000002 .* in the backup"),
    "a commit": (_commit, r"HEAD \(commit .* here, .* in the backup"),
    "an object": (_other_object, "DVC's cache: files/md5"),
}


@pytest.mark.parametrize(("change", "words"), DIFFERING.values(), ids=DIFFERING)
def test_what_differs_is_not_written_over(project: Path, tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    backup(project, tmp_path / "backup")
    shutil.rmtree(project / ".compactlm")
    change(project)
    before = digest(project)["sha256"]
    with pytest.raises(UserError, match=f"nothing was restored, for it would write over .*{words}.*; move that away"):
        restore(tmp_path / "backup", project)
    shutil.rmtree(project / ".compactlm", ignore_errors=True)  # the lock of the workspace
    assert digest(project)["sha256"] == before


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 60])
def test_what_was_cut_short_is_finished_by_the_same_command(
    project: Path, tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = facts(project)
    left = {"put": calls, "bring": calls}

    def dying(name: str) -> Callable[..., Any]:
        real = getattr(Vault, name)

        def call(*arguments: Any) -> Any:
            left[name] -= 1
            if left[name] < 0:
                raise KeyboardInterrupt
            return real(*arguments)

        return call

    place = empty(tmp_path / "new")
    for name, work in (
        ("put", lambda: backup(project, tmp_path / "backup")),
        ("bring", lambda: restore(tmp_path / "backup", place)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Vault, name, dying(name))
            with pytest.raises(KeyboardInterrupt):
                work()
        if name == "put":
            with pytest.raises(UserError, match="there is no backup"):
                restore(tmp_path / "backup", place)
        work()
    assert facts(place) == before


def test_a_damaged_backup_is_found_before_anything_is_written(project: Path, tmp_path: Path) -> None:
    backup(project, tmp_path / "backup")
    place = max((tmp_path / "backup" / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="the backup is damaged, so nothing was restored"):
        restore(tmp_path / "backup", empty(tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_damaged_object_is_left_out_and_said(project: Path, tmp_path: Path) -> None:
    _other_object(project)
    answer = backup(project, tmp_path / "backup")
    assert len(answer["damaged"]) == 1
    assert "other bytes than their names say" in answer["notes"][0]


def test_a_backup_is_of_one_moment(project: Path, tmp_path: Path) -> None:
    with only_run(project), pytest.raises(ResourceError, match="another run is under way"):
        backup(project, tmp_path / "backup")
    database = project / ".compactlm/mlflow/mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as writer:
        writer.execute("UPDATE registered_models SET description = 'half done'")
        backup(project, tmp_path / "backup")  # a transaction that is open is not in it
        writer.rollback()
    restore(tmp_path / "backup", empty(tmp_path / "new"))
    with contextlib.closing(sqlite3.connect(tmp_path / "new/.compactlm/mlflow/mlflow.db")) as reader:
        assert reader.execute("SELECT description FROM registered_models").fetchall() != [("half done",)]
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_older_commits_bring_what_they_name(project: Path, tmp_path: Path) -> None:
    shell(project, "git", "add", "-A")
    _commit(project)
    first = (project / "dvc.lock").read_text(encoding="utf-8")
    (project / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n", encoding="utf-8")
    for name in refs_of(project, "refs/compactlm/runs"):
        shell(project, "git", "update-ref", "-d", name)
    shutil.rmtree(project / ".compactlm")
    shutil.rmtree(project / "artifacts")
    answer = backup(project, tmp_path / "backup")
    manifest = json.loads(Path(answer["manifest"]).read_text(encoding="utf-8"))
    named = [line.split()[-1] for line in first.splitlines() if "md5:" in line]
    here = {name.removeprefix("files/md5/").replace("/", "") for name in manifest["cache"]}
    assert {name for name in named if (project / ".dvc/cache/files/md5" / name[:2] / name[2:]).exists()} <= here
    shutil.rmtree(project / ".dvc/cache")
    assert "outputs that commits or runs name are not in DVC's cache here" in backup(project, tmp_path / "poor")["notes"][0]


def test_a_folder_is_for_one_workspace(project: Path, tmp_path: Path) -> None:
    backup(project, tmp_path / "backup")
    (tmp_path / "backup" / ".scratch-killed").mkdir()
    backup(project, tmp_path / "backup")
    assert not (tmp_path / "backup" / ".scratch-killed").exists()
    with pytest.raises(UserError, match="it holds backups of another workspace"):
        backup(Path(shutil.copytree(project, tmp_path / "copy", symlinks=True)), tmp_path / "backup")


@pytest.mark.parametrize("case", ["inside", "no commit", "not empty"])
def test_a_place_that_cannot_serve_is_refused(project: Path, tmp_path: Path, case: str) -> None:
    if case == "inside":
        with pytest.raises(UserError, match="a backup inside of the project is lost with it"):
            backup(project, project / "backup")
    elif case == "no commit":
        shutil.rmtree(project / ".git")
        with pytest.raises(UserError, match="Git has no commit of this project"):
            backup(project, tmp_path / "backup")
    else:
        backup(project, tmp_path / "backup")
        (empty(tmp_path / "new") / "a.txt").touch()
        with pytest.raises(UserError, match="neither empty nor a compactlm project"):
            restore(tmp_path / "backup", tmp_path / "new")


def test_the_commands_say_what_they_did(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(folder: Path, *arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["compactlm", *arguments])
        with pytest.raises(SystemExit) as leave:
            cli.main()
        return int(leave.value.code or 0), capsys.readouterr().out

    code, words = said(project, "backup", "../backup")
    assert (code, words.splitlines()[-1]) == (0, "to bring it back: compactlm restore ../backup")
    code, words = said(project, "gc", "--keep", "1")
    assert (code, words.splitlines()[0]) == (0, "would go: no version; 0B in all")
    shutil.rmtree(project)
    code, words = said(empty(tmp_path / "new"), "restore", "../backup")
    assert (code, words.splitlines()[1:]) == (0, ["registry: as it was decided", "next: compactlm audit"])
    code, words = said(empty(tmp_path / "more"), "restore", "../backup", "--at", "never", "--json")
    assert (code, "--at never" in json.loads(words)["error"]) == (2, True)


@pytest.mark.parametrize("name", quick(["../outside", "/etc/x", ".git/hooks/post-checkout"], ["../outside"]))
def test_a_manifest_that_leads_out_of_the_project_is_refused(project: Path, tmp_path: Path, name: str) -> None:
    backup(project, tmp_path / "backup")
    vault = Vault(tmp_path / "backup")
    manifest = vault.read("workspace")
    manifest["files"][name] = manifest["files"]["params.yaml"]
    vault.seal({key: value for key, value in manifest.items() if key not in ("format", "made_at")})
    with pytest.raises(UserError, match=r"its manifest names .*, where nothing is restored"):
        restore(tmp_path / "backup", empty(tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == []
