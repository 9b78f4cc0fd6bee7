"""Honest histories of a workspace: each gives the moments at which an audit must have nothing to say."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tasks.registry.tracking import Tracker
from tests.pipeline import habits
from tests.pipeline.scene import CHAMPION, RUNS, WHO, History, Moments, Scene, commit, edit, take_cache
from tests.signers import make_key
from tests.tampering import moved_away
from tests.tiny_project import Project


def nothing(scene: Scene) -> Moments:
    yield scene.finished, CHAMPION


def without(path: str) -> History:
    def history(scene: Scene) -> Moments:
        with moved_away(scene.finished.folder / path):
            yield scene.finished, CHAMPION

    return history


def touched(scene: Scene) -> Moments:
    """Every file has another time stamp, half of them an older one."""
    for number, path in enumerate(sorted((scene.finished.folder / "artifacts").rglob("*"))):
        if path.is_file():
            os.utime(path, (0, 0) if number % 2 else None)
    yield scene.finished, CHAMPION


def renamed(scene: Scene) -> Moments:
    """The folder has another name: MLflow's paths are of a folder that is gone."""
    folder = scene.finished.folder
    other = folder.rename(folder.with_name("renamed"))
    try:
        yield Project(other), CHAMPION
    finally:
        other.rename(folder)


def read_only(scene: Scene) -> Moments:
    """Artifacts were made read-only, as an archive does."""
    files = [path for path in (scene.finished.folder / "artifacts").rglob("*") if path.is_file()]
    modes = {path: path.stat().st_mode for path in files}
    try:
        for path in files:
            path.chmod(0o444)
        yield scene.finished, CHAMPION
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def git_goes_on(scene: Scene) -> Moments:
    project = scene.copy()
    commit(project, "results")
    project.shell("git", "tag", "shipped")
    project.shell("git", "switch", "-qc", "next")
    project.shell("git", *WHO, "commit", "-qm", "more", "--allow-empty")
    project.shell("git", "gc", "-q", "--prune=now")
    yield project, CHAMPION


def second_worktree(scene: Scene) -> Moments:
    """Another worktree of the same repository, whose files come from the first one's cache."""
    project = scene.copy()
    other = Project(scene.folder / "other")
    commit(project, "results")
    scene.share_store(project)
    project.shell("git", "worktree", "add", "-q", "-b", "side", str(other.folder))
    take_cache(other, project.folder / ".dvc/cache", "hardlink")
    yield other, CHAMPION


def other_machines_cache(scene: Scene) -> Moments:
    project = scene.copy()
    clone = scene.clone(project)
    take_cache(clone, Path(shutil.copytree(project.folder / ".dvc/cache", scene.folder / "shared")), "symlink")
    assert (clone.folder / "artifacts/report.html").is_symlink()
    yield clone, CHAMPION


