"""The doctor finds what is wrong with a machine, a project and its servers, in time, and shows no password."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tasks.children import LOOPBACK, free_port
from tasks.cli import app as cli
from tasks.running.doctor import SECONDS, examine
from tasks.running.machine import Finding, devices, resources, software
from tests.unit.running.test_surroundings import Versions

ROOT = Path(__file__).resolve().parents[3]
FACTS: dict[str, Any] = {
    "kind": "cpu",
    "names": [],
    "free_bytes": [],
    "built_for": None,
    "bf16": {"cpu": True},
    "lacks": {"cpu": None},
}


def saying(words: str) -> subprocess.Popen[str]:
    """Return a process in the place of the one that loads torch."""
    program = [sys.executable, "-c", words]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def torch_says(**facts: Any) -> subprocess.Popen[str]:
    return saying(f"print({json.dumps({**FACTS, **facts})!r})")


def states(found: Iterator[Finding] | list[Finding]) -> dict[str, str]:
    return {finding.about: finding.state for finding in found}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed project with Git and DVC in which nothing has run."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (folder / "dvc.yaml").write_text("stages: {}\n")
    for command in (
        ["git", "init", "-q", "-b", "main"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture
def project(tmp_path: Path, template: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture
def listening() -> Iterator[int]:
    with ThreadingHTTPServer((LOOPBACK, 0), Versions) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


def of_project(project: Path, seconds: float = SECONDS, **environ: str) -> list[Finding]:
    environ = {"HOME": str(project.parent), **environ}
    with torch_says() as torch:
        return list(examine(project, environ, torch, time.monotonic() - SECONDS + seconds))


def test_an_honest_project_has_nothing_wrong(project: Path, listening: int) -> None:
    address = f"http://{LOOPBACK}:{listening}"
    (project / ".dvc/config").write_text(f"['remote \"team\"']\n    url = {project.parent / 'store'}\n")
    found = of_project(project, 30, MLFLOW_TRACKING_URI=f"{address}", PREFECT_API_URL=f"{address}/api")
    assert "wrong" not in states(found).values(), found
    says = {finding.about: finding.says for finding in found}
    assert says["MLflow"] == f"{address} answers, 3.17.2 there and {metadata.version('mlflow')} here"
    assert says["MLflow: rights"] == "it asks for no user"
    assert says["Prefect"] == f"{address}/api answers, 3.8.8 there and {metadata.version('prefect')} here"
    assert says["Prefect: rights"].startswith("asks for no password; ")
    assert says["DVC remote team"].endswith("can be read and written, and holds nothing yet")
    assert "on main, 1 file differs" in says["git"]
    assert says["params.yaml"] == "describes a run (classification, 3 rounds)"
    of_others = {finding.about: finding.says for finding in of_project(project, 30)}
    assert "is not set: a database in the project" in of_others["MLflow"]
    assert all(finding.do for finding in found if finding.state != "fine")


def test_dead_servers_cost_no_more_than_the_time_there_is(project: Path, silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = f"['remote \"team\"']\n    url = s3://bucket/files\n    endpointurl = http://{LOOPBACK}:{free_port()}\n"
    (project / ".dvc/config").write_text(config)
    started = time.monotonic()
    environ = {
        "MLFLOW_TRACKING_URI": f"http://me:very-secret@{LOOPBACK}:{silent}",
        "PREFECT_API_URL": f"http://you:very-secret@{LOOPBACK}:{free_port()}/api",
    }
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "very-secret")
    found = of_project(project, 2.5, **environ)
    assert time.monotonic() - started < 2.5 + 2, "what was asked is left behind"
    wrong = {about.removesuffix(" team") for about, state in states(found).items() if state == "wrong"}
    assert wrong == {"MLflow", "Prefect", "DVC remote"}
    assert all(finding.do for finding in found if finding.state == "wrong")
    assert "very-secret" not in str(found)


def test_a_broken_project_is_told(project: Path) -> None:
    (project / "params.yaml").write_text("seed: [\n")
    (project / ".dvc/config").write_text("[core\n")
    (project / "dvc.lock").write_text("<<<<<<< HEAD\n")
    found = of_project(project, 30)
    wrong = {finding.about for finding in found if finding.state == "wrong"}
    assert wrong == {"params.yaml", "project", "DVC"}
    assert any("line 1 has a conflict mark" in finding.says for finding in found)


def test_the_command_that_merges_dvc_lock_is_asked_for_until_git_knows_it(project: Path) -> None:
    assert [finding.do for finding in of_project(project) if "merged by stages" in finding.says] == []
    (project / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    [told] = [finding.do for finding in of_project(project) if "merged by stages" in finding.says]
    assert told.startswith("git config merge.compactlm.driver ")
    subprocess.run(told, shell=True, cwd=project, check=True)
    assert [finding.do for finding in of_project(project) if "merged by stages" in finding.says] == []
    driver = subprocess.run(["git", "config", "merge.compactlm.driver"], cwd=project, capture_output=True, text=True, check=True)
    assert driver.stdout.strip().endswith('compactlm" merge-lock %O %A %B %P')


def test_packages_are_compared_with_their_ranges(tmp_path: Path) -> None:
    needs = '["torch>=99,<100", "no-such-thing>=1", "no-such-data==1.0", "numpy>=1", "nothing>1; python_version < \'3\'"]'
    content = f'[project]\nname = "compactlm"\nrequires-python = ">=3.99"\ndependencies = {needs}\n'
    (tmp_path / "pyproject.toml").write_text(content)
    found = {finding.about: finding for finding in software(tmp_path)}
    assert {about: finding.state for about, finding in found.items()} == {
        "python": "wrong",
        "package torch": "wrong",
        "package no-such-thing": "wrong",
        "package no-such-data": "warning",
        "packages": "fine",
    }
    assert found["package torch"].do == "pip install 'torch<100,>=99'"
    assert found["packages"].says.startswith("1 of 4 are within their ranges")
    assert set(states(software(None)).values()) == {"fine"}, "the tests' own environment"


def test_two_folders_of_one_disk_are_one_line(tmp_path: Path) -> None:
    found = states(resources({"project": tmp_path, "DVC cache": tmp_path / "not/there/yet"}))
    assert set(found) == {"cores", "memory", "disk of the project"}


@pytest.mark.parametrize(
    ("facts", "compiles", "about", "state", "words"),
    [
        ({}, "auto", "bf16", "fine", "fast on this cpu"),
        ({"bf16": {"cpu": False}}, "auto", "bf16", "fine", "takes fp32"),
        ({"lacks": {"cpu": "a C++ compiler"}}, "auto", "torch.compile", "warning", "auto does without"),
        ({"lacks": {"cpu": "a C++ compiler"}}, True, "torch.compile", "wrong", "needs a C++ compiler"),
        ({"lacks": {"cpu": "a C++ compiler"}}, False, "torch.compile", "fine", "false does without"),
        (
            {"kind": "cuda", "names": ["H200"], "free_bytes": [140e9], "bf16": {"cuda": True}, "lacks": {"cuda": None}},
            "auto",
            "device",
            "fine",
            "cuda: H200 (140 GB free)",
        ),
    ],
)
def test_what_torch_sees_is_told(facts: dict[str, Any], compiles: object, about: str, state: str, words: str) -> None:
    found = {finding.about: finding for finding in devices(torch_says(**facts), time.monotonic() + 30, compiles)}
    assert (found[about].state, words in found[about].says) == (state, True), found


def test_a_torch_that_is_broken_or_slow_is_told() -> None:
    with saying("raise ImportError('libtorch is no library')") as broken:
        [found] = devices(broken, time.monotonic() + 30, None)
    assert (found.state, "libtorch is no library" in found.says) == ("wrong", True)
    with saying("import time; time.sleep(60)") as slow:
        [found] = devices(slow, time.monotonic() + 0.2, None)
    assert (found.state, found.about) == ("warning", "device")


def test_outside_of_a_project_the_machine_is_looked_at() -> None:
    with torch_says() as torch:
        found = list(examine(None, {}, torch, time.monotonic() + 30))
    assert [finding.says for finding in found if finding.about == "project"] == ["no dvc.yaml and params.yaml here or above"]
    assert {"python", "cores", "git", "device"} < states(found).keys()


def test_the_command(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOME", str(project.parent))
    monkeypatch.setenv("PREFECT_API_URL", f"http://{LOOPBACK}:{free_port()}/api")
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["compactlm", "doctor", "--json"])
    with pytest.raises(SystemExit) as leave:
        cli.main()
    told = json.loads(capsys.readouterr().out)
    assert (leave.value.code, told["wrong"]) == (1, 1)
    assert set(told["findings"][0]) == {"about", "state", "says", "do", "facts"}
    assert {finding["about"] for finding in told["findings"]} > {"python", "cores", "memory", "git", "device", "Prefect"}
