"""A tiny language model by the real command line: `compactlm run --params`, DVC, MLflow, and nothing to do afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.causal import ROUNDS, tiny_values, write_documents
from tests.tiny_project import Project


@pytest.mark.slow
def test_a_language_model_runs_end_to_end_and_registers_its_rounds(tiny_project: Project, tmp_path: Path) -> None:
    project = tiny_project.copy(tmp_path / "project")
    write_documents(tmp_path / "text")
    values = tiny_values(tmp_path / "text")
    values["gates"].append({"metric": "repetition_rate", "set": "test", "max": 1.0})
    values["promotion"]["gates"] = [
        {"metric": "perplexity", "set": "test", "versus": "champion", "max_ratio": 50.0},
        {"check": "lineage"},
        {"check": "clean_git", "severity": "warn"},
    ]
    YAML().dump(values, tmp_path / "lm.yaml")
    states = project.run("--params", str(tmp_path / "lm.yaml"))
    assert set(states.values()) == {"executed"}

    models = json.loads(project.compactlm("models", "--json").stdout)
    assert [one["round"] for one in models] == list(ROUNDS)
    assert models[1]["aliases"] == ["challenger", "champion"]
    assert models[1]["metrics"]["test"]["perplexity"] > 1.0
    assert "perplexity" in project.compactlm("models").stdout
    done = project.compactlm("promote", "1", "--reason", "a larger one")
    assert done.returncode == 0, done.stderr
    refused = project.compactlm("compare", "1", "2")
    assert refused.returncode == 2
    assert "side by side in the report" in refused.stderr

    found = json.loads(project.compactlm("audit", "1", "--json").stdout)
    faults = [one for one in found["checks"] if one["result"] != "PASS"]
    assert found["result"] == "PASS", faults
    assert {one["name"] for one in found["checks"]} >= {"pruning", "checkpoints", "metrics", "verdict", "decision"}

    refused = project.compactlm("export", "tiny-lm/1", "--out", str(tmp_path / "exported"))
    assert refused.returncode == 2
    assert "export describes classifiers" in refused.stderr
    assert not (tmp_path / "exported").exists()

    done = project.compactlm("run", "--json")
    assert json.loads(done.stdout)["state"] == "no change"
