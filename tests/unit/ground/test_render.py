"""Compose, Kubernetes and systemd say what the one description says: the same commands, ports and checks, and no password."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from infra import render
from infra.forms import systemd
from infra.forms.containers import check_command
from infra.stack import MEMORY, ROLES, Process, Stack
from tasks.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
PAGES = {"--mlflow": "https://mlflow.example.org", "--prefect": "https://prefect.example.org"}
FORMS = ("compose", "kubernetes", "systemd")
NAMES = ["postgres", "mlflow", "prefect"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all forms were made, with a project and code that are there."""
    made = tmp_path_factory.mktemp("render")
    places = {"--code": str(made / "code"), "--workspace": str(made / "project")}
    (made / "project").mkdir()
    (made / "code/.venv/bin").mkdir(parents=True)
    for name in ("python", "compactlm"):
        (made / "code/.venv/bin" / name).symlink_to(sys.executable)
    for form in FORMS:
        render.write(made / form, *render.rendered(made, {"--as": form, **PAGES, **places}))
    return made


def containers(folder: Path) -> dict[str, Process]:
    pages = render.pages_of(PAGES)
    return {process.name: process for process in render.described(Stack(folder, site=render.in_containers(pages)))}


def units(folder: Path) -> dict[str, Process]:
    site = render.in_units(render.pages_of(PAGES), systemd.postgres())
    return {process.name: process for process in render.described(Stack(folder, site=site))}


def documents(path: Path) -> list[Any]:
    return list(YAML(typ="safe").load_all(path.read_text(encoding="utf-8")))


def unit(folder: Path, name: str) -> configparser.ConfigParser:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((folder / "systemd" / systemd.unit_name(name)).read_text(encoding="utf-8"))
    return parser


