"""New data is compared with that of the result which is committed in Git, by a real dvc.lock and DVC's cache."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tasks.data.profile import profile_of
from tasks.errors import DataError
from tasks.files import write_json
from tasks.params.base import Params
from tasks.params.file import apply_overrides, load_params
from tasks.running.accepted import refuse_drift
from tests.integration.conftest import ROOT, shell

WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")
DRIFT = "validate_data.drift={label_share: 0.1, length: 0.3, rows_lost: 0.3, divergence: 0.05}"
PIPELINE = """stages:
  validate_data:
    cmd: mkdir -p artifacts/validation && cp data.json artifacts/validation/profile.json
    deps: [data.json]
    params: [data, validate_data]
    outs: [artifacts/validation]
"""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data was checked and committed: short good and bad lines."""
    folder = tmp_path_factory.mktemp("accepted") / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text(apply_overrides((ROOT / "params.yaml").read_text(), [DRIFT], "params.yaml"))
    (folder / ".gitignore").write_text("/artifacts/\n")
    shell(folder, "git", "init", "-q", "-b", "main")
    shell(folder, sys.executable, "-m", "dvc", "init", "-q")
    check(folder, ["a good one", "a bad one"] * 50, ["1", "0"] * 50)
    commit(folder)
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "project", symlinks=True))


def check(folder: Path, texts: list[str], labels: list[str]) -> None:
    """Leave what the check of such data leaves."""
    write_json(folder / "data.json", profile_of(texts, labels))
    shell(folder, sys.executable, "-m", "dvc", "repro", "-q")


def commit(folder: Path) -> None:
    shell(folder, "git", "add", "-A")
    shell(folder, "git", *WHO, "commit", "-qm", "a result")


def params_of(folder: Path, *changes: str) -> Params:
    path = folder / "params.yaml"
    path.write_text(apply_overrides(path.read_text(), list(changes), path.name))
    return load_params(path)


def test_new_data_is_refused_until_it_is_committed(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    params = params_of(project)
    refuse_drift(project, params)
    check(project, ["a good one", "a bad one", "a good bad one"] * 40, ["1", "0", "1"] * 40)
    with pytest.raises(
        DataError, match=r"nothing was trained[\s\S]*label 1: 50\.0% of the rows before, 66\.7% now[\s\S]*--accept-data"
    ):
        refuse_drift(project, params)
    with pytest.raises(DataError):  # what was refused is not what the next look compares with
        refuse_drift(project, params)
    refuse_drift(project, params_of(project, "validate_data.drift=null"))
    params = params_of(project, DRIFT)
    commit(project)
    refuse_drift(project, params)


def test_another_choice_of_data_is_a_decision_and_no_drift(project: Path) -> None:
    params = params_of(project, "data.source=path:others.csv")
    check(project, ["ganz anderer Text"] * 90, ["2"] * 90)
    refuse_drift(project, params)


def test_without_a_result_or_its_profile_nothing_is_compared_and_that_is_told(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params = params_of(project)
    check(project, ["ganz anderer Text"] * 90, ["1"] * 90)
    shutil.rmtree(project / ".dvc" / "cache")
    refuse_drift(project, params)
    assert "the profile of the accepted data is not at hand" in caplog.text
    shell(project, "git", "rm", "-q", "--cached", "dvc.lock")
    shell(project, "git", *WHO, "commit", "-qm", "no result")
    caplog.clear()
    refuse_drift(project, params)
    assert caplog.text == ""


@pytest.mark.slow
def test_the_profile_is_fetched_where_only_the_remote_has_it(project: Path) -> None:
    shell(project, sys.executable, "-m", "dvc", "remote", "add", "-q", "--default", "shelf", str(project.parent / "shelf"))
    shell(project, sys.executable, "-m", "dvc", "push", "-q")
    check(project, ["ganz anderer Text"] * 90, ["1"] * 90)
    shutil.rmtree(project / ".dvc" / "cache")
    with pytest.raises(DataError, match="words: "):
        refuse_drift(project, params_of(project))
