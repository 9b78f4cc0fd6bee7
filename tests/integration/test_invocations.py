"""`compactlm serve MODEL`: a real server process that clients of `mlflow models serve` ask, and what it answers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.children import local_opener
from tasks.exports.onnx import OnnxClassifier
from tasks.files import file_sha256, read_json, write_json
from tasks.using import answers
from tasks.using.model import ONNX_FILES, find_model
from tasks.using.server import listening
from tasks.using.session import load_light, open_file
from tests.integration import test_predict as predicted
from tests.integration.conftest import Outside
from tests.marks import quick

ROOT = Path(__file__).resolve().parents[2]
exported, WRITTEN = predicted.exported, predicted.WRITTEN
# Says at the end which of the heavy libraries were loaded.
PROGRAM = """
import sys
from tasks.cli.app import main
from tests.marks import quick
try:
    main()
finally:
    print("loaded:", *({"torch", "transformers", "mlflow", "pandas"} & {*sys.modules}), file=sys.stderr)
"""


@dataclass
class Served:
    """A server that is ready: its process, and the line of JSON that it printed."""

    process: subprocess.Popen[str]
    facts: dict[str, Any]

    def ask(self, body: Any, path: str = "/invocations", **headers: str) -> tuple[int, Any]:
        """Return status and JSON for a body, GET without one."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.facts["address"] + path, data, {"Content-Type": "application/json", **headers})
        try:
            with local_opener.open(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def predictions(self, body: Any) -> list[dict[str, Any]]:
        status, answer = self.ask(body)
        assert status == 200, answer
        return list(json.loads(answer)["predictions"])


@contextmanager
def serving(model: Path | str, *arguments: object, folder: Path = ROOT) -> Iterator[Served]:
    """Give `compactlm serve MODEL`, called in a folder, when it is ready."""
    command = [sys.executable, "-c", PROGRAM, "serve", model, "--port", 0, "--json", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(list(map(str, command)), cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield Served(process, json.loads(line))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served(exported: Path) -> Iterator[Served]:
    with serving(exported, "--limits", 100, 20_000) as found:
        yield found


def scores_of(folder: Path, form: str) -> list[tuple[str, float]]:
    """Return what `compactlm predict` answers."""
    given = answers.load(find_model(str(folder), folder), form).answer(WRITTEN)
    return [(each.label, each.score) for each in given if each]


def assert_same(given: list[dict[str, Any]], expected: list[tuple[str, float]]) -> None:
    assert [set(each) for each in given] == [{"label", "score"}] * len(expected)
    assert [each["label"] for each in given] == [label for label, _ in expected]
    np.testing.assert_allclose([each["score"] for each in given], [score for _, score in expected], atol=1e-5)


def test_it_says_what_it_serves(served: Served, exported: Path) -> None:
    facts = {key: value for key, value in served.facts.items() if key != "address"}
    assert served.facts["address"].startswith("http://127.0.0.1:")
    assert facts == {
        "model": str(exported),
        "version": None,
        "form": "onnx",
        "sha256": file_sha256(exported / "onnx/model.onnx"),
        "labels": ["negative", "positive"],
        "max_tokens": 64,
        "max_rows": 100,
        "max_bytes": 20_000,
    }


def test_answers_are_those_of_predict_and_of_what_mlflow_serves(served: Served, exported: Path) -> None:
    from mlflow.pyfunc.model import PythonModelContext

    from tasks.registry.served_model import TextClassifier

    given = served.predictions({"inputs": WRITTEN})
    assert_same(given, scores_of(exported, "onnx"))
    assert_same(given, scores_of(exported, "torch"))
    model = TextClassifier()
    model.load_context(context := PythonModelContext({"model": str(exported)}, {}))
    for texts in (WRITTEN, ["", " ", "a film"]):
        expected = model.predict(context, texts)
        assert_same(served.predictions({"inputs": texts}), list(zip(expected["label"], expected["score"], strict=True)))


def test_each_form_of_a_request_is_the_same_request(served: Served) -> None:
    plain = served.predictions({"inputs": WRITTEN})
    for body in (
        {"instances": WRITTEN},
        {"dataframe_records": [{"text": text} for text in WRITTEN]},
        {"dataframe_split": {"columns": ["id", "text"], "data": [[1, text] for text in WRITTEN]}},
        {"inputs": WRITTEN, "params": {}},
    ):
        assert served.predictions(body) == plain


def test_mlflows_other_addresses_answer_as_there(served: Served) -> None:
    import mlflow

    assert served.ask(None, "/ping") == (200, "\n")
    assert served.ask(None, "/health") == (200, "\n")
    assert served.ask(None, "/version") == (200, mlflow.__version__)


def test_a_fault_of_the_client_is_a_sentence(served: Served) -> None:
    for body, headers, status, words in (
        (b"{", {}, 400, "the body is not JSON"),
        ({"texts": ["a"]}, {}, 400, "the body needs one of inputs"),
        ({"dataframe_records": [{"id": 1, "body": "a"}]}, {}, 400, "no column is called text"),
        ({"inputs": ["a"] * 101}, {}, 400, "101 rows; at most 100 are answered at once"),
        ({"inputs": ["a" * 20_000]}, {}, 400, "more than 20,000 bytes"),
        ({"inputs": ["a" * 5_000_000]}, {}, 400, "more than 20,000 bytes"),
        ({"inputs": ["a"]}, {"Content-Type": "text/csv"}, 415, "application/json is read here"),
    ):
        found, answer = served.ask(body, **headers)
        assert (found, answer["error_code"]) == (status, "BAD_REQUEST")
        assert words in answer["message"]
    assert served.ask(None)[0] == 405
    found, answer = served.ask({"inputs": ["a"]}, "/predict")
    assert (found, "POST /invocations" in answer["message"]) == (404, True)
    assert len(served.predictions({"inputs": ["a"] * 100})) == 100


def test_many_clients_at_once_get_their_own_answers(served: Served) -> None:
    expected = dict(zip(WRITTEN, served.predictions({"inputs": WRITTEN}), strict=True))

    def ask(start: int) -> bool:
        texts = [WRITTEN[(start + step) % len(WRITTEN)] for step in range(5)]
        found = served.predictions({"inputs": texts})
        np.testing.assert_allclose([one["score"] for one in found], [expected[text]["score"] for text in texts], atol=1e-5)
        return [one["label"] for one in found] == [expected[text]["label"] for text in texts]

    with ThreadPoolExecutor(16) as clients:
        assert all(clients.map(ask, range(200)))


def test_a_connection_is_kept_and_one_that_says_nothing_harms_nobody(served: Served) -> None:
    host, port = served.facts["address"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))):
        client = http.client.HTTPConnection(host, int(port), timeout=60)
        for _ in range(3):
            client.request("POST", "/invocations", json.dumps({"inputs": ["a film"]}), {"Content-Type": "application/json"})
            assert json.load(client.getresponse())["predictions"]
        client.close()
    with listening("localhost", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # else each answer waits for 40 ms


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_is_light_and_ends_with_130(exported: Path, how: int) -> None:
    with serving(exported) as light:
        assert light.predictions({"inputs": ["a film"]})
        light.process.send_signal(how)
        rest, said = light.process.communicate(timeout=60)
    assert (light.process.returncode, rest) == (130, "")
    assert "interrupted: `compactlm serve " in said
    assert said.splitlines()[-1] == "loaded:"
    assert "Traceback" not in said


FORMS = [("--int8", "onnx_int8"), ("--torch", "torch")]


@pytest.mark.parametrize(("option", "form"), quick(FORMS, FORMS[:1]))
def test_the_other_forms_answer_as_predict_does(exported: Path, option: str, form: str) -> None:
    with serving(exported, option) as other:
        assert other.facts["form"] == form
        assert_same(other.predictions({"inputs": WRITTEN}), scores_of(exported, form))


def test_the_light_session_is_that_of_the_export(exported: Path, tmp_path: Path) -> None:
    light = load_light(find_model(str(exported), tmp_path), "onnx")
    heavy = answers.load(find_model(str(exported), tmp_path), "onnx")
    assert (light.labels, light.longest) == (heavy.labels, heavy.longest)
    assert light.answer(WRITTEN) == heavy.answer(WRITTEN)
    assert light.tally == heavy.tally
    from tasks.data.tokens import tokenize

    tokens = tokenize(WRITTEN, exported / "tokenizer.json", 64)
    for name in ONNX_FILES.values():
        file = exported / "onnx" / name
        np.testing.assert_allclose(open_file(file, 1)(tokens), OnnxClassifier(file, 1).predict(tokens, 1), atol=1e-6)


def test_what_cannot_be_served_is_a_sentence(exported: Path, outside: Outside, tmp_path: Path) -> None:
    generator, broken = (shutil.copytree(exported, tmp_path / name) for name in ("generator", "broken"))
    write_json(generator / "config.json", {**read_json(generator / "config.json"), "architectures": ["GPT2LMHeadModel"]})
    (broken / "onnx/model.onnx").write_bytes(b"no model")
    (broken / "onnx/model.int8.onnx").unlink()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, words in (
            ([generator], "is a language model, which continues texts and gives no labels"),
            ([broken, "--port", "0"], "ONNX Runtime cannot read it"),
            ([broken, "--int8"], "there is no model.int8.onnx"),
            ([exported, "--port", port], f"--port {port}: nothing can listen there"),
            ([exported, "--torch", "--onnx"], "one of them runs the model"),
            ([exported, "--limits", "0", "5"], "whole numbers from 1 on"),
            (["r7"], "r7: no folder with a config.json"),
        ):
            code, printed, said = outside("serve", *arguments)
            assert (code, printed) == (2, ""), said
            assert words in said
