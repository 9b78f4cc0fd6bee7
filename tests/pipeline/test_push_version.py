"""`compactlm push` of a registered version: what `compactlm export` writes, readable by everybody."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.pipeline.conftest import Command
from tests.tiny_project import Project

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning")


def test_a_version_is_pushed_with_its_audit(
    finished: Project, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pushed = tmp_path / "pushed"
    code, printed, said = command(finished, "push", "3", str(pushed), "--license", "Apache-2.0", "--json")
    assert code == 0, said
    facts = json.loads(printed)
    assert (facts["version"], facts["target"]) == ("tiny/3", str(pushed))
    assert {*facts["files"]} >= {
        "README.md",
        "VERIFY.md",
        "SHA256SUMS",
        "model.safetensors",
        "onnx/model.onnx",
        "onnx/model.int8.onnx",
    }
    assert (pushed / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: apache-2.0\n")
    assert {stat.S_IMODE(path.stat().st_mode) for path in pushed.rglob("*") if path.is_file()} == {0o644}
    again = tmp_path / "again"
    assert command(finished, "push", str(pushed), str(again))[0] == 0
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in pushed.iterdir())
