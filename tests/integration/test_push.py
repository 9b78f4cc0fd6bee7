"""`compactlm push`: a folder that stock transformers loads and the Hub shows, and the Hub itself, played by a server here."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts import RoundPaths
from tasks.using.folder import lay_out
from tasks.using.model import find_model
from tests.integration import test_predict as predicted

ROOT = Path(__file__).resolve().parents[2]
exported = predicted.exported


def push(folder: Path, *arguments: object, **env: str) -> tuple[int, str, str]:
    """Run `compactlm push ARGUMENTS --json` in a folder: exit code, what it printed and what it said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    told = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(folder / "hf"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        **env,
    }
    command = [sys.executable, "-c", "from tasks.cli.app import main; main()", "push", *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_folder_in_the_layout_of_the_hub(exported: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard
    from transformers import pipeline

    code, printed, said = push(tmp_path, exported, "out/pushed", "--license", "Apache-2.0")
    assert code == 0, said
    pushed, facts = tmp_path / "out/pushed", json.loads(printed)
    names = {path.relative_to(pushed).as_posix() for path in pushed.rglob("*") if path.is_file()}
    assert {*facts["files"]} == names
    wanted = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx"}
    assert names >= wanted | {"onnx/model.int8.onnx"}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in pushed.rglob("*") if path.is_file()}
    assert (modes, stat.S_IMODE(pushed.stat().st_mode)) == ({0o644}, 0o755)
    assert (pushed / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()
    card = ModelCard.load(pushed / "README.md")
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == (
        "apache-2.0",
        "text-classification",
        "transformers",
    )
    assert "Sorts a text into `negative`, `positive`." in card.text
    assert "onnxruntime" in card.text
    asked = pipeline("text-classification", model=str(pushed), device="cpu")
    assert asked("a fine film")[0]["label"] in ("negative", "positive")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pushed"]


def test_nothing_is_written_over_and_faults_are_sentences(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/note.txt").write_text("mine")
    for arguments, words in (
        ([exported, "taken"], "there is something already, and nothing is written over"),
        ([exported, "hub:no-team"], "hub:no-team: write hub:ORG/NAME"),
        ([exported, "hub:team/new"], "hub:team/new: no token; set HF_TOKEN"),
        ([exported, "new", "--public"], "--public: new is a folder"),
        (["champion", "new"], "champion: no folder with a config.json"),
    ):
        code, printed, said = push(tmp_path, *arguments)
        assert code == 2
        assert words in said
        assert json.loads(printed)["exit_code"] == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "hf") == ["taken"]
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["note.txt"]


def test_a_card_that_is_there_stays(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "with_card")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    lay_out(find_model(str(folder), tmp_path), None, tmp_path / "out")
    assert (tmp_path / "out/README.md").read_text() == (folder / "README.md").read_text()
    code, _, said = push(tmp_path, folder, "again", "--license", "MIT")
    assert (code, "is a card already, which says the license" in said) == (2, True)
    (folder / "SHA256SUMS").write_text("of an export\n")
    (folder / "evidence").mkdir()
    (folder / "evidence/cost.json").write_text("{}\n")
    lay_out(find_model(str(folder), tmp_path), None, tmp_path / "whole")
    assert (tmp_path / "whole/evidence/cost.json").is_file()


def test_a_round_without_onnx_files_is_a_folder_too(built: Path, tmp_path: Path) -> None:
    shutil.rmtree(RoundPaths(built, "r1").exported)
    lay_out(find_model("r1", built), None, tmp_path / "out")
    assert not (tmp_path / "out/onnx").exists()
    text = (tmp_path / "out/README.md").read_text()
    assert text.startswith("---\nlicense: unknown\n")
    assert "onnxruntime" not in text


class Hub(BaseHTTPRequestHandler):
    """What the Hub answers to an upload; `team/taken` has a file, all others are new, and `team/denied` may not be written."""

    asked: list[tuple[str, bytes]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        if "/team/taken/" in self.path:
            self._say(200, [{"type": "file", "path": "config.json", "oid": "0" * 40, "size": 1}])
        else:
            self._say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.path, body))
        if self.path == "/api/repos/create" and json.loads(body)["name"] == "denied":
            self._say(403, {"error": "this token may not write"})
        elif self.path == "/api/repos/create":
            self._say(200, {"url": f"http://{self.headers['Host']}/team/new"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._say(200, {"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]})
        elif "/commit/" in self.path:
            self._say(
                200, {"success": True, "commitOid": "c" * 40, "commitUrl": f"http://{self.headers['Host']}/team/new/commit/c"}
            )
        else:
            self._say(200, {})

    def _say(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, each in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, each)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_hub_gets_one_commit_of_all_files(exported: Path, tmp_path: Path, hub: str) -> None:
    code, printed, said = push(tmp_path, exported, "hub:team/new", HF_ENDPOINT=hub, HF_TOKEN="hf_made_up")
    assert code == 0, said
    assert json.loads(printed)["target"] == f"{hub}/team/new/commit/c"
    [made] = [json.loads(body) for path, body in Hub.asked if path == "/api/repos/create"]
    assert (made["name"], made["organization"], made.get("private", made.get("visibility"))) in (
        ("new", "team", True),
        ("new", "team", "private"),
    )
    [commit] = [body for path, body in Hub.asked if "/commit/" in path]
    lines = [json.loads(line)["value"] for line in commit.splitlines() if line]
    sent = {line["path"]: base64.b64decode(line["content"]) for line in lines if "content" in line}
    assert {*sent} == {*json.loads(printed)["files"]}
    assert sent["model.safetensors"] == (exported / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_what_the_hub_refuses_is_a_sentence(exported: Path, tmp_path: Path, hub: str) -> None:
    for repository, words in (("team/taken", "has config.json already"), ("team/denied", "was not uploaded")):
        code, printed, said = push(tmp_path, exported, f"hub:{repository}", HF_ENDPOINT=hub, HF_TOKEN="hf_made_up")
        assert code == 2
        assert f"hub:{repository}: {words}" in said
        assert "hf_made_up" not in said + printed
    code, _, said = push(tmp_path, exported, "hub:team/new", HF_ENDPOINT=hub, HF_TOKEN="hf_made_up", HF_HUB_OFFLINE="1")
    assert (code, "HF_HUB_OFFLINE is set" in said) == (2, True)
    assert not [path for path, _ in Hub.asked if "/commit/" in path]
