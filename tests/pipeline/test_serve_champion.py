"""`compactlm serve champion` on a real run: the version that is live, from the local registry, without MLflow or torch."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tasks.files import file_sha256
from tests.integration.test_invocations import serving
from tests.pipeline.conftest import Command
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")
TEXTS = ["A fine film.", "Bad, slow and dull.", "Great!"]


def test_champion_round_and_version_answer_as_predict_does(
    finished: Project, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    code, printed, said = command(finished, "predict", "champion", str(tmp_path / "texts.txt"), "--onnx", "--json")
    assert code == 0, said
    expected = [json.loads(line) for line in printed.splitlines()]
    for name in ("champion", "3", "r3"):
        with serving(name, folder=finished.folder) as served:
            given = served.predictions({"inputs": TEXTS})
            served.process.send_signal(signal.SIGINT)
            _, said = served.process.communicate(timeout=60)
        assert [answer["label"] for answer in given] == [row["label"] for row in expected]
        assert [answer["score"] for answer in given] == pytest.approx([row["score"] for row in expected], abs=1e-5)
        assert served.facts["version"] == (None if name == "r3" else "tiny/3")
        exported = finished.folder / "artifacts/rounds/r3/exported/model.onnx"
        assert served.facts["sha256"] == file_sha256(exported)
        assert said.splitlines()[-1] == "loaded:"