def variables(folder: Path, form: str, name: str) -> dict[str, str]:
    lines = (folder / form / "secrets" / f"{name}.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("form", FORMS)
def test_no_password_is_in_what_is_rendered_and_its_files_are_for_their_owner_alone(folder: Path, form: str) -> None:
    passwords = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["passwords"]
    assert all(len(password) >= 32 for password in passwords.values())
    assert len(set(passwords.values())) == len(passwords)
    shown = [path for path in (folder / form).iterdir() if path.is_file()]
    assert len(shown) >= 2
    for path in shown:
        text = path.read_text(encoding="utf-8")
        assert not [name for name, password in passwords.items() if password in text], path
    for path in (folder / "settings.json", *(folder / form / "secrets").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((folder / form / "secrets").stat().st_mode) == 0o700


@pytest.mark.parametrize("form", FORMS)
def test_every_secret_is_in_the_file_of_its_process_and_in_no_other(folder: Path, form: str) -> None:
    described = units(folder) if form == "systemd" else containers(folder)
    assert list(described) == NAMES
    for name, process in described.items():
        assert variables(folder, form, name) == process.secret
    host = "127.0.0.1" if form == "systemd" else "postgres"
    assert urlsplit(variables(folder, form, "mlflow")["MLFLOW_BACKEND_STORE_URI"]).hostname == host
    reader, runner = variables(folder, form, "reader"), variables(folder, form, "runner")
    assert [name for name in reader if name.startswith("PREFECT")] == []  # who reads starts nothing there
    assert (runner["PREFECT_API_URL"], runner["MLFLOW_TRACKING_URI"]) == (
        "https://prefect.example.org/api",
        "https://mlflow.example.org",
    )
    assert len({variables(folder, form, role)["MLFLOW_TRACKING_PASSWORD"] for role in ROLES}) == len(ROLES)


def test_made_again_it_has_the_same_passwords(folder: Path) -> None:
    before = variables(folder, "compose", "mlflow")
    _, secrets = render.rendered(folder, {"--as": "compose", **PAGES})
    assert secrets["mlflow.env"].splitlines() == [f"{name}={value}" for name, value in before.items()]


def test_compose_says_what_the_description_says(folder: Path) -> None:
    [content] = documents(folder / "compose/compose.yaml")
    services = content["services"]
    assert list(services) == NAMES
    for name, process in containers(folder).items():
        service = services[name]
        told = process.command[2:] if name == "postgres" else ("python", "-m", *process.command)
        assert tuple(service["command"]) == told
        assert process.env.items() <= service["environment"].items()
        assert service["env_file"] == [f"secrets/{name}.env"]
        assert service["healthcheck"]["test"] == ["CMD", *check_command(process)]
        port = urlsplit(process.health).port
        assert service.get("ports", []) == ([] if name == "postgres" else [f"127.0.0.1:{port}:{port}"])
        assert (service["read_only"], service["cap_drop"], service["restart"]) == (True, ["ALL"], "always")
        assert not service["user"].startswith("0")
        assert {volume.split(":")[0] for volume in service["volumes"]} - {"./databases.sql"} <= set(content["volumes"])
    assert services["mlflow"]["healthcheck"]["test"][-1] == "http://127.0.0.1:5000/health"
    assert "mlflow.example.org" in services["mlflow"]["command"][-1]
    assert services["prefect"]["environment"]["PREFECT_SERVER_UI_API_URL"] == "https://prefect.example.org/api"


def test_kubernetes_says_what_the_description_says(folder: Path) -> None:
    place = folder / "kubernetes"
    [base] = documents(place / "kustomization.yaml")
    assert all((place / name).exists() for name in [*base["resources"], *base["configMapGenerator"][0]["files"]])
    for name, process in containers(folder).items():
        found = {document["kind"]: document for document in documents(place / f"{name}.yaml")}
        workload = found["StatefulSet" if name == "postgres" else "Deployment"]["spec"]["template"]["spec"]
        [container] = workload["containers"]
        port = urlsplit(process.health).port
        told = process.command[2:] if name == "postgres" else ("python", "-m", *process.command)
        assert tuple(container["args"]) == told
        assert process.env.items() <= {entry["name"]: entry["value"] for entry in container["env"]}.items()
        assert container["envFrom"] == [{"secretRef": {"name": f"compactlm-{name}"}}]
        assert [entry["port"] for entry in found["Service"]["spec"]["ports"]] == [port]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if name == "postgres":
                assert container[probe]["exec"]["command"] == check_command(process)
            else:
                assert container[probe]["httpGet"]["path"] == urlsplit(process.health).path
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert workload["securityContext"]["runAsNonRoot"]
        assert not workload["automountServiceAccountToken"]
        assert set(container["resources"]) == {"requests", "limits"}
        known = {volume["name"] for volume in workload["volumes"]} | ({name} if name == "postgres" else set())
        assert {mount["name"] for mount in container["volumeMounts"]} <= known


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine")
def test_kustomize_takes_the_base(folder: Path) -> None:
    command = ["kubectl", "kustomize", str(folder / "kubernetes")]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kinds = re.findall(r"^kind: (\w+)$", built, re.MULTILINE)
    wanted = ["ConfigMap", *["Deployment"] * 2, "Namespace", "NetworkPolicy", *["PersistentVolumeClaim"] * 2]
    assert sorted(kinds) == [*wanted, *["Service"] * 3, "StatefulSet"]
    assert "Secret" not in kinds  # they are made by a command, and named here


def test_units_say_what_the_description_says(folder: Path) -> None:
    for name, process in units(folder).items():
        service = unit(folder, name)["Service"]
        python = f"{folder}/code/.venv/bin/python"
        told = process.command[2:] if name == "postgres" else (python, "-m", *process.command)
        assert tuple(shlex.split(service["ExecStart"])) == told
        shown = dict(word.split("=", 1) for word in shlex.split(service.get("Environment", "")))
        assert shown == process.env
        assert str(urlsplit(process.health).port if name == "postgres" else process.health) in service["ExecStartPost"]
        assert service["EnvironmentFile"] == f"/etc/compactlm/{name}.env"
    for name, role in (("schedule", "runner"), ("watch", "watch")):
        service = unit(folder, name)["Service"]
        assert service["ExecStart"].startswith(f"{folder}/code/.venv/bin/compactlm {name} ")
        assert (service["EnvironmentFile"], service["WorkingDirectory"]) == (f"/etc/compactlm/{role}.env", f"{folder}/project")
    for name in (*NAMES, "schedule", "watch"):
        service = unit(folder, name)["Service"]
        hardened = (service["Restart"], service["User"], service["NoNewPrivileges"], service["ProtectSystem"])
        assert hardened == ("always", "compactlm", "yes", "strict")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")
def test_systemd_takes_the_units(folder: Path) -> None:
    paths = sorted(map(str, (folder / "systemd").glob("compactlm*")))
    told = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    lines = [line for line in told.stderr.splitlines() if "compactlm" in line and "/postgres is not" not in line]
    assert [line for line in lines if "pg_isready" not in line] == []  # where PostgreSQL is not installed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"--as": "helm"}, "--as=helm: is none of compose, kubernetes, systemd"),
        ({}, "--as=: is none of"),
        ({"--as": "compose", "--bytes": MEMORY}, "--bytes=memory: it forgets all"),
        ({"--as": "compose", "--mlflow": "mlflow.example.org"}, "--mlflow=mlflow.example.org: is no address of a server"),
        ({"--as": "compose", "--prefect": "https://x.org/api"}, "--prefect=https://x.org/api: is no address of a server"),
    ],
)
def test_what_cannot_be_rendered_is_said(tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        render.rendered(tmp_path, options)


def test_a_command_line_that_is_none_has_the_usage() -> None:
    for arguments in ([], ["a", "b"], ["a", "--as"], ["a", "--other=1"]):
        with pytest.raises(UserError, match=r"usage: python -m infra\.render FOLDER"):
            render.parsed(arguments, render.OPTIONS, render.USAGE)
    assert render.parsed(["a", "--as=compose"], render.OPTIONS, render.USAGE) == (Path("a").absolute(), {"--as": "compose"})


def test_keys_of_a_bucket_are_secrets(tmp_path: Path) -> None:
    stack = Stack(tmp_path, "s3://models", render.in_containers({}))
    files = render.secret_files(stack, {"AWS_SECRET_ACCESS_KEY": "of-the-bucket", "HOME": "/root"})
    assert "AWS_SECRET_ACCESS_KEY=of-the-bucket\n" in files["mlflow.env"]
    assert [name for name, text in files.items() if "of-the-bucket" in text] == ["mlflow.env"]
    [mlflow] = [process for process in stack.processes() if process.name == "mlflow"]
    assert mlflow.command[mlflow.command.index("--artifacts-destination") + 1] == "s3://models/mlflow"


def test_the_image_has_what_the_commands_of_containers_import() -> None:
    text = (ROOT / "infra/Containerfile").read_text(encoding="utf-8")
    assert {"COPY flows flows", "COPY tasks tasks", "COPY infra infra"} <= set(text.splitlines())
    assert "FROM python:3.11-slim" in text
    assert "USER 10001:10001" in text
    assert ".[server]" in text
