"""`compactlm export` on a real run: what it writes is verified with public tools, from an environment without our code."""

from __future__ import annotations

import ast
import csv
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import model_signing
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tasks.attestation.endpoint import send
from tasks.attestation.export import ExportRequest, export_model
from tasks.children import own_path
from tasks.errors import UserError
from tasks.files import digest, file_sha256, read_json
from tests.pipeline.conftest import Command
from tests.tampering import moved_away, one_byte
from tests.tiny_project import ROOT, Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")

RANDOM = {"model.sig", "provenance.intoto.jsonl"}  # ECDSA signatures differ each time


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def pem(path: Path, private: Any) -> Path:
    """Write a private key and return its file."""
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


class Endpoint:
    """A server on this machine that takes lineage events and keeps them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.status = 200
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                kept.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(kept.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api/v1/lineage"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    """An endpoint for lineage events."""
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a publisher's private key."""
    return pem(tmp_path_factory.mktemp("key") / "signer.pem", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def exported(finished: Project, key: Path, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed export of version 3; change it only inside a `with` that undoes it."""
    out = tmp_path_factory.mktemp("exported") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        export_model(finished.folder, "tiny/3", ExportRequest(out, key, "Apache-2.0", endpoint.url))
    return out


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables of a virtual environment with the public tools and without compactlm."""
    folder = tmp_path_factory.mktemp("stranger")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    (site / "tools.pth").write_text(f"{Path(model_signing.__file__).parents[1]}\n")
    env = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(["python", "-c", "import tasks"], env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert "No module named 'tasks'" in done.stderr
    return env


def commands(folder: Path) -> dict[str, str]:
    """Return heading -> the commands below it that VERIFY.md tells to run."""
    text = (folder / "VERIFY.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    blocks_of = {
        head: re.findall(r"^```sh\n(.*?)^```", body, flags=re.MULTILINE | re.DOTALL)
        for head, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {head: blocks[0] for head, blocks in blocks_of.items() if blocks}


def follow(folder: Path, env: dict[str, str]) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run every command of VERIFY.md as a stranger would."""
    return {
        head: subprocess.run(["bash", "-ec", block], cwd=folder, env=env, capture_output=True, text=True, check=False)
        for head, block in commands(folder).items()
    }


def test_a_stranger_verifies_it_with_public_tools(exported: Path, stranger: dict[str, str]) -> None:
    done = follow(exported, stranger)
    assert len(done) == 5
    for head, ended in done.items():
        assert ended.returncode == 0, f"{head}: {ended.stdout}{ended.stderr}"
    fingerprint = next(ended.stdout.split()[0] for head, ended in done.items() if head == "The key")
    assert f"`{fingerprint}`" in (exported / "VERIFY.md").read_text(encoding="utf-8")
    printed = next(ended.stdout for head, ended in done.items() if "in-toto" in head)
    assert {"data/rows.csv", "teacher/model.safetensors", "code"} <= {line.split()[0] for line in printed.splitlines()}


def test_a_stranger_finds_a_changed_model(exported: Path, stranger: dict[str, str]) -> None:
    with one_byte(exported / "model.safetensors"):
        done = follow(exported, stranger)
    failing = {head for head, ended in done.items() if ended.returncode != 0}
    assert failing == set(done) - {"The key"}
    assert all("model.safetensors" in done[head].stdout + done[head].stderr for head in failing)


def manifest_fault(folder: Path) -> str:
    """Return what model signing says against a folder, nothing when it verifies."""
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=folder.parent / "trusted.pem")
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"])
    try:
        verifier.set_hashing_config(hashing).verify(folder, folder / "model.sig")
    except Exception as fault:  # noqa: BLE001 - whatever a damaged signature makes it raise, it ends its command with 1
        return f"{type(fault).__name__}: {fault}"
    return ""


def test_one_flipped_byte_in_any_file_is_found(exported: Path) -> None:
    shutil.copyfile(exported / "signer.pub.pem", exported.parent / "trusted.pem")
    assert manifest_fault(exported) == ""
    names = sorted(digest(exported)["files"])
    assert len(names) > 30
    for name in names:
        with one_byte(exported / name):
            fault = manifest_fault(exported)
        assert fault, f"{name} was changed, and nobody noticed"
        assert name == "model.sig" or name in fault
    for change in (exported / "added.txt", None):
        if change is None:
            with moved_away(exported / "receipts/fetch.json"):
                assert "Missing files" in manifest_fault(exported)
        else:
            change.write_text("x")
            assert "Extra files" in manifest_fault(exported)
            change.unlink()


def test_every_part_of_the_envelope_is_signed(exported: Path, stranger: dict[str, str]) -> None:
    place = exported / "provenance.intoto.jsonl"
    before = place.read_text(encoding="utf-8")
    content = json.loads(before)
    block = next(block for head, block in commands(exported).items() if "in-toto" in head)
    signature = content["signatures"][0]
    for forged in (
        {**content, "payload": content["payload"][:-8] + "AAAA" + content["payload"][-4:]},
        {**content, "payloadType": "application/json"},
        {**content, "signatures": [{**signature, "sig": signature["sig"][:20] + "AAAA" + signature["sig"][24:]}]},
        {**content, "signatures": []},
    ):
        place.write_text(json.dumps(forged), encoding="utf-8")
        done = subprocess.run(["bash", "-ec", block], cwd=exported, env=stranger, capture_output=True, check=False)
        assert done.returncode != 0
    place.write_text(before, encoding="utf-8")


def test_the_same_model_gives_the_same_bytes(exported: Path, finished: Project, key: Path, tmp_path: Path) -> None:
    report = export_model(finished.folder, "tiny/3", ExportRequest(tmp_path / "model", key, "Apache-2.0", None))
    first, second = digest(exported)["files"], digest(tmp_path / "model")["files"]
    assert set(first) == set(second) == set(report["files"])
    assert {name for name in first if first[name] != second[name]} == RANDOM


def test_the_bytes_are_those_of_the_receipts(exported: Path, finished: Project) -> None:
    trained = finished.folder / "artifacts/rounds/r3/trained/model"
    for path in trained.iterdir():
        assert file_sha256(exported / path.name) == file_sha256(path)
    for name in ("model.onnx", "model.int8.onnx"):
        assert file_sha256(exported / "onnx" / name) == file_sha256(finished.folder / "artifacts/rounds/r3/exported" / name)
    for path in (finished.folder / "artifacts/receipts").iterdir():
        if (exported / "receipts" / path.name).exists():
            assert (exported / "receipts" / path.name).read_bytes() == path.read_bytes()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForSequenceClassification.from_pretrained(exported)
    AutoTokenizer.from_pretrained(exported)


def test_bill_of_materials(exported: Path, finished: Project) -> None:
    bom = read_json(exported / "bom.cdx.json")
    model = bom["metadata"]["component"]
    ancestors = {ancestor["bom-ref"]: ancestor["hashes"][0]["content"] for ancestor in model["pedigree"]["ancestors"]}
    rounds = finished.folder / "artifacts/rounds"
    expected = {
        f"ancestor:{name}": file_sha256(rounds / name / "trained/model/model.safetensors") for name in ("r2", "r1", "teacher")
    }
    expected["ancestor:base"] = file_sha256(finished.folder / "artifacts/fetched/teacher/model.safetensors")
    assert list(ancestors) == list(expected)
    assert ancestors == expected
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    quality = read_json(exported / "evidence/quality.json")["sets"]["test"]["slices"]["class:positive"]["accuracy"]
    shown = next(metric for metric in metrics if metric["type"] == "accuracy" and metric["slice"] == "test/class:positive")
    assert float(shown["value"]) == pytest.approx(quality["value"], rel=1e-5)
    assert float(shown["confidenceInterval"]["lowerBound"]) == pytest.approx(quality["low"], rel=1e-5)
    kinds = [component["type"] for component in bom["components"]]
    assert kinds.count("data") == 2 + len(list((finished.folder / "artifacts/data/sets").glob("*.parquet")))
    assert any(
        component["purl"].startswith("pkg:pypi/torch@") for component in bom["components"] if component["type"] == "library"
    )


def test_lineage_events(exported: Path, endpoint: Endpoint) -> None:
    events = [json.loads(line) for line in (exported / "openlineage.jsonl").read_text(encoding="utf-8").splitlines()]
    assert endpoint.events == events
    whole, *_, last = events
    assert whole["run"]["runId"] == last["run"]["runId"]
    assert {event["run"]["facets"]["parent"]["run"]["runId"] for event in events[1:-1]} == {whole["run"]["runId"]}
    ends = {event["job"]["name"]: event for event in events if event["eventType"] == "COMPLETE"}
    starts = {event["job"]["name"]: event for event in events if event["eventType"] == "START"}
    assert set(ends) == set(starts)
    assert all(starts[name]["eventTime"] <= end["eventTime"] for name, end in ends.items())
    wrote = {
        (dataset["name"], dataset["facets"]["version"]["datasetVersion"])
        for end in ends.values()
        for dataset in end.get("outputs", [])
    }
    for name, end in ends.items():
        for dataset in end.get("inputs", []):
            known = (dataset["name"], dataset["facets"]["version"]["datasetVersion"]) in wrote
            assert known or name == "tiny.fetch", f"{name} reads {dataset['name']}, which no run wrote"
    code = ends["tiny.prune@r3"]["job"]["facets"]["sourceCodeLocation"]
    assert code["path"] == "tasks/stages/prune.py"
    assert re.fullmatch(r"[0-9a-f]{40}", code["version"])


def test_events_that_are_not_taken(endpoint: Endpoint) -> None:
    endpoint.status = 503
    with pytest.raises(UserError, match=r"event 1 of 1 was not taken .*503"):
        send([{"eventType": "START"}], endpoint.url)
    endpoint.status = 200
    endpoint.events.pop()
    with pytest.raises(UserError, match="was not taken"):
        send([{"eventType": "START"}], "http://127.0.0.1:9/")


def test_model_card(exported: Path) -> None:
    from huggingface_hub import ModelCard

    loaded = ModelCard.load(exported / "README.md")
    data = loaded.data
    assert (data.license, data.pipeline_tag, data.base_model) == ("apache-2.0", "text-classification", "teacher")
    results = {(result.dataset_split, result.metric_type): result for result in data.eval_results}
    quality = read_json(exported / "evidence/quality.json")["sets"]["abroad"]["slices"]["overall"]["accuracy"]
    assert results[("abroad", "accuracy")].metric_value == pytest.approx(quality["value"], abs=1e-6)
    assert f"{quality['low']:.3f} to {quality['high']:.3f}" in results[("abroad", "accuracy")].metric_name
    for words in ("## What it lost", "## Not without further evaluation", "## Lineage", "Decision 1, ", "Verdict: **pass**"):
        assert words in loaded.content


def test_without_a_key_and_from_the_cache_alone(
    project: Project, command: Command, stranger: dict[str, str], tmp_path: Path
) -> None:
    shutil.rmtree(project.folder / "artifacts/rounds")
    out = tmp_path / "model"
    code, printed, heard = command(project, "export", "tiny/3", "--out", str(out), "--json")
    assert code == 0, heard
    report = json.loads(printed)
    assert (report["version"], report["signed_with"], report["audit"]["FAIL"]) == (3, None, 0)
    assert not {"model.sig", "signer.pub.pem", "provenance.intoto.jsonl"} & set(report["files"])
    done = follow(out, stranger)
    assert {head: ended.returncode for head, ended in done.items()} == dict.fromkeys(done, 0)
    assert len(done) == 2
    subjects = {file["name"]: file["digest"]["sha256"] for file in read_json(out / "provenance.statement.json")["subject"]}
    assert subjects["onnx/model.onnx"] == hashlib.sha256((out / "onnx/model.onnx").read_bytes()).hexdigest()
    assert "license: unknown\n" in (out / "README.md").read_text(encoding="utf-8")


def test_a_model_whose_audit_fails_stays_here(project: Project, command: Command, tmp_path: Path) -> None:
    with one_byte(project.folder / "artifacts/data/sets/train.parquet"):
        code, _, heard = command(project, "export", "tiny/3", "--out", str(tmp_path / "model"))
    assert code == 2
    assert "tiny/3 is not exported: " in heard
    assert "artifacts/data/sets/train.parquet" in heard
    assert list(tmp_path.glob("**/README.md")) == []
    assert not (tmp_path / "model").exists()


def test_what_the_card_shows_works_when_pasted(exported: Path) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```(python|sh)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert [language for language, _ in shown] == ["python", "python", "sh"]
    label = pasted(shown, exported)
    assert label in read_json(exported / "config.json")["id2label"].values()


@pytest.mark.slow
def test_what_the_report_shows_works_when_pasted(finished: Project) -> None:
    page = (finished.folder / "artifacts/report.html").read_text(encoding="utf-8")
    chosen = read_json(finished.folder / "artifacts/selection.json")["selected"]
    shown = [html.unescape(code) for code in re.findall(r"<pre tabindex=\"0\"><code>(.*?)</code></pre>", page, flags=re.DOTALL)]
    assert len(shown) == (0 if chosen is None else 3)
    if shown:
        pasted(list(zip(("python", "python", "sh"), shown, strict=True)), finished.folder)


def pasted(shown: list[tuple[str, str]], folder: Path) -> str:
    """Return the label that code for transformers, ONNX Runtime and the shell gives in a folder; all must give the same."""
    env = {**os.environ, "PATH": own_path(), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    env.pop("MLFLOW_TRACKING_URI", None)
    printed = []
    for language, code in shown:
        command = ["bash", "-ec", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    [answer], scores = ast.literal_eval(printed[0]), ast.literal_eval(printed[1])
    [row] = csv.DictReader(io.StringIO(printed[2]))
    assert answer["label"] == max(scores, key=scores.__getitem__) == row["label"]
    assert answer["score"] == pytest.approx(scores[answer["label"]], abs=1e-5)
    assert answer["score"] == pytest.approx(float(row["score"]), abs=1e-5)
    return str(answer["label"])


def test_wrong_wishes(finished: Project, command: Command, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    ed = pem(tmp_path / "ed.pem", ed25519.Ed25519PrivateKey.generate())
    out = str(tmp_path / "model")
    for arguments, words in (
        (["--out", str(tmp_path / "full")], "there is something already"),
        (["--out", out, "--key", str(ed)], "not an elliptic-curve key of the curve P-256; `openssl genpkey"),
        (["--out", out, "--key", str(tmp_path / "none.pem")], "No such file"),
        (["--out", out, "--openlineage", "localhost:5000"], "--openlineage localhost:5000: not an address"),
    ):
        code, _, heard = command(finished, "export", *arguments)
        assert (code, words in heard) == (2, True), heard
    assert not Path(out).exists()