@contextlib.contextmanager
def s3_bucket() -> Iterator[str]:
    """Give the address of an S3 server on this machine that has an empty bucket `shelf`."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{address}/shelf", method="PUT")).close()
        yield address
    finally:
        server.stop()


def through_s3(scene: Scene) -> Moments:
    """Pushed to S3 on one machine, pulled from it into a fresh clone on another."""
    project = scene.copy()
    with s3_bucket() as address:
        shelf = "[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = s3://shelf/cache\n"
        (project.folder / ".dvc/config").write_text(shelf, encoding="utf-8")
        _reach_s3(project, address)
        project.dvc("push", "-q")
        clone = scene.clone(project)
        _reach_s3(clone, address)
        clone.dvc("pull", "-q")
    assert (clone.folder / "artifacts/rounds/r3/exported/model.onnx").exists()
    yield clone, CHAMPION
    clone.shell("git", "fetch", "-q", "origin", RUNS)
    yield clone, CHAMPION


def _reach_s3(project: Project, address: str) -> None:
    of_this_machine = {"endpointurl": address, "access_key_id": "me", "secret_access_key": "x", "region": "us-east-1"}
    lines = "".join(f"    {key} = {value}\n" for key, value in of_this_machine.items())
    (project.folder / ".dvc/config.local").write_text(f"['remote \"shelf\"']\n{lines}", encoding="utf-8")


def promoted_and_back(scene: Scene) -> Moments:
    project = scene.copy()
    scene.must(project, "promote", "1", code=2)  # refused: too few rows for the rule against the champion
    yield project, "tiny/1"
    project.set("promotion.gates=[{metric: accuracy, set: test, versus: champion, max_drop: 0.9}]")
    scene.must(project, "promote", "2")
    yield from ((project, selector) for selector in (CHAMPION, "tiny@previous", "tiny/1"))
    scene.must(project, "rollback", "--reason", "slower than it should be")
    yield from ((project, selector) for selector in (CHAMPION, "tiny@previous"))


def changed_gates(scene: Scene) -> Moments:
    """A round is refused under strict gates, and promoted after they were relaxed: two verdicts on the same predictions."""
    project = scene.copy()
    easy = "promotion.gates=[{metric: accuracy, set: test, versus: champion, max_drop: 0.9}]"
    _judge_all(scene, project, "gates=[{metric: params_total, versus: teacher, max_ratio: 0.5}]", easy)
    scene.must(project, "promote", "1", code=2)
    yield from ((project, selector) for selector in (CHAMPION, "tiny/1"))
    _judge_all(scene, project, "gates=[{metric: params_total, versus: teacher, max_ratio: 0.9}]")
    scene.must(project, "promote", "1")
    yield from ((project, selector) for selector in (CHAMPION, "tiny@previous", "tiny/2"))


def _judge_all(scene: Scene, project: Project, *overrides: str) -> None:
    """Judge every round by other rules and record it, without a Prefect server."""
    project.set(*overrides)
    commit(project, "other rules")
    project.dvc("repro", "-q")
    scene.must(project, "publish")


def approved(scene: Scene) -> Moments:
    """People sign, and the signed answers are committed."""
    from tasks.promotion.keys import own_public_key

    project, key = scene.copy(), make_key(scene.folder / "key")
    (project.folder / "approvers").write_text(f"ada@example.org {own_public_key(key)}\n", encoding="utf-8")
    approval = "{quorum: 1, not_author: true, ttl_hours: 72, approvers: approvers}"
    project.set(f"promotion={{gates: [], approval: {approval}}}")
    commit(project, "approvals")
    scene.must(project, "promote", "2", code=2)
    yield project, "tiny/2"
    scene.must(project, "approve", "--key", str(key))
    scene.must(project, "promote", "2")
    commit(project, "approved")
    yield from ((project, selector) for selector in (CHAMPION, "tiny@previous"))


def rebuilt(scene: Scene) -> Moments:
    project = scene.copy()
    shutil.rmtree(project.folder / ".compactlm/mlflow")
    scene.must(project, "publish", "--rebuild")
    yield project, CHAMPION


def repaired_clone(scene: Scene) -> Moments:
    """A clone without refs and without files makes the refs again from the file of decisions."""
    project = scene.copy()
    clone = scene.clone(project)
    take_cache(clone, project.folder / ".dvc/cache", "hardlink")
    scene.must(clone, "history", "--repair")
    yield clone, CHAMPION


def people_use_mlflow(scene: Scene) -> Moments:
    """In MLflow's page somebody names a version, writes notes, and keeps experiments of their own."""
    project = scene.copy()
    tracker = Tracker(project.folder, "tiny")
    tracker.set_alias("tiny", "demo", "1")
    tracker.client.set_model_version_tag("tiny", "3", "owner", "Ada")
    tracker.client.set_tag(tracker.client.search_runs([tracker.experiment_id])[0].info.run_id, "note", "good")
    tracker.client.create_run(tracker.experiment_id, run_name="by hand")
    tracker.client.create_registered_model("another")
    yield project, CHAMPION
    yield project, "tiny@demo"


def forced_again(scene: Scene) -> Moments:
    """A stage was run again for nothing: the same files, another receipt."""
    project = scene.copy()
    project.dvc("repro", "-q", "-f", "-s", "gate@r3")
    yield project, CHAMPION
    scene.must(project, "publish")
    yield project, CHAMPION


def run_again_otherwise(scene: Scene) -> Moments:
    project = scene.copy()
    project.run("--set", "rounds.r3.learning_rate=4.0e-3")
    yield from ((project, selector) for selector in ("tiny/3", "tiny/4"))
    assert json.loads(project.compactlm("run", "--json").stdout)["state"] == "no change"
    yield project, "tiny/4"
    project.shell(sys.executable, "-m", "dvc", "gc", "-q", "-f", "-w")
    yield project, "tiny/4"


