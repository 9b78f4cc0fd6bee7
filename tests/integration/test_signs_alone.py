"""Texts of emoji alone go through the stages that count words: the rival counts signs instead, and says so."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tasks.data.clean import row_id
from tasks.data.frames import write_sets
from tasks.files import read_json
from tasks.stages import baselines
from tests.integration.tiny_run import tiny_params


def test_the_baseline_of_emoji_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = tiny_params()
    signs = [("😀" if i % 2 else "😢") * (1 + i) + "❤️👎"[:: 1 if i % 2 else -1] for i in range(24)]
    frame = pd.DataFrame(
        {"row_id": map(row_id, signs), "text": signs, "label": [i % 2 for i in range(24)], "source": "rotten_tomatoes"}
    )
    names = ["train", *params.data.measured_sets]
    write_sets({**dict.fromkeys(names, frame), "transfer": frame.assign(label=-1)}, tmp_path / "sets")
    baselines.run(params, sets=tmp_path / "sets", out=tmp_path / "out")
    assert "no training text has a word of two letters or more; it counts characters" in "".join(capsys.readouterr())
    sets = read_json(tmp_path / "out/quality.json")["rivals"][baselines.TFIDF]["sets"]
    assert sets["test"]["slices"]["overall"]["accuracy"]["value"] == 1.0