HISTORIES: dict[str, History] = {
    "nothing happened": nothing,
    "the cache was emptied": without(".dvc/cache/files"),
    "the run cache was emptied": without(".dvc/cache/runs"),
    "the workspace was emptied": without("artifacts"),
    "the report was thrown away": without("artifacts/report.html"),
    "the next run is being prepared": edit("params.yaml", lambda text: text.replace("seed: 0", "seed: 1")),
    "params got a comment": edit("params.yaml", lambda text: text + "# for the next time\n"),
    "another stage's code was edited": edit("tasks/stages/report.py", lambda text: text.replace('"""', '"""Now: ', 1)),
    "the pipeline is being changed": edit("dvc.yaml", lambda text: text + "# more to come\n"),
    "files were touched": touched,
    "the folder was renamed": renamed,
    "files were made read-only": read_only,
    "Git went on, and swept up": git_goes_on,
    "a second worktree with hard links into the cache": second_worktree,
    "another machine's cache linked into a clone": other_machines_cache,
    "pushed to S3, and pulled from it into a clone": through_s3,
    "refused, promoted, and rolled back": promoted_and_back,
    "refused under old gates, promoted under new ones": changed_gates,
    "approved by a person": approved,
    "the index was made again": rebuilt,
    "a clone made the refs again": repaired_clone,
    "people use MLflow's page": people_use_mlflow,
    "a stage was run again for nothing": forced_again,
    "a later run with other params": run_again_otherwise,
    "Git is set up for reading by eye": habits.settings("config", habits.GIT_SETTINGS, "GIT_CONFIG_GLOBAL"),
    "asked from a hook of Git": habits.settings("index", "", "GIT_INDEX_FILE", GIT_DIR="/nowhere", GIT_LITERAL_PATHSPECS="1"),
    "Git speaks another language": habits.settings(
        "none", "", "GIT_EXTERNAL_DIFF", LANGUAGE="de", LC_ALL="de_DE.UTF-8", TZ="Asia/Tokyo"
    ),
    "DVC is set up by a person": habits.settings("config", habits.DVC_SETTINGS, "DVC_GLOBAL_CONFIG_DIR", DVC_STUDIO_OFFLINE="1"),
    "Git is told not to show an edit": habits.hidden_edit,
    "an editor has left files in the code": habits.beside("tasks/stages/.prune.py.swp", "half a page"),
    "a run was killed": habits.beside(".compactlm/run.lock", "run"),
    "a training was cut short": habits.beside(".compactlm/scratch/steps.jsonl", "{"),
    "reached by a link": habits.by_a_link,
    "in a folder with an odd name": habits.oddly_named,
    "copied, and the original was changed": habits.copied,
    "DVC's cache elsewhere, with symbolic links": habits.own_cache("symlink"),
    "a shallow clone": habits.shallow,
    "a clone that borrows objects": habits.borrowing_clone,
    "MLflow's store was lost, and a run made it again": habits.lost_store,
    "stock MLflow loaded the version": habits.loaded("models:/tiny/3"),
    "stock MLflow loaded the champion": habits.loaded("models:/tiny@champion"),
    "stock MLflow loaded the model": habits.loaded("MODEL"),
    "registered under another name, and loaded": habits.loaded("models:/production/1"),
    "other words in MLflow's page": habits.other_words_in_mlflow,
    "MLflow's database was written otherwise": habits.written_otherwise,
}
# Histories that leave each other alone, told at once and audited once.
TOGETHER: dict[str, list[str]] = {
    "a day's work in the project": [
        "nothing happened",
        "the run cache was emptied",
        "the cache was emptied",
        "the next run is being prepared",
        "params got a comment",
        "another stage's code was edited",
        "the pipeline is being changed",
        "files were touched",
        "files were made read-only",
        "Git is set up for reading by eye",
        "asked from a hook of Git",
        "Git speaks another language",
        "DVC is set up by a person",
        "an editor has left files in the code",
        "a run was killed",
        "a training was cut short",
    ],
    "a day's work in MLflow": [
        "people use MLflow's page",
        "other words in MLflow's page",
        "MLflow's database was written otherwise",
        "stock MLflow loaded the model",
        "stock MLflow loaded the champion",
        "registered under another name, and loaded",
    ],
}
SLOW = {  # the three in the middle have a quick sister in test_audit_approvals, test_rebuild and test_matching
    "a later run with other params",
    "approved by a person",
    "the index was made again",
    "refused under old gates, promoted under new ones",
    "a clone made the refs again",
    "a stage was run again for nothing",
    "stock MLflow loaded the version",  # as the champion, in `TOGETHER`
    "DVC's cache elsewhere, with symbolic links",
    "MLflow's store was lost, and a run made it again",
    "a clone that borrows objects",
    "a shallow clone",  # what it lacks: test_code
    "reached by a link",  # test_moved_store
    "pushed to S3, and pulled from it into a clone",  # its sister is the cache of another machine, linked
    "refused, promoted, and rolled back",  # test_cli_registry tells that story, and its audits are test_promotion's
    *(name for names in TOGETHER.values() for name in names),
}
